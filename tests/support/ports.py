"""Ports for servers that cannot be asked which one they took."""

from __future__ import annotations

import socket


def free_port() -> int:
    """A port of the loopback address that nobody has now."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])
