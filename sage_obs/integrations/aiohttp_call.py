"""One request on its way through an aiohttp server, told to an exchange in ASGI's events."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any, Final
from weakref import WeakKeyDictionary

from sage_obs.genai.requests import Invocation
from sage_obs.integrations.exchange import Event, Exchange, Plain
from sage_obs.integrations.routes import UNMATCHED, named
from sage_obs.metrics.active import internal_error

_REQUEST_ID: Final = "x-request-id"


class Call:
    """A request from its handler's call to the last byte of the response."""

    __slots__ = ("_exchange", "_invocation", "_writer")

    def __init__(self, invocation: Invocation, request: Any) -> None:
        scope = {"method": request.method, "path": request.path}
        self._invocation = invocation
        self._writer = request.writer
        self._exchange = Exchange(invocation, Plain(lambda _: _operation(request), component="aiohttp"), scope, _disconnected, _sent)

    def identify(self, response: Any) -> None:
        """The response is about to send its headers: the request id is among them."""
        try:
            response.headers.setdefault(_REQUEST_ID, self._invocation.request.request_id)
        except Exception as exc:  # noqa: BLE001 - the telemetry must not break the request
            internal_error("aiohttp", exc)

    async def started(self, response: Any) -> None:
        """The response has sent its headers."""
        headers = [(name.lower().encode(), value.encode("utf-8", "replace")) for name, value in response.headers.items()]
        await self._tell(self._exchange.send({"type": "http.response.start", "status": response.status, "headers": headers}))

    async def wrote(self, data: bytes | bytearray | memoryview, *, more: bool) -> None:
        """A piece of the body went out; without `more` it was the last."""
        await self._tell(self._exchange.send({"type": "http.response.body", "body": bytes(data), "more_body": more}))

    def over(self, *, raised: BaseException | None = None, gone: bool) -> None:
        """The server is done with the request; if its caller is `gone`, before the last byte unless that went out."""
        _calls.pop(self._writer, None)
        if gone:
            self._gone()
        self._exchange.finish(raised=raised)
        self._exchange.leave(failed=raised is not None)

    def _gone(self) -> None:
        """An exchange learns it from `receive`, which does not wait here."""
        try:
            self._exchange.receive().send(None)
        except StopIteration:
            return
        except Exception as exc:  # noqa: BLE001 - the telemetry must not break the request
            internal_error("aiohttp", exc)

    async def _tell(self, step: Awaitable[object]) -> None:
        try:
            await step
        except Exception as exc:  # noqa: BLE001 - the telemetry must not break the request
            internal_error("aiohttp", exc)


_calls: Final[WeakKeyDictionary[Any, Call]] = WeakKeyDictionary()
"""By the writer, which copies of a request share with it and with its response, whoever writes to that."""


def begin(invocation: Invocation, request: Any) -> Call:
    """The call of a request that is measured from here on."""
    call = _calls[request.writer] = Call(invocation, request)
    return call


def call_of(writer: Any) -> Call | None:
    """The call whose response goes through this writer, None where it is not measured or its response is over."""
    try:
        return None if writer is None else _calls.get(writer)
    except TypeError:  # a stand-in that nothing can refer to weakly
        return None


async def _sent(event: Event) -> None:
    """What the exchange passes on has been sent."""
    del event


async def _disconnected() -> Event:
    return {"type": "http.disconnect"}


def _operation(request: Any) -> str:
    """The canonical form of the resource that matched, with its placeholders and the prefixes of the applications around it."""
    match = getattr(request, "_match_info", None)  # the public one insists that there is one
    resource = None if match is None else match.route.resource
    return UNMATCHED if resource is None else named(request.method, resource.canonical)
