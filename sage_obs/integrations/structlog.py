"""structlog: its events become our lines, with their keys and values as extras. Its configuration is not touched.

An event goes through the application's processors but for the renderer, which stands at the end and has nothing to do here. Events for
the standard library's loggers go on to these; those for other loggers that write, to our handler. What writes elsewhere than to stdout
or stderr does so as ever besides. All other loggers are left alone.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, MutableMapping
from typing import Any, Final

from sage_obs import records
from sage_obs.integrations.patch import Patch, Patches
from sage_obs.integrations.terminal import is_terminal
from sage_obs.metrics.active import internal_error

_LEVELS: Final = {"debug": 10, "info": 20, "msg": 20, "warn": 30, "warning": 30, "error": 40, "err": 40, "exception": 40}
_SEVERE: Final = {"critical": 50, "fatal": 50, "notset": 0}
_OURS: Final = frozenset({"event", "level", "timestamp", "logger", "logger_name", "positional_args"})
"""What processors add that our lines say anyway."""
_RENDERERS: Final = frozenset({"structlog.dev", "structlog.processors", "structlog.stdlib"})


class StructlogIntegration:
    """Sends structlog's events through our lines."""

    name = "structlog"
    module = "structlog"
    versions = ("23.1", "28")

    def __init__(self) -> None:
        self._patches = Patches()

    def install(self) -> None:
        """Patch where every bound logger hands its events over, however and whenever it was configured."""
        from structlog._base import BoundLoggerBase

        self._patches.install(Patch(BoundLoggerBase, "_proxy_to_logger", _sending))

    def uninstall(self) -> None:
        """Put it back."""
        self._patches.uninstall()


def _sending(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def _proxy_to_logger(self: Any, method_name: str, event: Any = None, **event_kw: Any) -> Any:
        from structlog.exceptions import DropEvent

        handler = records.handler()
        if handler is None or not _writes(self._logger):
            return original(self, method_name, event, **event_kw)
        exc_info = records.exc_info_of(event_kw.get("exc_info"))
        if not isinstance(self._logger, logging.Logger) and not _is_on_terminal(self._logger):
            return original(_tapped(self, handler, exc_info), method_name, event, **event_kw)
        try:
            fields = _processed(self, method_name, event, event_kw)
        except DropEvent:
            return None
        _write(self._logger, handler, method_name, fields, exc_info)
        return None

    return _proxy_to_logger


def _is_on_terminal(logger: Any) -> bool:
    from structlog import _output

    file = getattr(logger, "_file", None)
    as_imported = [vars(_output).get(name) for name in ("stdout", "stderr")]
    return any(file is one for one in as_imported) or is_terminal(file)


def _tapped(bound: Any, handler: logging.Handler, exc_info: records.ExcInfo | None) -> Any:
    """A logger like this one, which makes our line of what its last processor is given, unless that drops it."""
    processors = list(bound._processors)  # noqa: SLF001 - as below
    last = processors.pop() if processors else _as_it_is

    def tap(logger: Any, method_name: str, fields: MutableMapping[str, Any]) -> Any:
        given = dict(fields)
        rendered = last(logger, method_name, fields)
        _write(logger, handler, method_name, given, exc_info)
        return rendered

    return type(bound)(bound._logger, [*processors, tap], bound._context)  # noqa: SLF001 - as below


def _as_it_is(_logger: Any, _method_name: str, fields: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    return fields


def _writes(logger: Any) -> bool:
    from structlog import BytesLogger, PrintLogger, WriteLogger

    return isinstance(logger, (PrintLogger, WriteLogger, BytesLogger, logging.Logger))


def _processed(bound: Any, method_name: str, event: Any, event_kw: dict[str, Any]) -> MutableMapping[str, Any]:
    """The event as the renderer would get it. What stands at the end and is none of structlog's may have effects, and is called."""
    fields: Any = bound._context.copy()  # noqa: SLF001 - there is no other way to ask
    fields.update(event_kw)
    if event is not None:
        fields["event"] = event
    processors = list(bound._processors)  # noqa: SLF001 - as above
    for process in processors[:-1]:
        fields = process(bound._logger, method_name, fields)  # noqa: SLF001 - as above
    last = processors[-1] if processors else None
    if last is not None and getattr(last, "__module__", "") not in _RENDERERS:
        last(bound._logger, method_name, dict(fields))  # noqa: SLF001 - as above
    return dict(fields)


def _write(
    logger: Any, handler: logging.Handler, method_name: str, fields: MutableMapping[str, Any], exc_info: records.ExcInfo | None
) -> None:
    try:
        level = _LEVELS.get(method_name, _SEVERE.get(method_name, logging.INFO))
        standard = logger if isinstance(logger, logging.Logger) else None
        if not (standard or logging.getLogger()).isEnabledFor(level):
            return
        name = standard.name if standard else str(fields.get("logger") or fields.get("logger_name") or "structlog")
        made = records.make(str(fields.get("event", "")), logger=name, level=level, extras=_extras(fields, exc_info), exc_info=exc_info)
        made.args = fields.get("positional_args") or None
        (standard or handler).handle(made)
    except Exception as exc:  # noqa: BLE001 - the telemetry must not break the call
        internal_error("structlog", exc)


def _extras(fields: MutableMapping[str, Any], exc_info: records.ExcInfo | None) -> dict[str, Any]:
    """The caller's keys and values; the exception has a place of its own, however a processor has formatted it."""
    dropped = _OURS | ({"exc_info", "exception"} if exc_info else {"exc_info"})
    return {key: value for key, value in fields.items() if key not in dropped}


INTEGRATION: Final = StructlogIntegration()
