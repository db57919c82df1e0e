"""`sage-agent serve`: everything put together, in the order that lets nobody see it half-started."""

from __future__ import annotations

import asyncio
import importlib.metadata
import importlib.util
import logging
import sys
import threading
import time
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import fields, replace

import sage_obs
from sage_agent.config import AgentConfig
from sage_agent.flow.calls import ModelCalls
from sage_agent.flow.service import Service
from sage_agent.llm.retries import Retries
from sage_agent.llm.targets import open_targets
from sage_agent.server.hooks import Hooks
from sage_agent.server.sockets import Listener, open_listener
from sage_agent.web.app import App, operation
from sage_obs.errors import SageObsError, UnavailableError
from sage_obs.settings import OPTIONS, Settings

_log = logging.getLogger("sage_agent")


class MissingExtraError(SageObsError, ImportError):
    """The server's own packages are not installed."""


def serve(config: AgentConfig, *, environ: MutableMapping[str, str]) -> None:
    """Serve until SIGTERM or SIGINT, then drain and flush. Raises SageObsError where it cannot start."""
    began = time.monotonic()
    _require_server()
    listener = open_listener(config.server.host, config.server.port, environ=environ)
    targets = open_targets(config.llm, connections=config.concurrency.worker_pool_size)
    calls = ModelCalls(Retries(targets, max_wait=config.llm.max_wait), timeout=config.llm.timeout)
    listening = threading.Event()
    register_checks(calls, listening=listening.is_set, unready=config.llm.scripted.unready)
    app = build_app(config, calls)
    handle = switch_on(config.layer)
    calls.expose()
    for notice in config.notices:
        _log.warning(notice)

    def announce() -> None:
        listening.set()
        sage_obs.health.started()
        _log.info("agent listening", extra=start_line(config, listener, handle, seconds=time.monotonic() - began))

    hooks = Hooks(before=_when_ready(config, listener), listening=announce, draining=_drain, after=calls.close)
    try:
        _run(app, hooks, listener, drain_timeout=config.server.drain_timeout)
    finally:
        sage_obs.flush(timeout=config.layer.exit_timeout)


def register_checks(calls: ModelCalls, *, listening: Callable[[], bool], unready: bool) -> None:
    """What readiness depends on; in place before anybody can ask, or a process that cannot serve yet would be called ready.

    The model's check looks at real traffic and never calls it; failing, it only degrades.
    """
    sage_obs.health.register("listener", listening, critical=True)
    sage_obs.health.register("llm", lambda: not calls.failing, critical=False)
    if unready:
        sage_obs.health.register("scripted", lambda: False, critical=True)


def build_app(config: AgentConfig, calls: ModelCalls) -> Callable[..., Awaitable[None]]:
    """The instrumented application."""
    service = Service(calls, config.concurrency, max_tokens=config.llm.max_tokens, overhead=config.llm.scripted.overhead)
    return sage_obs.instrument_app(App(service, config.server), operation=operation, protocol=config.protocol)


def _require_server() -> None:
    missing = [name for name in ("uvicorn", "uvloop", "httptools") if importlib.util.find_spec(name) is None]
    if missing:
        raise MissingExtraError(f"The server needs {', '.join(missing)}.", hint="Install it: pip install 'sage-obs[agent]'")


def switch_on(layer: Settings) -> sage_obs.Handle:
    """Instrument this process; profiles are served unless that was switched off, and metrics and health have to be.

    Raises UnavailableError where those cannot be: nobody could see it run.
    """
    if layer.sources["version"].source == "default":
        layer = replace(layer, version=importlib.metadata.version("sage-obs"))
    if layer.sources["profiling"].source == "default":
        layer = replace(layer, profiling=True)
    values = {field.name: getattr(layer, field.name) for field in fields(layer) if field.name != "sources"}
    chosen = {name: value for name, value in values.items() if layer.sources[name].source != "default" or value != OPTIONS[name].default}
    handle = sage_obs.instrument(**chosen)
    status = handle.status()
    if "logs" not in status or not status["logs"].on:
        _log_plainly()
    if "ops" in status and not status["ops"].on and (layer.metrics or layer.health):
        raise UnavailableError(status["ops"].why, hint="SAGE_OBSERVABILITY_ENABLED=false runs the agent unobserved.")
    return handle


def _log_plainly() -> None:
    """Without the layer's log lines, the start line and failures still go to stdout, as JSON."""
    from pythonjsonlogger.json import JsonFormatter

    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(JsonFormatter("%(levelname)s %(name)s %(message)s", rename_fields={"levelname": "level", "name": "logger"}))
    logging.basicConfig(level=logging.INFO, handlers=[handler])


def _when_ready(config: AgentConfig, listener: Listener) -> Callable[[], Awaitable[None]]:
    """On a shared socket a connection taken is a caller's: none is taken while this process is not ready."""

    async def wait() -> None:
        if listener.inherited and config.llm.scripted.unready:
            _log.warning("not ready: no connection is taken from the shared socket")
            await asyncio.Event().wait()

    return wait


def _run(app: Callable[..., Awaitable[None]], hooks: Hooks, listener: Listener, *, drain_timeout: float) -> None:
    from sage_agent.server.draining import DrainingServer

    server = DrainingServer(app, hooks, drain_timeout=drain_timeout)
    server.serve_on(listener.sock)
    _log.info("agent stopped", extra={"cut_requests": server.cut_requests})


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
