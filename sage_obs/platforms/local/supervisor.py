"""The supervisor of the local platform: it makes what runs equal to what is desired, and says what it sees.

A switch is gated and loses no connection. The new release starts beside the old one with the same listening socket, which this
process owns; it must become ready in time, or it is stopped and the old one stays. Only then does `current` move to the new
release's folder, in one step, and the old one drains.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import sys
import time
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from sage_obs.errors import PlatformError, SageObsError
from sage_obs.files import replace_text
from sage_obs.platforms.base import Instance
from sage_obs.platforms.local import releases
from sage_obs.platforms.local.records import Desired, Status, read_desired, write_status
from sage_obs.platforms.local.releases import StoredRelease
from sage_obs.processes import Process, spawn, stop

HEARTBEAT: Final = 1.0
"""Seconds between two status reports when nothing changes."""
_PROFILES_PORT: Final = "SAGE_PROFILING_PORT"


@dataclass(frozen=True, slots=True)
class Gate:
    """Limits of a switch in seconds: how long a release may take to be ready, an old one to drain, and one that was bad to drain."""

    ready: float = 20.0
    drain: float = 15.0
    drain_bad: float = 3.0


@dataclass(frozen=True, slots=True)
class Host:
    """What instances get from where they run.

    The shared listening socket, a free port for each one's operations server, a folder for their logs, environment variables, and,
    where they are told which one, a free port for each one's profiles.
    """

    listener: socket.socket
    ops_port: Callable[[], int]
    logs: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    profiles_port: Callable[[], int] | None = None


@dataclass(slots=True)
class _Running:
    release: StoredRelease
    process: Process
    ops_port: int
    profiles_url: str
    deadline: float
    ready: bool = False
    draining: bool = False


class LocalSupervisor:
    """Runs one instance of a service on `host` and follows `desired.json` in `root`.

    `probe(url)` says whether an instance's readiness answers 200. `step` does a little and returns at once; call it a few times a
    second from the main thread. `events` receives a sentence for each thing that happens.
    """

    def __init__(
        self,
        root: Path,
        *,
        service: str,
        host: Host,
        probe: Callable[[str], bool] | None = None,
        gate: Gate | None = None,
        events: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._root = root
        self._service = service
        self._host = host
        self._probe = probe or answers
        self._gate = gate or Gate()
        self._events = events
        self._serving: _Running | None = None
        self._candidate: _Running | None = None
        self._draining: list[_Running] = []
        self._request: Desired | None = None
        self._settled = ""
        self._detail = ""
        self._reported = 0.0
        self._started = 0
        self._mute = False
        root.mkdir(parents=True, exist_ok=True)

    @property
    def targets(self) -> Path:
        """The file in which Prometheus finds what to scrape."""
        return self._root / "targets.json"

    @property
    def serving(self) -> str:
        """The version that serves, "" before the first."""
        return self._serving.release.version if self._serving else ""

    @property
    def processes(self) -> tuple[Process, ...]:
        """Every child that may still run."""
        return tuple(one.process for one in self._running())

    def _running(self) -> list[_Running]:
        return [one for one in (self._serving, self._candidate) if one is not None] + self._draining

    def announce(self) -> None:
        """Say that a supervisor is here, before anything is started: from now on requests are accepted."""
        self._report()

    def step(self) -> None:
        """Notice what happened, move one step towards what is desired, report. Raises UnavailableError if the serving child died."""
        self._reap()
        self._follow()
        if self._candidate is not None:
            self._judge(self._candidate)
        if time.monotonic() - self._reported >= HEARTBEAT:
            self._report()

    def stop(self) -> None:
        """Drain and stop everything this supervisor started, and say that it is gone."""
        stop(self.processes, grace=self._gate.drain)
        self._serving = self._candidate = None
        self._draining.clear()
        self._report(ended=True)

    def _reap(self) -> None:
        for one in list(self._draining):
            if one.process.exit_code is not None:
                self._draining.remove(one)
                self._events(f"{one.release.version} has drained and stopped")
                self._report()
            elif time.monotonic() > one.deadline:
                one.process.signal(signal.SIGKILL)
        if self._serving is not None and self._serving.process.exit_code is not None:
            died, self._serving = self._serving, None
            self._report()
            raise died.process.died()

    def _follow(self) -> None:
        """Take up a request that is new. One that cannot be read changes nothing: what serves goes on serving."""
        try:
            desired = read_desired(self._root)
        except PlatformError as exc:
            if self._detail != exc.message:
                self._detail = exc.message
                self._events(exc.message)
                self._report()
            return
        if desired is not None and desired != self._request:
            self._begin(desired)

    def _begin(self, desired: Desired) -> None:
        """Take up a new request: nothing to do, or a candidate to start."""
        self._request, self._detail = desired, ""
        if self._candidate is not None:
            self._drain(self._candidate, within=self._gate.drain_bad)
            self._candidate = None
        if self._serving is not None and self._serving.release.digest == desired.digest:
            self._settle("")
            return
        try:
            self._candidate = self._start(releases.load(self._root, desired.version))
        except SageObsError as exc:
            self._settle(f"{desired.version} cannot be started: {exc.message}")
            return
        self._report()

    def _start(self, release: StoredRelease) -> _Running:
        self._started += 1
        name, port = f"{self._service}-{self._started}", self._host.ops_port()
        environment = {
            **self._profiled(),
            **self._host.environment,
            **release.environment,
            "SAGE_SERVICE_VERSION": release.version,
            "SAGE_SERVICE_REVISION": release.digest.removeprefix("sha256:")[:12],
            "SAGE_METRICS_HOST": "127.0.0.1",
            "SAGE_METRICS_PORT": str(port),
        }
        command = [sys.executable if part == "python" else part for part in release.argv()]
        process = spawn(name, command, log=self._host.logs / f"{name}.log", environment=environment, listener=self._host.listener.fileno())
        self._events(f"{release.version} is starting (pid {process.pid})")
        return _Running(release, process, port, _profiles_url({**os.environ, **environment}), time.monotonic() + self._gate.ready)

    def _profiled(self) -> dict[str, str]:
        """Where an instance that serves profiles does so, unless the release says another place."""
        return {} if self._host.profiles_port is None else {_PROFILES_PORT: str(self._host.profiles_port())}

    def _judge(self, candidate: _Running) -> None:
        """Promote a candidate that is ready; give up one that died or took too long."""
        if candidate.process.exit_code is not None:
            self._reject(candidate, f"it {candidate.process.ending()}")
        elif self._probe(f"{_ops_url(candidate)}/health/ready"):
            self._promote(candidate)
        elif time.monotonic() > candidate.deadline:
            self._reject(candidate, f"it was not ready within {self._gate.ready:g} s")

    def _reject(self, candidate: _Running, reason: str) -> None:
        self._candidate = None
        self._drain(candidate, within=self._gate.drain_bad)
        kept = f"; {self.serving} keeps serving" if self._serving else ""
        words = f". Its last words: {tail}" if (tail := candidate.process.tail(3)) else ""
        self._events(f"{candidate.release.version} was rejected: {reason}{kept}")
        self._settle(f"{candidate.release.version} was rejected: {reason}{kept}{words}. Log: {candidate.process.log}")

    def _promote(self, candidate: _Running) -> None:
        previous, self._serving, self._candidate = self._serving, candidate, None
        candidate.ready = True
        self._link(candidate.release.folder)
        self._events(f"{candidate.release.version} is ready and serves")
        if previous is not None:
            bad = self._request is not None and self._request.rollback
            self._drain(previous, within=self._gate.drain_bad if bad else self._gate.drain)
        self._settle("")

    def _drain(self, running: _Running, *, within: float) -> None:
        running.process.signal(signal.SIGTERM)
        running.draining, running.ready = True, False
        running.deadline = time.monotonic() + within
        self._draining.append(running)

    def _link(self, folder: Path) -> None:
        """Move the `current` link in one step: readers see the old release or the new."""
        scratch = self._root / ".current.new"
        with self._kept_serving():
            scratch.unlink(missing_ok=True)
            scratch.symlink_to(os.path.relpath(folder, self._root))
            scratch.replace(self._root / "current")

    def _settle(self, detail: str) -> None:
        self._settled = self._request.request if self._request else ""
        self._detail = detail
        self._report()

    def _report(self, *, ended: bool = False) -> None:
        """Tell the driver and Prometheus what runs; the serving instance's readiness is read anew."""
        if self._serving is not None:
            self._serving.ready = self._probe(f"{_ops_url(self._serving)}/health/ready")
        running = [one for one in self._running() if one is not self._candidate]
        instances = tuple(self._instance(one) for one in running)
        with self._kept_serving():
            status = Status(os.getpid(), 0.0 if ended else time.time(), self._settled, self._detail, instances)
            write_status(self._root, status)
            self._write_targets([f"127.0.0.1:{one.ops_port}" for one in running])
        self._reported = time.monotonic()

    @contextmanager
    def _kept_serving(self) -> Iterator[None]:
        """A record that cannot be written (a full disk) is said once and does not end what serves; readers see it grow old."""
        try:
            yield
        except OSError as exc:
            if not self._mute:
                self._events(f"cannot write the platform's records in {self._root}: {exc.strerror}; what serves goes on")
            self._mute = True
        else:
            self._mute = False

    def _write_targets(self, targets: list[str]) -> None:
        text = json.dumps([{"targets": targets}]) + "\n"
        if not self.targets.exists() or self.targets.read_text() != text:
            replace_text(self.targets, text)

    def _instance(self, running: _Running) -> Instance:
        host, port = self._host.listener.getsockname()[:2]
        return Instance(
            name=running.process.name,
            version=running.release.version,
            digest=running.release.digest,
            pid=running.process.pid,
            url=f"http://{host}:{port}",
            ops_url=_ops_url(running),
            ready=running.ready,
            log=str(running.process.log),
            started_at=running.process.started_at,
            draining=running.draining,
            profiles_url=running.profiles_url,
        )


def answers(url: str) -> bool:
    """Whether a GET of this URL is answered with 200 within a second."""
    parts = urllib.parse.urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=1.0)
    try:
        connection.request("GET", parts.path)
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _ops_url(running: _Running) -> str:
    return f"http://127.0.0.1:{running.ops_port}"


def _profiles_url(environment: Mapping[str, str]) -> str:
    """By the variables of the profiler; "" where they do not name the port or the profiles are encrypted."""
    port = environment.get(_PROFILES_PORT, "0")
    known = port.isdecimal() and int(port) > 0 and not environment.get("SAGE_PROFILING_CERTIFICATE")
    return f"http://127.0.0.1:{port}" if known else ""


def current(root: Path) -> str:
    """The version the `current` link points to. Raises PlatformError where there is none."""
    try:
        return (root / "current").readlink().name
    except OSError as exc:
        raise PlatformError(f"No release is current in {root}.") from exc
