"""The life of the layer in a process: instrument, uninstrument, flush; at exit and after a fork."""

from __future__ import annotations

import atexit
import logging
import os
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, Final

from sage_obs import ending
from sage_obs.errors import ConfigError, SageObsError
from sage_obs.genai import prices
from sage_obs.health.board import board
from sage_obs.integrations.asgi import RequestMiddleware
from sage_obs.integrations.exchange import Operation
from sage_obs.integrations.interface import Interface, found_by_itself, interface_of
from sage_obs.integrations.routes import noted
from sage_obs.layer import Layer, Libraries, Plan, Status
from sage_obs.metrics.active import internal_error
from sage_obs.settings import Settings
from sage_obs.tracing.context import reseed

_log = logging.getLogger("sage_obs")
_LAST: Final = -100
"""Among multiprocessing's finalizers, of which the greatest come first; its own are between -10 and 100."""


class Handle:
    """What `instrument()` returns."""

    def __init__(self, layer: Layer | None, *, why: str = "") -> None:
        self._layer = layer
        self._why = why

    def status(self) -> Mapping[str, Status]:
        """Every component: on or off, and why."""
        return {"sage_obs": Status(on=False, why=self._why)} if self._layer is None else self._layer.report()

    @property
    def metrics_port(self) -> int | None:
        """The port /metrics and /health answer on, None where they do not."""
        return None if self._layer is None else self._layer.metrics_port

    @property
    def profiling_port(self) -> int | None:
        """The port /debug/pprof/ answers on, None where it does not."""
        return None if self._layer is None else self._layer.profiling_port


class _Process:
    """The process's state."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.layer: Layer | None = None
        self.handle: Handle | None = None
        self.held = False
        self._hooked = False

    def _hook_fork(self) -> None:
        """Hear of forked children. This cannot be taken back, and does nothing while the layer is off."""
        if not self._hooked:
            self._hooked = True
            os.register_at_fork(before=self._before_fork, after_in_child=self._in_child)

    def _before_fork(self) -> None:
        layer = self.layer
        if layer is None:
            return
        try:
            layer.prepare_fork(sys._getframe(1))  # noqa: SLF001 - who forks says what this process is
        except Exception as exc:  # noqa: BLE001 - the child is the application's
            internal_error("metrics", exc)

    def _in_child(self) -> None:
        self.lock = threading.RLock()
        reseed()
        if self.layer is not None:
            self.layer.restart_after_fork()
            self._finish_with_multiprocessing()

    def _finish_with_multiprocessing(self) -> None:
        """A child of multiprocessing runs its own finalizers and never atexit's; it forgets its parent's right after this."""
        if (util := sys.modules.get("multiprocessing.util")) is not None:
            util.register_after_fork(self, lambda process: util.Finalize(None, process.at_exit, exitpriority=_LAST))

    def at_exit(self) -> None:
        """Send what waits, for as long as the settings allow."""
        if self.layer is not None:
            self.layer.finish()

    def switch(self, settings: Settings, plan: Plan, *, strict: bool) -> Handle:
        """Run this plan: nothing to do where it runs already."""
        with self.lock:
            if self.layer is not None and self.handle is not None and (self.held or self.layer.plan == plan):
                return self.handle
            self.off(settings.exit_timeout)
            layer = Layer(settings, plan)
            layer.start(strict=strict)
            self.layer, self.handle = layer, Handle(layer)
            atexit.register(self.at_exit)
            ending.use(layer.send)
            self._hook_fork()
            _log.debug("telemetry is on", extra={"metrics_port": layer.metrics_port})
            return self.handle

    def off(self, timeout: float) -> None:
        """Stop what runs."""
        with self.lock:
            layer, self.layer, self.handle = self.layer, None, None
            if layer is not None:
                atexit.unregister(self.at_exit)
                ending.use(None)
                layer.stop(timeout)


_process: Final = _Process()


def instrument(  # noqa: PLR0913 - the one line a user writes; each setting of the layer is an argument
    service_name: str | None = None,
    app: Any = None,
    *,
    agent_id: str | None = None,
    version: str | None = None,
    revision: str | None = None,
    enabled: bool | None = None,
    metrics: bool | None = None,
    metrics_host: str | None = None,
    metrics_port: int | None = None,
    multiprocess_dir: str | None = None,
    logs: bool | None = None,
    log_level: str | None = None,
    log_output: str | None = None,
    log_format: str | None = None,
    traces: bool | None = None,
    traces_endpoint: str | None = None,
    sampling_rate: float | None = None,
    semconv: str | None = None,
    content: str | None = None,
    metrics_endpoint: str | None = None,
    metrics_interval: float | None = None,
    prices_file: str | PathLike[str] | None = None,
    tail_sampling: bool | None = None,
    tail_slow: float | None = None,
    tail_expensive: float | None = None,
    health: bool | None = None,
    profiling: bool | None = None,
    profiling_host: str | None = None,
    profiling_port: int | None = None,
    profiling_token: str | None = None,
    profiling_certificate: str | None = None,
    profiling_key: str | None = None,
    profiling_locks: bool | None = None,
    profiling_server: str | None = None,
    label_budget: int | None = None,
    overhead_objective: float | None = None,
    exit_timeout: float | None = None,
    libraries: Libraries | None = "auto",
    disable: Sequence[str] | None = (),
    config_file: str | PathLike[str] | None = None,
    strict: bool = False,
) -> Handle:
    """Give this process metrics, health, logs and traces; `handle.status()` says what is on and what is not, and why.

    An argument left at None comes from the environment, the file or the default, in that order (see `sage_obs.settings.OPTIONS`;
    times are seconds, `sampling_rate` is a ratio from 0 to 1). `libraries` names the integrations to install, "auto" those the
    application imports; `disable` names components and integrations to leave out. `app` is an application of a framework that has an
    integration; others are wrapped by `instrument_app`. Called again with equal settings nothing happens, with others the layer starts
    anew.

    Nothing is raised unless `strict`: then whatever cannot be had is a SageObsError and nothing stays on.
    """
    arguments = {name: value for name, value in locals().items() if name not in _NOT_SETTINGS}
    try:
        settings = Settings.load(arguments=arguments, file=_path(config_file))
        plan = Plan.of(settings, libraries, disable)
        plan.check()
        prices.load(settings.prices_file)  # here it is an error of the settings
    except SageObsError as exc:
        if strict:
            raise
        _log.warning("telemetry is off: %s", exc)
        return Handle(None, why=str(exc))
    if not settings.enabled and not _process.held:
        uninstrument()
        return Handle(None, why=f"switched off by {settings.sources['enabled'].source}")
    handle = _process.switch(settings, plan, strict=strict)
    _cover(app, strict=strict)
    return handle


_NOT_SETTINGS: Final = frozenset({"app", "libraries", "disable", "config_file", "strict"})


def _path(given: str | PathLike[str] | None) -> Path | None:
    try:
        return None if given is None else Path(given)
    except TypeError as exc:
        raise ConfigError(f"`config_file` takes a path, not a {type(given).__name__}.", hint="For example: 'config.yaml'.") from exc


def _cover(app: Any, *, strict: bool) -> None:
    """Applications of frameworks that have an integration are found by themselves; any other has to be wrapped by its owner."""
    if app is None:
        return
    board().expect_app()
    if not found_by_itself(app):
        message = f"A {type(app).__name__} cannot be measured where it stands: wrap it with `app = sage_obs.instrument_app(app)`."
        if strict:
            raise SageObsError(message)
        _log.warning(message)


def uninstrument() -> None:
    """Stop everything and put everything back: patches, loggers, registry, port."""
    layer = _process.layer
    _process.off(0.0 if layer is None else layer.settings.exit_timeout)


def running() -> Handle | None:
    """The handle of the layer that runs in this process, None where none does."""
    return _process.handle


def hold(handle: Handle) -> None:
    """Keep the layer that runs, whatever `instrument()` is asked for, until `release`; for tests."""
    _process.held = handle is _process.handle


def release() -> None:
    """Let `instrument()` change the layer again."""
    _process.held = False


def flush(timeout: float = 2.0) -> bool:
    """Send spans and log lines that wait, within `timeout` seconds in all; whether everything went out."""
    layer = _process.layer
    return layer is None or layer.flush(timeout)


def instrument_app(
    app: Any, *, operation: Operation | None = None, protocol: str = "http", interface: Interface | None = None
) -> Callable[..., Any]:
    """An ASGI or WSGI application around `app` whose requests are measured while the layer is on, whichever of the two comes first.

    `operation` takes the scope or environ, after the application has served it, and returns the request's operation, one of a few; by
    default it is the template of the route that matched where the framework is one the integrations know, else `unmatched`. `protocol`
    is a label. `interface` says which of the two `app` is; by default it is WSGI if it is no coroutine function and can be called with
    two arguments (environ and start_response) but not with three (scope, receive and send), else ASGI.
    """
    board().expect_app()
    if (interface or interface_of(app)) == "wsgi":
        from sage_obs.integrations.wsgi import WsgiMiddleware

        return WsgiMiddleware(app, protocol=protocol) if operation is None else WsgiMiddleware(app, operation=operation, protocol=protocol)
    if operation is None:
        operation = _operation_of(app) if hasattr(app, "routes") else noted
    return RequestMiddleware(app, operation=operation, protocol=protocol)


def _operation_of(app: Any) -> Operation:
    from sage_obs.integrations.starlette import operation_of

    return operation_of(app)
