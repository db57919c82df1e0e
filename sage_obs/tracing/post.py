"""Posting to an OTLP/HTTP endpoint: what may be tried again is, within a deadline, and every answer is read for losses."""

from __future__ import annotations

import gzip
import importlib.metadata
import os
import random
import threading
import time
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

import requests
from opentelemetry.util.re import parse_env_headers

_AGAIN: Final = frozenset({429, 502, 503, 504})
"""Answers after which a client may try again (OTLP/HTTP, "Retryable Response Codes")."""
_REDIRECTION: Final = 300
_TIMEOUT: Final = 10.0
"""OTLP's default, in seconds."""
_FIRST_PAUSE: Final = 1.0
_JITTER: Final = 0.2
_ANSWER_AT_MOST: Final = 4096
"""In bytes. A partial success is a number and a sentence."""
_VARIABLE: Final = "OTEL_EXPORTER_OTLP_"
_TYPE: Final = "application/x-protobuf"
_COMPRESSIONS: Final[Mapping[str, Callable[[bytes], bytes]]] = {"gzip": lambda body: gzip.compress(body, 1), "deflate": zlib.compress}
_CREDENTIALS: Final = "opentelemetry_otlp_credential_provider"


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of a post: whether it was taken, how many items of it were rejected, and why where it was not taken."""

    taken: bool
    rejected: int = 0
    why: str = ""


@dataclass(frozen=True, slots=True)
class Manner:
    """How to post: what OpenTelemetry's variables for its exporters say."""

    headers: Mapping[str, str] = field(default_factory=dict)
    compression: str = ""
    verify: bool | str = True
    certificate: str | tuple[str, str] | None = None
    timeout: float = _TIMEOUT
    """In seconds, for one export with all its attempts."""
    credentials: str = ""
    """The name of an entry point that makes the session, for endpoints that want more than headers."""


def manner_of(signal: str, environ: Mapping[str, str] = os.environ) -> Manner:
    """What the environment says for `traces` or `metrics`; a variable of the signal's own comes before the one for all."""

    def said(name: str) -> str:
        return (environ.get(f"{_VARIABLE}{signal.upper()}_{name}") or environ.get(f"{_VARIABLE}{name}") or "").strip()

    certificate, key = said("CLIENT_CERTIFICATE"), said("CLIENT_KEY")
    provider = f"OTEL_PYTHON_EXPORTER_OTLP_HTTP_{signal.upper()}_CREDENTIAL_PROVIDER"
    return Manner(
        headers=parse_env_headers(said("HEADERS"), liberal=True),
        compression=said("COMPRESSION").lower(),
        verify=said("CERTIFICATE") or True,
        certificate=(certificate, key) if certificate and key else certificate or None,
        timeout=_seconds(said("TIMEOUT")),
        credentials=environ.get(provider) or environ.get("OTEL_PYTHON_EXPORTER_OTLP_HTTP_CREDENTIAL_PROVIDER") or "",
    )


def _seconds(text: str) -> float:
    try:
        return max(0.1, float(text))
    except ValueError:
        return _TIMEOUT


class Endpoint:
    """One URL that takes OTLP, and the connection to it."""

    def __init__(self, url: str, manner: Manner, *, pause: float = _FIRST_PAUSE) -> None:
        self._url = url
        self._manner = manner
        self._pause = pause
        self._compress = _COMPRESSIONS.get(manner.compression)
        agent = f"sage-obs/{importlib.metadata.version('sage-obs')}"
        encoding = {} if self._compress is None else {"Content-Encoding": manner.compression}
        self._headers = {"Content-Type": _TYPE, "User-Agent": agent, **manner.headers, **encoding}
        self._connect()

    def _connect(self) -> None:
        self._closing = threading.Event()
        self._session = _session(self._manner.credentials)
        self._session.headers.update(self._headers)

    def post(self, body: bytes) -> Answer:
        """Post a message, again where that may help, until the time is over or somebody closes the endpoint."""
        data = body if self._compress is None else self._compress(body)
        deadline, pause = time.monotonic() + self._manner.timeout, self._pause
        while True:
            answer, wished = self._try(data, deadline)
            if wished is None:
                return answer
            wait = max(wished, pause * random.uniform(1 - _JITTER, 1 + _JITTER))  # noqa: S311 - no secret
            if time.monotonic() + wait >= deadline or self._closing.wait(wait):
                return answer
            pause *= 2

    def restart_after_fork(self) -> None:
        """Connect anew in a forked child: two processes that write to one connection garble what both of them say."""
        self._connect()

    def hurry(self) -> None:
        """Try nothing again from now on: the process ends."""
        self._closing.set()

    def close(self) -> None:
        """Let go of the connection, by name: what would close those of a pool is no longer run when the interpreter ends."""
        for adapter in self._session.adapters.values():
            for manager in (getattr(adapter, "poolmanager", None), *getattr(adapter, "proxy_manager", {}).values()):
                for key in () if manager is None else manager.pools.keys():
                    manager.pools[key].close()
        self._session.close()

    def _try(self, data: bytes, deadline: float) -> tuple[Answer, float | None]:
        """One attempt, and how many seconds to wait at least before the next; None where there is to be none."""
        manner = self._manner
        try:
            with self._session.post(
                self._url,
                data,
                timeout=max(0.1, deadline - time.monotonic()),
                verify=manner.verify,
                cert=manner.certificate,
                allow_redirects=False,
                stream=True,
            ) as response:
                return _read(response, deadline)
        except requests.ConnectionError as exc:
            return Answer(taken=False, why=type(exc).__name__), 0.0
        except requests.RequestException as exc:
            return Answer(taken=False, why=type(exc).__name__), None


def _read(response: requests.Response, deadline: float) -> tuple[Answer, float | None]:
    status = response.status_code
    if status in _AGAIN:
        return Answer(taken=False, why=f"HTTP {status}"), _wished(response.headers.get("retry-after", ""))
    if not response.ok or status >= _REDIRECTION:
        return Answer(taken=False, why=f"HTTP {status}"), None
    return _verdict(_body(response, deadline)), None


def _body(response: requests.Response, deadline: float) -> bytes:
    """The answer's body, as far as it comes in time; an endpoint that drips it must not hold the exports up."""
    body = bytearray()
    for piece in response.iter_content(1):
        body += piece
        if len(body) >= _ANSWER_AT_MOST or time.monotonic() > deadline:
            break
    return bytes(body)


def _verdict(body: bytes) -> Answer:
    """What a 200 says. A web page says that nobody there speaks OTLP; `{}` comes from those who answer all the same."""
    from google.protobuf.message import DecodeError
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse  # the other signals' have its fields

    if body.lstrip().startswith(b"{"):
        return Answer(taken=True)
    try:
        said = ExportTraceServiceResponse.FromString(body).partial_success
    except DecodeError:
        return Answer(taken=False, why="no answer of OTLP")
    return Answer(taken=True, rejected=max(0, said.rejected_spans), why=said.error_message)


def _wished(retry_after: str) -> float:
    """Seconds the server wants to be left alone; a date, which hardly any sends, is not worth a parser."""
    try:
        return max(0.0, float(retry_after))
    except ValueError:
        return 0.0


def _session(credentials: str) -> requests.Session:
    for entry in importlib.metadata.entry_points(group=_CREDENTIALS, name=credentials) if credentials else ():
        session = entry.load()()
        if isinstance(session, requests.Session):
            return session
    return requests.Session()
