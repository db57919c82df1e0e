"""Drive a WSGI application without a server."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any
from wsgiref.util import FileWrapper, setup_testing_defaults

Environ = dict[str, Any]
JSON = ("Content-Type", "application/json")


def environ_of(method: str, path: str, **headers: str) -> Environ:
    """An environ as a server makes it."""
    environ: Environ = {"wsgi.file_wrapper": FileWrapper}
    setup_testing_defaults(environ)
    named = {f"HTTP_{name.upper()}": value for name, value in headers.items()}
    return {
        **environ,
        "REQUEST_METHOD": method,
        "PATH_INFO": path,
        "SCRIPT_NAME": "",
        "QUERY_STRING": "",
        "wsgi.input": io.BytesIO(),
        **named,
    }


@dataclass
class Answer:
    """What an application answered."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    result: Any = None

    def start(self, status: str, headers: list[tuple[str, str]], *exc_info: Any) -> Callable[[bytes], object]:
        """A server's `start_response`."""
        del exc_info
        self.status = int(status[:3])
        self.headers = {name.lower(): value for name, value in headers}
        return self.write

    def write(self, data: bytes) -> None:
        """A server's `write`."""
        self.body += data


def serve(app: Callable[..., Iterable[bytes]], environ: Environ, *, pieces: int | None = None) -> Answer:
    """Serve one request; the server stops after so many `pieces`, as if its caller had left."""
    answer = Answer()
    answer.result = app(environ, answer.start)
    try:
        if pieces is None:
            for piece in answer.result:
                answer.write(piece)
        else:
            iterator = iter(answer.result)
            for _ in range(pieces):
                answer.write(next(iterator))
    finally:
        if hasattr(answer.result, "close"):
            answer.result.close()
    return answer


def call(app: Callable[..., Iterable[bytes]], method: str, path: str, **headers: str) -> Answer:
    """One request."""
    return serve(app, environ_of(method, path, **headers))


def answering(status: str, *body: bytes, headers: Iterable[tuple[str, str]] = (JSON,)) -> Callable[..., Any]:
    """An application that always answers this, as a list of pieces."""

    def app(environ: Environ, start_response: Callable[..., Any]) -> list[bytes]:
        del environ
        start_response(status, list(headers))
        return list(body)

    return app
