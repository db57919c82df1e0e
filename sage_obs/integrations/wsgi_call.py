"""One request on its way through a WSGI application, told to an exchange in ASGI's events.

An exchange waits for nothing but its `receive` and `send`, which never wait here: each of its steps is run at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Coroutine, Iterable, Iterator
from typing import Any, Final, Protocol, Self

from sage_obs.genai.requests import Invocation
from sage_obs.integrations.exchange import Event, Exchange, Plain
from sage_obs.metrics.active import internal_error

Environ = dict[str, Any]
Headers = list[tuple[str, str]]
_LENGTH: Final = "content-length"
_REQUEST_ID: Final = "x-request-id"


class StartResponse(Protocol):
    """What a server gives an application to start its answer with (PEP 3333)."""

    def __call__(self, status: str, headers: Headers, *exc_info: Any) -> Callable[[bytes], object]:
        """Start the answer; returns `write`, for applications that do not return a body."""


class Call:
    """A request from the application's call to the last piece of its body."""

    __slots__ = ("_begun", "_ended", "_environ", "_exchange", "_headers", "_invocation", "_sent", "_start_response", "_status", "_whole")

    def __init__(
        self,
        invocation: Invocation,
        environ: Environ,
        path: str,
        start_response: StartResponse,
        *,
        operation: Callable[[Environ], str],
        protocol: str,
    ) -> None:
        scope = {"method": environ["REQUEST_METHOD"], "path": path}
        self._invocation = invocation
        kind = Plain(lambda _: operation(environ), protocol, "wsgi")
        self._exchange = Exchange(invocation, kind, scope, _disconnected, _sent)
        self._environ = environ
        self._start_response = start_response
        self._status = 0
        self._headers: Headers = []
        self._sent = 0
        self._begun = False
        self._ended = False
        self._whole = False

    def serve(self, app: Callable[[Environ, StartResponse], Iterable[bytes]]) -> Iterable[bytes]:
        """Call the application; its body, measured. A file in the server's own wrapper stays one, and counts as sent with this."""
        try:
            result = app(self._environ, self.start_response)
        except BaseException as exc:
            self.fail(exc)
            raise
        wrapper = self._environ.get("wsgi.file_wrapper")
        if isinstance(wrapper, type) and isinstance(result, wrapper):
            self.end()
            self.leave()
            return result
        self._whole = isinstance(result, (list, tuple)) or getattr(result, "streaming", None) is False
        self.leave()
        return SizedBody(self, result) if hasattr(result, "__len__") else Body(self, result)

    def start_response(self, status: str, headers: Headers, *exc_info: Any) -> Callable[[bytes], object]:
        """The server's, with the request id in the headers; what is started last before the first byte is what is answered."""
        write = self._start_response(status, self._with_request_id(headers), *exc_info)
        self._status, self._headers = int(status[:3]) if status[:3].isdecimal() else 0, headers

        def writing(data: bytes) -> None:
            try:
                write(data)
            except OSError:
                self._tell(self._exchange.receive())
                raise
            self.piece(data)

        return writing

    def piece(self, data: bytes) -> None:
        """A piece of the body goes out; the first one takes the head along. With the length it was told a server has what it wants."""
        if data:
            self._begin()
            self._sent += len(data)
            self._tell(self._exchange.send({"type": "http.response.body", "body": data, "more_body": True}))
        if self._sent >= self._length():
            self.end()

    def end(self) -> None:
        """The last piece went out. An application that never started its answer has given none."""
        if self._ended:
            return
        self._ended = True
        if self._status:
            self._begin()
            self._tell(self._exchange.send({"type": "http.response.body"}))
        self._exchange.finish()

    def closed(self) -> None:
        """The server is done. Where it did not wait for the last piece, and more was to come, its caller has left."""
        if not self._ended:
            self._tell(self._exchange.receive())
            self._exchange.finish()

    def fail(self, error: BaseException) -> None:
        """The application raised."""
        self._ended = True
        self._exchange.finish(raised=error)
        self._exchange.leave(failed=True)

    def enter(self) -> None:
        """The application goes on, after a `leave`."""
        try:
            self._invocation.enter()
        except Exception as exc:  # noqa: BLE001 - the telemetry must not break the request
            internal_error("wsgi", exc)

    def leave(self) -> None:
        """The application rests."""
        self._exchange.leave()

    def _begin(self) -> None:
        """A body that lies there whole is no stream, in however many pieces: to the exchange that is a body of known length."""
        if self._begun:
            return
        self._begun = True
        headers = [(name.lower().encode("latin-1", "replace"), value.encode("latin-1", "replace")) for name, value in self._headers]
        if self._whole:
            headers.append((_LENGTH.encode(), b""))
        self._tell(self._exchange.send({"type": "http.response.start", "status": self._status, "headers": headers}))

    def _length(self) -> float:
        """How many bytes the answer said it would have; infinite where it did not say."""
        said = next((value for name, value in self._headers if name.lower() == _LENGTH), "")
        return int(said) if said.isdecimal() else math.inf

    def _tell(self, step: Coroutine[Any, Any, object]) -> None:
        try:
            step.send(None)
        except StopIteration:
            return
        except Exception as exc:  # noqa: BLE001 - the telemetry must not break the request
            internal_error("wsgi", exc)

    def _with_request_id(self, headers: Headers) -> Headers:
        if any(name.lower() == _REQUEST_ID for name, _ in headers):
            return headers
        return [*headers, (_REQUEST_ID, self._invocation.request.request_id)]


async def _sent(event: Event) -> None:
    """What the exchange passes on has gone through the server's own `start_response` and iteration."""
    del event


async def _disconnected() -> Event:
    return {"type": "http.disconnect"}


class Body:
    """What an application returned; the request is the current one while a piece is made, and at no other time."""

    def __init__(self, call: Call, result: Iterable[bytes]) -> None:
        self._call = call
        self._result = result
        self._pieces: Iterator[bytes] | None = None

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> bytes:
        call = self._call
        call.enter()
        try:
            if self._pieces is None:
                self._pieces = iter(self._result)
            piece = next(self._pieces)
        except StopIteration:
            call.end()
            call.leave()
            raise
        except BaseException as exc:
            call.fail(exc)
            raise
        call.piece(piece)
        call.leave()
        return piece

    def close(self) -> None:
        """Close the application's body."""
        call = self._call
        call.closed()
        call.enter()
        try:
            if hasattr(self._result, "close"):
                self._result.close()
        except BaseException as exc:
            call.fail(exc)
            raise
        call.leave()


class SizedBody(Body):
    """A body whose pieces can be counted, as some servers do to know its length."""

    def __len__(self) -> int:
        return len(self._result)  # type: ignore[arg-type]
