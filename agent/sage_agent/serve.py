"""`sage-agent serve`: everything put together, in the order that lets nobody see it half-started."""

from __future__ import annotations

import asyncio
import importlib.util
import logging
import socket
import threading
import time
from collections.abc import Awaitable, Callable, MutableMapping

import sage_obs
from sage_agent.config import AgentConfig
from sage_agent.flow.calls import ModelCalls
from sage_agent.observing import switch_on
from sage_agent.parts import Parts, build
from sage_agent.security.levers import Levers
from sage_agent.server.connections import Application
from sage_agent.server.hooks import Hooks
from sage_agent.server.line import WorkerLine, worker_line
from sage_agent.server.redirect import Redirect
from sage_agent.server.sockets import Listener, open_listener
from sage_agent.server.tls import Certificate
from sage_agent.state.base import State
from sage_agent.state.open import make_state
from sage_obs.conventions import CERTIFICATE_EXPIRY
from sage_obs.errors import SageObsError

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
    levers = Levers(state.cache.clear)
    line = worker_line(environ, levers.apply)
    parts = build(config, state, everywhere=levers.alone if line is None else line.everywhere)
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
        _run(config, parts.app, hooks, listener, certificate, line=line)
    finally:
        sage_obs.flush(timeout=config.layer.exit_timeout)


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
    line: WorkerLine | None,
) -> None:
    from sage_agent.server.draining import DrainingServer

    server = DrainingServer(
        app,
        hooks,
        drain_timeout=config.server.drain_timeout,
        certificate=certificate,
        redirect=_redirect(config, app, listener),
        line=line,
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
