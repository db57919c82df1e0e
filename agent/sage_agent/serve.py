"""`sage-agent serve`: everything put together, in the order that lets nobody see it half-started."""

from __future__ import annotations

import asyncio
import importlib.metadata
import importlib.util
import logging
import socket
import sys
import threading
import time
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from dataclasses import fields, replace

import sage_obs
from sage_agent.a2a import mount as a2a
from sage_agent.a2a.paths import operation as a2a_operation
from sage_agent.config import AgentConfig
from sage_agent.flow import answers
from sage_agent.flow.answers import Answers
from sage_agent.flow.calls import ModelCalls
from sage_agent.flow.config import FlowConfig
from sage_agent.flow.conversations import Conversations
from sage_agent.flow.report import keep_reporting, report
from sage_agent.flow.service import Asking, Memory, Service, Simple
from sage_agent.flow.spending import Spending
from sage_agent.llm.providers.select import wire_name
from sage_agent.llm.retries import Retries
from sage_agent.llm.targets import Target, open_targets
from sage_agent.rotation import Rotation
from sage_agent.security import admin
from sage_agent.security.audit import NoAudit, open_audit, record_start
from sage_agent.security.build import build_doors
from sage_agent.server.connections import Application
from sage_agent.server.hooks import Hooks
from sage_agent.server.redirect import Redirect
from sage_agent.server.sockets import Listener, open_listener
from sage_agent.server.tls import Certificate
from sage_agent.server.workers import supervisor_line
from sage_agent.state.base import State, StateError
from sage_agent.state.open import keep_counting, make_state
from sage_agent.web.app import App, operation
from sage_agent.web.guard import Guard
from sage_agent.web.wire import Scope
from sage_obs.conventions import CERTIFICATE_EXPIRY
from sage_obs.errors import SageObsError, UnavailableError
from sage_obs.settings import OPTIONS, Settings

_log = logging.getLogger("sage_agent")


class MissingExtraError(SageObsError, ImportError):
    """The server's own packages are not installed."""


def serve(config: AgentConfig, *, environ: MutableMapping[str, str]) -> None:
    """Serve until SIGTERM or SIGINT, then drain and flush. Raises SageObsError where it cannot start."""
    began = time.monotonic()
    require_server()
    listener = open_listener(config.server.host, config.server.port, environ=environ)
    certificate = None if config.server.tls is None else Certificate(config.server.tls, changed=_show_expiry)
    state, state_notice = make_state(config.state)
    parts = build(config, state)
    listening = threading.Event()
    register_checks(parts.calls, state, listening=listening.is_set, unready=config.llm.scripted.unready)
    handle = switch_on(config.layer)
    parts.expose()
    if certificate is not None:
        certificate.tell()
    for notice in filter(None, (*config.notices, state_notice)):
        _log.warning(notice)

    def announce() -> None:
        listening.set()
        sage_obs.health.started()
        _log.info("agent listening", extra=start_line(config, listener, handle, seconds=time.monotonic() - began))

    hooks = Hooks(before=_when_ready(config, listener, parts), listening=announce, draining=_drain, after=parts.close)
    try:
        _run(config, parts.app, hooks, listener, certificate, supervisor=supervisor_line(environ))
    finally:
        sage_obs.flush(timeout=config.layer.exit_timeout)


class Parts:
    """A runtime put together: what serves requests, what stands behind it, and what has to be begun and ended."""

    def __init__(self, config: AgentConfig, state: State, calls: ModelCalls, memory: Memory, simple: Simple | None) -> None:
        self.calls = calls
        self._simple = simple
        self.state = state
        self._config = config
        self._agent = config.layer.agent_id
        self._memory = memory
        self._service = Service(calls, config.concurrency, asking=_asking(config.flow), memory=memory, simple=simple, agent=self._agent)
        self._rotation = Rotation(config, self.renew)
        self._tasks: list[asyncio.Task[None]] = []
        self._audit = open_audit(config.security.audit)
        self._record = self._audit or NoAudit()
        self._doors = build_doors(config.security, config.did, state, self._audit)
        self._a2a = mount_a2a(config, self._service, state, self._doors.tasks)
        lean = sage_obs.instrument_app(
            App(self._service, config.server, self._doors.messages), operation=operation, protocol=config.protocol
        )
        app = lean if self._a2a is None else a2a.beside(lean, _measured(self._a2a))
        self._admin = self._make_admin(config)
        self.app = app if self._admin is None else admin.beside(app, _measured(self._admin, self._admin.operation, config.protocol))

    def expose(self) -> None:
        """Put what can be counted on /metrics, once there is one."""
        (self._simple.calls if self._simple is not None else self.calls).expose()
        report(self._service, self._agent)
        self._doors.expose()
        if self._audit is not None:
            self._audit.expose()
        if self._memory.answers is not None:
            answers.expose()
        if self._memory.spending is not None:
            self._memory.spending.expose()

    def renew(self, config: AgentConfig) -> None:
        """Go on with the secrets that the configuration has by now; nothing else of it counts."""
        self.calls.renew(config.llm)
        if self._simple is not None:
            self._simple.calls.renew(config.llm.for_simple)
        self._doors.renew(config.security)
        if self._admin is not None:
            self._admin.renew(config.security.admin)
        for secret in config.secrets:
            self._record.record("secret", "renewed", setting=secret.name, place=secret.place)
        if config.state.url:
            self.state.store.renew(config.state.url)

    async def open(self) -> None:
        """Connect to the store, and get what callers are known by. Raises UnavailableError and ConfigError."""
        try:
            await self.state.store.open()
        except StateError as exc:
            hint = "Start it or correct storage.*; SAGE_STORAGE_TYPE=memory keeps nothing."
            raise UnavailableError(f"Where state is kept cannot be used: {exc.message}", hint=hint) from exc
        await self._doors.open()
        self._note_start()
        forever = (keep_reporting(self._service, self._agent), keep_counting(self.state.store), self._rotation.run())
        self._tasks = [asyncio.create_task(one) for one in forever]

    async def close(self) -> None:
        """Settle what is open, and let go."""
        for task in self._tasks:
            task.cancel()
        if self._a2a is not None:
            await self._a2a.close()
        await self._doors.close()
        if self._memory.spending is not None:
            await self._memory.spending.close()
        await self.calls.close()
        if self._simple is not None:
            await self._simple.calls.close()
        await self.state.store.close()
        self._record.record("agent", "stopped")
        if self._audit is not None:
            await self._audit.close()

    def _note_start(self) -> None:
        config = self._config
        if self._audit is not None:
            changed = {path: (value.shown(), value.source) for path, value in config.settings.items() if value.source != "default"}
            record_start(self._audit, changed, [(secret.name, secret.place) for secret in config.secrets])

    def _make_admin(self, config: AgentConfig) -> admin.Admin | None:
        if config.security.admin is None:
            return None
        levers = admin.Levers(lambda: self._facts(config), self.state.cache.clear)
        return admin.Admin(config.security.admin, self._doors.admin, self._record, levers, proxies=config.security.proxies)

    def _facts(self, config: AgentConfig) -> dict[str, object]:
        return {
            "agent": self._agent,
            "version": importlib.metadata.version("sage-obs"),
            "models": [f"{one.provider} {one.model}" for one in config.llm.targets],
            "storage": config.state.kind,
            "tls": config.server.tls is not None,
            "callers_identified": config.security.identifies,
            "audit": config.security.audit is not None,
        }


def mount_a2a(config: AgentConfig, service: Service, state: State, guard: Guard) -> a2a.Mount | None:
    """A2A, to be loaded when it is first asked something; None where it is off. Raises A2aMissingError."""
    if not a2a.wanted(config.a2a.enabled):
        return None

    def load() -> a2a.Endpoint:
        from sage_agent.a2a.endpoint import A2aEndpoint

        version = importlib.metadata.version("sage-obs")
        return A2aEndpoint(config.a2a, config.server, service, state.tasks, guard, name=config.layer.agent_id, version=version)

    return a2a.Mount(load)


def _measured(mounted: a2a.Asgi, operation: Callable[[Scope], str] = a2a_operation, protocol: str = "a2a") -> a2a.Asgi:
    return sage_obs.instrument_app(mounted, operation=operation, protocol=protocol)


def build(config: AgentConfig, state: State) -> Parts:
    """Put a runtime together."""
    llm, flow, asked = config.llm, config.flow, config.llm.for_simple.targets
    targets = open_targets(llm.for_simple, connections=config.concurrency.worker_pool_size)
    calls, simple = _calls(config, targets[len(targets) - len(llm.targets) :]), None
    if llm.simple is not None:
        simple = Simple(_calls(config, targets), llm.simple_max_chars)
    keep = flow.sessions.max_turns > 0
    memory = Memory(
        conversations=Conversations(state.sessions, flow.sessions) if keep else None,
        answers=Answers(state.cache, flow.cache, asked=repr(asked)) if flow.cache.enabled else None,
        spending=_spending(config, state) if flow.budgets.any else None,
    )
    return Parts(config, state, calls, memory, simple)


def _calls(config: AgentConfig, targets: Sequence[Target]) -> ModelCalls:
    return ModelCalls(Retries(targets, max_wait=config.llm.max_wait), timeout=config.llm.timeout)


def _spending(config: AgentConfig, state: State) -> Spending:
    asked = [(wire_name(target.provider), target.model) for target in config.llm.for_simple.targets]
    return Spending(state.budgets, config.flow.budgets, agent=config.layer.agent_id, asked=asked)


def _asking(flow: FlowConfig) -> Asking:
    return Asking(flow.max_tokens, flow.max_input_tokens, flow.system_prompt, flow.overhead)


def register_checks(calls: ModelCalls, state: State, *, listening: Callable[[], bool], unready: bool) -> None:
    """What readiness depends on; in place before anybody can ask, or a process that cannot serve yet would be called ready.

    The model's check looks at real traffic and never calls it. It and a store that is lost only degrade.
    """
    sage_obs.health.register("listener", listening, critical=True)
    sage_obs.health.register("storage", state.store.check, critical=False)
    sage_obs.health.register("llm", lambda: not calls.failing, critical=False)
    if unready:
        sage_obs.health.register("scripted", lambda: False, critical=True)


def require_server() -> None:
    """Raise MissingExtraError where the server's own packages are not installed."""
    missing = [name for name in ("uvloop", "httptools") if importlib.util.find_spec(name) is None]
    if missing:
        raise MissingExtraError(f"The server needs {', '.join(missing)}.", hint="Install it: pip install 'sage-obs[agent]'")


def switch_on(layer: Settings) -> sage_obs.Handle:
    """Instrument this process; profiles are served unless that was switched off, and metrics and health have to be.

    Raises UnavailableError where those cannot be: nobody could see it run.
    """
    if layer.sources["version"].source == "default":
        layer = replace(layer, version=importlib.metadata.version("sage-obs"))
    values = {field.name: getattr(layer, field.name) for field in fields(layer) if field.name != "sources"}
    chosen = {name: value for name, value in values.items() if layer.sources[name].source != "default" or value != OPTIONS[name].default}
    handle = sage_obs.instrument(**chosen)
    status = handle.status()
    if "logs" not in status or not status["logs"].on:
        log_plainly()
    if "ops" in status and not status["ops"].on and (layer.metrics or layer.health):
        raise UnavailableError(status["ops"].why, hint="SAGE_OBSERVABILITY_ENABLED=false runs the agent unobserved.")
    return handle


def log_plainly() -> None:
    """Without the layer's log lines, the start line and failures still go to stdout, as JSON."""
    from pythonjsonlogger.json import JsonFormatter

    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(JsonFormatter("%(levelname)s %(name)s %(message)s", rename_fields={"levelname": "level", "name": "logger"}))
    logging.basicConfig(level=logging.INFO, handlers=[handler])


def _when_ready(config: AgentConfig, listener: Listener, parts: Parts) -> Callable[[], Awaitable[None]]:
    """Open the store. On a shared socket a connection taken is a caller's: none is taken while this process is not ready."""

    async def wait() -> None:
        await parts.open()
        if listener.inherited and config.llm.scripted.unready:
            _log.warning("not ready: no connection is taken from the shared socket")
            await asyncio.Event().wait()

    return wait


def _run(
    config: AgentConfig,
    app: Application,
    hooks: Hooks,
    listener: Listener,
    certificate: Certificate | None,
    *,
    supervisor: socket.socket | None,
) -> None:
    from sage_agent.server.draining import DrainingServer

    server = DrainingServer(
        app,
        hooks,
        drain_timeout=config.server.drain_timeout,
        certificate=certificate,
        redirect=_redirect(config, app, listener),
        supervisor=supervisor,
        shared=listener.inherited,
    )
    server.serve_on(listener.sock)
    _log.info("agent stopped", extra={"cut_requests": server.cut_requests})


def _redirect(config: AgentConfig, app: Application, listener: Listener) -> tuple[socket.socket, Application] | None:
    """Where HTTP is taken and sent on, and by what."""
    tls = config.server.tls
    if tls is None or tls.redirect_port is None:
        return None
    aside = open_listener(config.server.host, tls.redirect_port, environ={}, shared=config.server.workers > 1 or listener.inherited)
    _log.info("http is sent on to https", extra={"port": aside.port})
    return aside.sock, Redirect(app, port=listener.port)


def _show_expiry(until: float) -> None:
    sage_obs.series(CERTIFICATE_EXPIRY, "server").set(until)


def _drain() -> None:
    sage_obs.health.drain()
    _log.info("agent draining")


def start_line(config: AgentConfig, listener: Listener, handle: sage_obs.Handle, *, seconds: float) -> dict[str, object]:
    """What the start line says beside its message; it names the ports that were taken."""
    return {
        "host": listener.host,
        "port": listener.port,
        "metrics_port": handle.metrics_port,
        "profiling_port": handle.profiling_port,
        "provider": config.llm.first.provider,
        "model": config.llm.first.model,
        "fallbacks": [f"{one.provider} {one.model}" for one in config.llm.targets[1:]],
        "inherited_socket": listener.inherited,
        "startup_ms": round(seconds * 1000, 1),
    }
