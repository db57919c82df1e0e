"""Documents from other people's servers: HTTPS, a bounded size and time, no redirect, and no address inside our own network."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
from dataclasses import dataclass
from typing import Any, Final

import httpx
import orjson

from sage_agent.security.did import UnresolvableError

_LONGEST: Final = 69_632
"""Bytes; what SAGE allows a record, and far more than a DID document needs."""
_HTTPS: Final = 443
_AT_ONCE: Final = 16
"""Fetches. Whoever may name a DID can make this agent ask its host."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """A document and what its server said of keeping it."""

    document: Any
    cache_control: str


class Fetcher:
    """Gets JSON within `timeout` seconds. `private` admits private addresses, `ca_file` a certificate authority of one's own."""

    def __init__(self, *, timeout: float, private: bool, ca_file: str = "") -> None:
        self._timeout = timeout
        self._private = private
        self._ca_file = ca_file
        self._client: httpx.AsyncClient | None = None
        self._places = asyncio.Semaphore(_AT_ONCE)

    async def get(self, host: str, port: int, path: str) -> Fetched:
        """A document. Raises UnresolvableError, whatever went wrong."""
        try:
            async with asyncio.timeout(self._timeout), self._places:
                return await self._get(host, port, path)
        except (TimeoutError, httpx.HTTPError, OSError, orjson.JSONDecodeError):
            raise UnresolvableError("record.unreachable") from None

    async def close(self) -> None:
        """Let go of the connections."""
        if self._client is not None:
            await self._client.aclose()

    @property
    def _http(self) -> httpx.AsyncClient:
        """The client, made when it is first needed: reading the system's authorities takes a while."""
        if self._client is None:
            context = ssl.create_default_context(cafile=self._ca_file or None)
            self._client = httpx.AsyncClient(verify=context, trust_env=False, follow_redirects=False, timeout=self._timeout)
        return self._client

    async def _get(self, host: str, port: int, path: str) -> Fetched:
        address = await self._address(host, port)
        literal = f"[{address}]" if ":" in address else address
        headers = {
            "host": host if port == _HTTPS else f"{host}:{port}",
            "accept": "application/json",
            "cache-control": "no-cache, no-store",
        }
        request = self._http.build_request("GET", f"https://{literal}:{port}{path}", headers=headers, extensions={"sni_hostname": host})
        response = await self._http.send(request, stream=True)
        try:
            if response.status_code != httpx.codes.OK or response.headers.get("content-encoding", "identity") != "identity":
                raise UnresolvableError("record.unreachable")
            body = b""
            async for piece in response.aiter_raw():
                body += piece
                if len(body) > _LONGEST:
                    raise UnresolvableError("size.exceeded")
        finally:
            await response.aclose()
        return Fetched(orjson.loads(body), response.headers.get("cache-control", ""))

    async def _address(self, host: str, port: int) -> str:
        """The address that is asked: the one that was looked at, so that the name cannot mean another one a moment later."""
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        for *_, place in found:
            address = str(place[0])
            if self._private or ipaddress.ip_address(address).is_global:
                return address
        raise UnresolvableError("record.private-address")
