"""The OTLP endpoint: whether spans would arrive, within two seconds. Of its address only host and port are ever shown."""

from __future__ import annotations

import email.utils
import http.client
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final
from urllib.parse import SplitResult, urlsplit

from sage_obs.doctor.findings import Finding, World, address

SECONDS: Final = 2.0
_GRPC_PORT: Final = 4317
_SKEW_SECONDS: Final = 30.0
"""More than a second's rounding of the `Date` header and a slow answer can make."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What an endpoint said to an export of nothing: a status and, in seconds, how far its clock is ahead; or why it said nothing."""

    status: int = 0
    ahead: float = 0.0
    error: str = ""


def reachable(world: World) -> Iterator[Finding]:
    """An endpoint that is no address, speaks gRPC, does not answer, or answers that there is nothing."""
    setting = world.setting("traces_endpoint")
    if not setting.value or not world.setting("traces").value:
        return
    source = setting.source.removeprefix("environment ")
    parts = urlsplit(setting.value)
    if parts.scheme not in {"http", "https"} or not parts.hostname or _port(parts) is None:
        yield Finding(
            "endpoint", f"{source} is not an address that starts with http:// or https://.", f"For example: {source}=http://localhost:4318"
        )
        return
    where = address(setting.value)
    if _port(parts) == _GRPC_PORT:
        yield Finding(
            "endpoint",
            f"{where} is the port of OTLP over gRPC, and spans are sent over HTTP.",
            f"Set {source} to the HTTP port, usually 4318.",
        )
        return
    yield from _judged(_ask(setting.value, base=source == "OTEL_EXPORTER_OTLP_ENDPOINT", environ_ca=_authority(world)), where, source)


def _port(parts: SplitResult) -> int | None:
    """The port, as far as it is one; 0 for the scheme's own."""
    try:
        return parts.port or 0
    except ValueError:
        return None


def _authority(world: World) -> str:
    return world.environ.get("OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE") or world.environ.get("OTEL_EXPORTER_OTLP_CERTIFICATE", "")


def _judged(reply: Reply, where: str, source: str) -> Iterator[Finding]:
    if reply.error:
        yield Finding("endpoint", f"{where} cannot be reached: {reply.error}.", f"Start the collector, or correct {source}.")
    elif reply.status in {HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED}:
        yield Finding("endpoint", f"{where} answers {reply.status} where spans would be posted.", f"Correct the path in {source}.")
    elif abs(reply.ahead) > _SKEW_SECONDS:
        words = "ahead of" if reply.ahead > 0 else "behind"
        yield Finding(
            "clock",
            f"The clock of {where} is {abs(reply.ahead):.0f} s {words} ours.",
            "Set both by NTP: spans and alerts are placed by time.",
        )


def _ask(url: str, *, base: bool, environ_ca: str) -> Reply:
    """Export nothing, in a thread of its own: the resolver has no timeout."""
    found: list[Reply] = []
    thread = threading.Thread(target=lambda: found.append(_post(url, base=base, authority=environ_ca)), name="sage-obs-doctor", daemon=True)
    thread.start()
    thread.join(SECONDS)
    return found[0] if found else Reply(error=f"no answer within {SECONDS:g} s")


def _post(url: str, *, base: bool, authority: str) -> Reply:
    from sage_obs.tracing.export import traces_url

    parts = urlsplit(traces_url(url, base=base))
    try:
        connection = _connection(parts, authority)
        try:
            path = f"{parts.path}?{parts.query}" if parts.query else parts.path
            connection.request("POST", path, body=b"", headers={"content-type": "application/x-protobuf"})
            answer = connection.getresponse()
            return Reply(status=answer.status, ahead=_ahead(answer.getheader("date", "")))
        finally:
            connection.close()
    except (OSError, http.client.HTTPException, ValueError) as exc:
        return Reply(error=_reason(exc))


def _connection(parts: SplitResult, authority: str) -> http.client.HTTPConnection:
    host = parts.hostname or ""
    if parts.scheme == "http":
        return http.client.HTTPConnection(host, parts.port, timeout=SECONDS)
    return http.client.HTTPSConnection(host, parts.port, timeout=SECONDS, context=ssl.create_default_context(cafile=authority or None))


def _reason(exc: Exception) -> str:
    """The system's words for it: an exception of another kind may repeat the address."""
    if isinstance(exc, TimeoutError):
        return f"no answer within {SECONDS:g} s"
    return (exc.strerror or type(exc).__name__) if isinstance(exc, OSError) else type(exc).__name__


def _ahead(date: str) -> float:
    try:
        return email.utils.parsedate_to_datetime(date).timestamp() - time.time()
    except (TypeError, ValueError):
        return 0.0
