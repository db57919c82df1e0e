"""Where requests are taken, and their bounds."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """Where requests are taken and their bounds: bytes of a body, seconds of a request and of the drain."""

    host: str
    port: int
    max_body_bytes: int
    drain_timeout: float
    request_timeout: float
