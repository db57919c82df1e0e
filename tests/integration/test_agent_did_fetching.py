"""Whose document it is that an agent fetches, over real TLS."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from typing import Any

import pytest

from sage_agent.security.did import UnresolvableError
from sage_agent.security.fetching import Fetcher
from tests.support.did_host import did_host


def test_a_connection_to_one_host_serves_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that leads to the address of a host which kept its connection open is refused: its certificate is for somebody else."""

    async def here(_: str, port: int, **settings: Any) -> Any:
        return [(socket.AF_INET, settings["type"], 6, "", ("127.0.0.1", port))]

    async def main(port: int, ca_file: Path) -> None:
        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", here)
        fetcher = Fetcher(timeout=5.0, private=True, ca_file=str(ca_file))
        try:
            assert (await fetcher.get("agents.test", port, "/did.json")).document == {"id": "x"}
            with pytest.raises(UnresolvableError, match="unreachable"):
                await fetcher.get("victim.test", port, "/did.json")
        finally:
            await fetcher.close()

    with did_host(tmp_path, keeps=True) as host:
        host.serve_json("/did.json", {"id": "x"})
        asyncio.run(main(host.port, host.ca_file))
        assert host.asked == ["/did.json"]
