"""Start, watch and stop the stack.

Everything runs as a child of this process and is stopped by its own pid; when one child dies, all are stopped, so that what the
table says is always true.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version as package_version
from pathlib import Path
from typing import Final, Self

from sage_obs.conventions import DEFAULT_PROFILING_PORT, SERVICE
from sage_obs.errors import PlatformError, UnavailableError
from sage_obs.platforms.base import Release
from sage_obs.platforms.ledger import Standing
from sage_obs.platforms.local import releases
from sage_obs.platforms.local.driver import LocalPlatform
from sage_obs.platforms.local.supervisor import Host, LocalSupervisor, answers
from sage_obs.platforms.select import open_ledger, platform_root
from sage_obs.processes import Process, spawn, stop
from sage_obs.slo.windows import PRODUCTION, Windows
from sage_obs.stack import binaries, parts
from sage_obs.stack.parts import Layout, Part
from sage_obs.stack.ports import Policy, Ports, is_free
from sage_obs.stack.state import DEFAULT_STATE, StackNote, exclusive, remove_note

AGENT_COMMAND: Final = ("python", "-m", "sage_agent", "serve", "--config", "{release}/config.yaml")
DEFAULT_CONFIG: Final = """\
# The agent of the local stack: it answers from the embedded scripted provider, after 20 ms.
llm:
  provider: scripted
  scripted:
    latency: 20ms
"""
READY_TIMEOUT: Final = 30.0
"""Seconds a part may take to be ready."""
_TICK: Final = 0.05
_GRACE: Final = 5.0
_DEATHS: Final = 3
_DEATHS_WITHIN: Final = 30.0


@dataclass(frozen=True, slots=True)
class Options:
    """What `sage-obs up` was asked for.

    `ports` overrides `parts.PORTS` by name. `config` is the text of the agent's configuration file and `version` the name of the
    release made of it; with neither, what the platform last wanted goes on. `rate` is in messages a second. `tools` is the state
    folder that keeps fetched binaries, if it is another. With `degraded`, a missing Prometheus is no error.
    """

    state: Path = DEFAULT_STATE
    windows: Windows = PRODUCTION
    policy: Policy = "exact"
    ports: Mapping[str, int] = field(default_factory=dict)
    config: str | None = None
    version: str = ""
    traffic: bool = True
    rate: float = 40.0
    traffic_seconds: float = 3600.0
    restart_responder: bool = False
    tools: Path | None = None
    degraded: bool = True


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table: what runs where."""

    part: str
    pid: int
    address: str
    log: str


@dataclass(slots=True)
class _Child:
    part: Part
    process: Process
    deaths: list[float] = field(default_factory=list)


class Stack:
    """The running stack. `say` receives a sentence about each thing that happens.

    `check` is called wherever the work can be left; what it raises ends the stack in good order.
    Use it as a context manager: entering starts everything, leaving stops everything. Call `step` often, from the main thread.
    """

    def __init__(self, options: Options, *, say: Callable[[str], None], check: Callable[[], None] = lambda: None) -> None:
        self.options = options
        self._check = check
        self.state = options.state.absolute()
        self.platform = LocalPlatform(platform_root(self.state, SERVICE), service=SERVICE)
        self._say = say
        self._root = platform_root(self.state, SERVICE)
        self._children: dict[str, _Child] = {}
        self._cleanup = contextlib.ExitStack()

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self._cleanup.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._cleanup.close()

    def _start(self) -> None:
        """Start every part in the order of need. What is started is stopped in the opposite order."""
        self.state.mkdir(parents=True, exist_ok=True)
        self._cleanup.enter_context(exclusive(self.state))
        tools = self._tools()
        self.layout, listener = self._place()
        self._supervisor = self._start_agent(listener)
        if tools:
            parts.write_rules(self.layout)
            self._run(parts.alertmanager(self.layout, tools["alertmanager"]))
            self._run(parts.prometheus(self.layout, tools["prometheus"], targets=self._supervisor.targets))
            self._run(parts.responder(self.layout, restart=self.options.restart_responder))
        if self.options.traffic:
            self._run(parts.traffic(self.layout, rate=self.options.rate, seconds=self.options.traffic_seconds))
        self._cleanup.callback(remove_note, self.state)
        self.note.write(self.state)

    def _tools(self) -> dict[str, Path]:
        """The two servers, or none of them: the degraded mode."""
        try:
            with self._phase("prometheus and alertmanager", "found"):
                folder = self.options.tools or self.state
                return {
                    name: binaries.find(name, state=folder, say=self._say, check=self._check) for name in ("prometheus", "alertmanager")
                }
        except UnavailableError as exc:
            if not self.options.degraded:
                raise
            self._say(f"{exc} Going on without them: nothing will fire, and nothing is answered by itself.")
            return {}

    def _place(self) -> tuple[Layout, socket.socket]:
        """Take every port; the agent's is bound here and handed from release to release."""
        ports = Ports(self.options.policy)
        numbers = {name: ports.take(name, self.options.ports.get(name, port)) for name, port in parts.PORTS.items()}
        listener = self._cleanup.enter_context(socket.create_server(("127.0.0.1", numbers["agent"]), backlog=1024))
        return Layout(self.state, self.options.windows, numbers), listener

    @contextlib.contextmanager
    def _phase(self, part: str, done: str = "ready") -> Iterator[None]:
        started = time.monotonic()
        yield
        self._say(f"{part}: {done} after {time.monotonic() - started:.1f} s")

    def _start_agent(self, listener: socket.socket) -> LocalSupervisor:
        named = os.environ.get("SAGE_PROFILING_PORT")
        profiles = None if named else self._next_profiles_port
        host = Host(listener, self._next_ops_port, self.state / "logs", {"PYTHONUNBUFFERED": "1"}, profiles)
        supervisor = LocalSupervisor(self._root, service=SERVICE, host=host, events=lambda text: self._say(f"agent: {text}"))
        release = None if self._resumes() else self._made()
        self._cleanup.callback(supervisor.stop)
        supervisor.announce()
        if release is not None:
            self.platform.deploy(release, by="sage-obs up")
        self._supervisor = supervisor
        self.wait(lambda: self.platform.describe().converged, what="the agent", watch=self._agent_trouble)
        return supervisor

    def _resumes(self) -> bool:
        """Whether what the platform last wanted goes on: nothing else was asked for, it is intact, and not known to be bad."""
        if self.options.config is not None or self.options.version:
            return False
        try:
            desired = self.platform.describe().desired
            if desired is None:
                return False
            self.platform.release(desired.version)
        except PlatformError as exc:
            self._say(f"agent: what ran last cannot go on: {exc.message}")
            return False
        if open_ledger(self.state, service=SERVICE).standing(desired.digest) is Standing.BAD:
            self._say(f"agent: {desired.version} ran last and is known to be bad, so it does not go on")
            return False
        self._say(f"agent: going on with {desired.version}, which the platform last wanted")
        return True

    def _made(self) -> Release:
        """The release that was asked for, or that of the installed version; stored if it is new."""
        asked, config = self.options.version, self.options.config
        if not (asked and config is None and asked in releases.versions(self._root)):
            default = package_version("sage-obs")
            name = asked or (default if config is None else f"{default}-{hashlib.sha256(config.encode()).hexdigest()[:8]}")
            stored = releases.create(
                self._root, name, command=AGENT_COMMAND, files={"config.yaml": DEFAULT_CONFIG if config is None else config}
            )
            asked = stored.version
        return self.platform.release(asked)

    def _agent_trouble(self) -> str:
        described = self.platform.describe()
        return "" if described.in_progress or described.converged else described.detail

    def _next_ops_port(self) -> int:
        """The metrics port while it is free; a release that starts beside another takes any other."""
        wanted = self.layout.ports["metrics"]
        return wanted if wanted and is_free(wanted) else Ports("any").take("metrics", 0)

    def _next_profiles_port(self) -> int:
        """The port everybody knows while it is free and ports are not to be any."""
        wanted = 0 if self.options.policy == "any" else DEFAULT_PROFILING_PORT
        return wanted if wanted and is_free(wanted) else Ports("any").take("profiles", 0)

    def _run(self, part: Part) -> None:
        with self._phase(part.name, "ready" if part.ready else "started"):
            self._children[part.name] = _Child(part, self._spawn(part))
            self._cleanup.callback(self._stop, part.name)
            if part.ready:
                self.wait(lambda: answers(part.url + part.ready), what=part.name)

    def _spawn(self, part: Part) -> Process:
        return spawn(part.name, part.command, log=self.state / f"logs/{part.name}.log", cwd=part.cwd)

    def _stop(self, name: str) -> None:
        if (child := self._children.pop(name, None)) is not None:
            stop([child.process], grace=_GRACE)

    def wait(self, done: Callable[[], bool], *, what: str, timeout: float = READY_TIMEOUT, watch: Callable[[], str] = lambda: "") -> None:
        """Keep the stack going until `done()`. Raises UnavailableError after `timeout` seconds, or with what `watch()` says is wrong."""
        deadline = time.monotonic() + timeout
        while not done():
            self.step()
            if (trouble := watch()) != "":
                raise UnavailableError(f"Gave up waiting for {what}: {trouble}.")
            if time.monotonic() > deadline:
                raise UnavailableError(f"Gave up waiting for {what} after {timeout:g} s.", hint=f"Logs: {self.state / 'logs'}")
            time.sleep(_TICK)

    def step(self) -> None:
        """Let the platform do its work and look after the children. Raises UnavailableError when one of them has died."""
        self._check()
        self._supervisor.step()
        for child in list(self._children.values()):
            if child.process.exit_code is not None:
                self._lost(child)

    def _lost(self, child: _Child) -> None:
        name, process = child.part.name, child.process
        if name == "traffic" and process.exit_code == 0:
            del self._children[name]
            self._say("traffic: its time is over")
        elif child.part.restart and self._may_restart(child):
            self._say(f"{name} (pid {process.pid}) {process.ending()}; starting it again")
            child.process = self._spawn(child.part)
        else:
            raise process.died()

    @staticmethod
    def _may_restart(child: _Child) -> bool:
        """A part that dies again and again is not started for ever."""
        now = time.monotonic()
        child.deaths = [at for at in child.deaths if now - at < _DEATHS_WITHIN] + [now]
        return len(child.deaths) <= _DEATHS

    def pid(self, part: str) -> int:
        """The process id of a part. Raises KeyError where it does not run."""
        return self._children[part].process.pid

    @property
    def note(self) -> StackNote:
        """What other commands are told about this stack."""
        urls = {name: child.part.url for name, child in self._children.items()}
        return StackNote(
            pid=os.getpid(),
            profile=self.options.windows.name,
            prometheus_url=urls.get("prometheus", ""),
            alertmanager_url=urls.get("alertmanager", ""),
            responder_url=urls.get("responder", ""),
            agent_url=self.layout.url("agent"),
        )

    def rows(self) -> list[Row]:
        """What runs where, for the table."""
        instances = self.platform.describe().instances
        agents = [Row(f"agent {one.version}", one.pid, one.url, one.log) for one in instances]
        metrics = [Row("agent metrics", one.pid, f"{one.ops_url}/metrics", one.log) for one in instances]
        children = [Row(name, child.process.pid, child.part.url, str(child.process.log)) for name, child in self._children.items()]
        return agents + metrics + children
