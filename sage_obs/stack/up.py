"""Start, watch and stop the stack.

Everything runs as a child of this process and is stopped by its own pid; when one child dies, all are stopped, so that what the
table says is always true.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version as package_version
from pathlib import Path
from typing import Final, Self, TextIO

from sage_obs.conventions import SERVICE
from sage_obs.errors import LockHeldError, UnavailableError
from sage_obs.platforms.local import releases
from sage_obs.platforms.local.driver import LocalPlatform
from sage_obs.platforms.local.supervisor import Host, LocalSupervisor, answers
from sage_obs.platforms.select import platform_root
from sage_obs.processes import Process, spawn, stop
from sage_obs.slo.windows import PRODUCTION, Windows
from sage_obs.stack import binaries, parts
from sage_obs.stack.parts import Layout, Part
from sage_obs.stack.ports import Policy, Ports, is_free
from sage_obs.stack.state import DEFAULT_STATE, StackNote, remove_note

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


@dataclass(frozen=True, slots=True)
class Options:
    """What `sage-obs up` was asked for.

    `ports` overrides `parts.PORTS` by name. `config` is the text of the agent's configuration file and `version` the name of the
    release made of it. `rate` is in messages a second. `tools` is the state folder that keeps fetched binaries, if it is another.
    """

    state: Path = DEFAULT_STATE
    windows: Windows = PRODUCTION
    policy: Policy = "exact"
    ports: Mapping[str, int] = field(default_factory=dict)
    config: str = DEFAULT_CONFIG
    version: str = ""
    traffic: bool = True
    rate: float = 40.0
    traffic_seconds: float = 3600.0
    restart_responder: bool = False
    tools: Path | None = None


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


class Stack:
    """The running stack. `say` receives a sentence about each thing that happens.

    Use it as a context manager: entering starts everything, leaving stops everything. Call `step` often, from the main thread.
    """

    def __init__(self, options: Options, *, say: Callable[[str], None]) -> None:
        self.options = options
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
        self._cleanup.enter_context(_exclusive(self.state))
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
                return {name: binaries.find(name, state=self.options.tools or self.state) for name in ("prometheus", "alertmanager")}
        except UnavailableError as exc:
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
        host = Host(listener, self._next_ops_port, self.state / "logs", {"PYTHONUNBUFFERED": "1"})
        supervisor = LocalSupervisor(self._root, service=SERVICE, host=host, events=lambda text: self._say(f"agent: {text}"))
        self._cleanup.callback(supervisor.stop)
        supervisor.step()
        version = self.options.version or package_version("sage-obs")
        releases.create(self._root, version, command=AGENT_COMMAND, files={"config.yaml": self.options.config})
        self.platform.deploy(self.platform.release(version), by="sage-obs up")
        self._supervisor = supervisor
        self.wait(lambda: self.platform.describe().converged, what="the agent", watch=self._agent_trouble)
        return supervisor

    def _agent_trouble(self) -> str:
        described = self.platform.describe()
        return "" if described.in_progress or described.converged else described.detail

    def _next_ops_port(self) -> int:
        """The metrics port while it is free; a release that starts beside another takes the next free one."""
        wanted = self.layout.ports["metrics"]
        return wanted if is_free(wanted) else Ports("next").take("metrics", wanted)

    def _run(self, part: Part) -> None:
        with self._phase(part.name, "ready" if part.ready else "started"):
            process = spawn(part.name, part.command, log=self.state / f"logs/{part.name}.log", cwd=part.cwd)
            self._children[part.name] = _Child(part, process)
            self._cleanup.callback(stop, [process], grace=_GRACE)
            if part.ready:
                self.wait(lambda: answers(part.url + part.ready), what=part.name)

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
        self._supervisor.step()
        for child in list(self._children.values()):
            if child.process.exit_code is not None:
                self._lost(child)

    def _lost(self, child: _Child) -> None:
        del self._children[child.part.name]
        if child.part.name == "traffic" and child.process.exit_code == 0:
            self._say("traffic: its time is over")
        elif child.part.restart:
            self._say(f"{child.part.name} (pid {child.process.pid}) {child.process.ending()}; starting it again")
            self._run(child.part)
        else:
            raise child.process.died()

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


@contextlib.contextmanager
def _exclusive(state: Path) -> Iterator[TextIO]:
    """One stack per state folder. Raises LockHeldError naming the other."""
    with (state / "up.lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as exc:
            lock.seek(0)
            message = f"A stack already runs on {state} (pid {lock.read().strip()})."
            raise LockHeldError(message, hint="Stop it with Ctrl-C there, or choose another folder with --state.") from exc
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield lock
