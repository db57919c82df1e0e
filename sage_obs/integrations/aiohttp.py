"""aiohttp's server: every application and low-level server, named by the resource that matched.

The measurement is around the protocol's handling of one request, which ends with the last byte; what the response writes in between is
told to an exchange in ASGI's events. Requests for a websocket are left alone.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any, Final

import orjson

from sage_obs.conventions import HEALTH_PATHS, METRICS_PATH, Probe
from sage_obs.genai.requests import Recorder, recorder
from sage_obs.health.board import board
from sage_obs.integrations.aiohttp_call import Call, begin, call_of
from sage_obs.integrations.loggers import SILENT, TakenOver
from sage_obs.integrations.patch import Patch, Patches
from sage_obs.metrics.active import internal_error
from sage_obs.tracing.context import parse_traceparent, sane_request_id

Handler = Callable[[Any], Awaitable[Any]]

_UNCOUNTED: Final = frozenset({*HEALTH_PATHS, METRICS_PATH})


class AiohttpIntegration:
    """Measures the requests of every aiohttp server, and silences its access log, as ours has a line for every request."""

    name = "aiohttp"
    module = "aiohttp.web_protocol"
    versions = ("3.11", "4")

    def __init__(self) -> None:
        self._patches = Patches()
        self._loggers = TakenOver({"aiohttp.access": SILENT})

    def install(self) -> None:
        """Patch the protocol, and where responses write."""
        from aiohttp.web_protocol import RequestHandler
        from aiohttp.web_response import StreamResponse

        installed = self._patches.install(
            Patch(RequestHandler, "_handle_request", _measured),
            Patch(StreamResponse, "_start", _starting),
            Patch(StreamResponse, "write", _writing),
            Patch(StreamResponse, "write_eof", _ending),
        )
        if installed:
            self._loggers.take()
            board().expect_app()

    def uninstall(self) -> None:
        """Put them back."""
        if self._patches.uninstall():
            self._loggers.give_back()


def _measured(original: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    @functools.wraps(original)
    async def _handle_request(self: Any, request: Any, start_time: float | None, request_handler: Handler) -> Any:
        active = recorder()
        upgrading = request.headers.get("upgrade", "").lower() == "websocket"
        if active is None or upgrading or request_handler is not self._request_handler:
            return await original(self, request, start_time, request_handler)
        board().seen(asyncio.get_running_loop())
        if request.path in _UNCOUNTED:
            return await original(self, request, start_time, _answering(request_handler))
        call = _begin(active, request)
        if call is None:
            return await original(self, request, start_time, request_handler)
        try:
            response, reset = await original(self, request, start_time, request_handler)
        except BaseException as exc:
            broken_off = isinstance(exc, ConnectionError)  # what the protocol makes of any failure once the headers are out
            call.over(raised=None if broken_off else exc, gone=self.transport is None or self.transport.is_closing())
            raise
        call.over(gone=reset)
        return response, reset

    return _handle_request


def _begin(active: Recorder, request: Any) -> Call | None:
    try:
        headers = request.headers
        invocation = active.begin(
            name=request.method,
            request_id=sane_request_id(headers.get("x-request-id", "")),
            parent=parse_traceparent(headers.get("traceparent", "")),
        )
        return begin(invocation, request)
    except Exception as exc:  # noqa: BLE001 - the telemetry must not break the request
        internal_error("aiohttp", exc)
        return None


def _answering(handler: Handler) -> Handler:
    """Probes on the application's own port: it goes first, and only a probe it does not know is answered here."""

    async def answer(request: Any) -> Any:
        from aiohttp.web_exceptions import HTTPNotFound

        probe = HEALTH_PATHS.get(request.path)
        if probe is None or request.method not in {"GET", "HEAD"} or not board().served:
            return await handler(request)
        try:
            response = await handler(request)
        except HTTPNotFound:
            return await _probed(probe)
        if getattr(response, "status", 0) == HTTPStatus.NOT_FOUND and not response.prepared:
            return await _probed(probe)
        return response

    return answer


async def _probed(probe: Probe) -> Any:
    from aiohttp.web_response import Response

    answer = await board().answer_async(probe)
    body = orjson.dumps(answer.body)
    return Response(body=body, status=answer.status, content_type="application/json", headers={"Cache-Control": "no-store"})


def _starting(original: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    @functools.wraps(original)
    async def _start(self: Any, request: Any) -> Any:
        call = call_of(getattr(request, "writer", None))
        if call is None:
            return await original(self, request)
        call.identify(self)
        writer = await original(self, request)
        await call.started(self)
        return writer

    return _start


def _writing(original: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    @functools.wraps(original)
    async def write(self: Any, data: Any) -> None:
        call = call_of(self._payload_writer)
        await original(self, data)
        if call is not None:
            await call.wrote(data, more=True)

    return write


def _ending(original: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    @functools.wraps(original)
    async def write_eof(self: Any, data: Any = b"") -> None:
        call = call_of(self._payload_writer)
        await original(self, data)
        if call is not None:
            await call.wrote(data, more=False)

    return write_eof


INTEGRATION: Final = AiohttpIntegration()
