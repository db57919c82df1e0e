"""Where requests are taken."""

from __future__ import annotations

from dataclasses import dataclass

from sage_agent.server.tls import TlsConfig


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """Where requests are taken, by how many processes, and their bounds: bytes of a body, seconds of a request and of the drain."""

    host: str
    port: int
    max_body_bytes: int
    drain_timeout: float
    request_timeout: float
    workers: int = 1
    tls: TlsConfig | None = None
