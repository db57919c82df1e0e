"""`sage-agent serve`: everything put together, in the order that lets nobody see it half-started."""

from __future__ import annotations

import asyncio
import importlib.metadata
import importlib.util
import logging
import sys
import time
from collections.abc import MutableMapping
from dataclasses import fields, replace

import sage_obs
from sage_agent.app import App, operation
from sage_agent.calls import ModelCalls
from sage_agent.config import AgentConfig
from sage_agent.providers.select import open_provider
from sage_agent.service import Service
from sage_agent.sockets import Listener, open_listener
from sage_obs.errors import SageObsError, UnavailableError
from sage_obs.settings import Settings

_log = logging.getLogger("sage_agent")


class MissingExtraError(SageObsError, ImportError):
    """The server's own packages are not installed."""


def serve(config: AgentConfig, *, environ: MutableMapping[str, str]) -> None:
    """Serve until SIGTERM or SIGINT, then drain and flush. Raises SageObsError where it cannot start."""
    began = time.monotonic()
    _require_server()
    listener = open_listener(config.server.host, config.server.port, environ=environ)
    handle = switch_on(config.layer)
    for notice in config.notices:
        _log.warning(notice)
    try:
        _run(config, listener, handle, began=began)
    finally:
        sage_obs.flush(timeout=config.layer.exit_timeout)


def _require_server() -> None:
    missing = [name for name in ("uvicorn", "uvloop", "httptools") if importlib.util.find_spec(name) is None]
    if missing:
        raise MissingExtraError(f"The server needs {', '.join(missing)}.", hint="Install it: pip install 'sage-obs[agent]'")


def switch_on(layer: Settings) -> sage_obs.Handle:
    """Instrument this process. Raises UnavailableError where its metrics and health cannot be served: nobody could see it run."""
    if layer.sources["version"].source == "default":
        layer = replace(layer, version=importlib.metadata.version("sage-obs"))
    handle = sage_obs.instrument(**{field.name: getattr(layer, field.name) for field in fields(layer) if field.name != "sources"})
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


def _run(config: AgentConfig, listener: Listener, handle: sage_obs.Handle, *, began: float) -> None:
    from sage_agent.server import DrainingServer

    calls = ModelCalls(open_provider(config), timeout=config.llm.timeout)
    scripted = config.llm.scripted
    service = Service(calls, config.concurrency, max_tokens=config.llm.max_tokens, overhead=scripted.overhead)
    app = sage_obs.instrument_app(App(service, config.server), operation=operation, protocol=config.protocol)
    register_checks(calls, unready=scripted.unready)

    async def before() -> None:
        """On a shared socket a connection taken is a caller's: none is taken while this process is not ready."""
        sage_obs.health.started()
        if listener.inherited and scripted.unready:
            _log.warning("not ready: no connection is taken from the shared socket")
            await asyncio.Event().wait()
        _announce(config, listener, handle, began=began)

    server = DrainingServer(app, drain_timeout=config.server.drain_timeout, before=before, on_drain=_drain, after=calls.close)
    server.serve_on(listener.sock)
    _log.info("agent stopped", extra={"cut_requests": server.cut_requests})


def register_checks(calls: ModelCalls, *, unready: bool) -> None:
    """What readiness depends on. The model's check looks at real traffic and never calls it; failing, it only degrades."""
    sage_obs.health.register("llm", lambda: not calls.failing, critical=False)
    if unready:
        sage_obs.health.register("scripted", lambda: False, critical=True)


def _drain() -> None:
    sage_obs.health.drain()
    _log.info("agent draining")


def _announce(config: AgentConfig, listener: Listener, handle: sage_obs.Handle, *, began: float) -> None:
    """The start line, which names the ports that were taken."""
    facts = {
        "host": listener.host,
        "port": listener.port,
        "metrics_port": handle.metrics_port,
        "provider": config.llm.provider,
        "model": config.llm.model,
        "inherited_socket": listener.inherited,
        "startup_ms": round((time.monotonic() - began) * 1000, 1),
    }
    _log.info("agent listening", extra=facts)
