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
_TRANSLATED: Final = (ipaddress.IPv6Network("64:ff9b::/96"), ipaddress.IPv6Network("::/96"))
"""Addresses that a gateway may turn into the IPv4 address in their last four bytes (RFC 6052; before it RFC 4291, 2.5.5.1)."""
_TRANSLATED_HERE: Final = ipaddress.IPv6Network("64:ff9b:1::/48")
"""The same within one network (RFC 8215), whatever Python says of it."""
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
            # One fetch a connection: a pool knows it by its address, and would use it for another host, whose certificate nobody has seen.
            once = httpx.Limits(max_keepalive_connections=0)
            self._client = httpx.AsyncClient(verify=context, trust_env=False, follow_redirects=False, timeout=self._timeout, limits=once)
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
            if self._private or is_public(address):
                return address
        raise UnresolvableError("record.private-address")


def is_public(address: str) -> bool:
    """Whether an address is one host's on the public internet; one that carries an IPv4 address for a gateway, only if that one is, too."""
    found = ipaddress.ip_address(address)
    if not found.is_global or found.is_multicast:
        return False
    if isinstance(found, ipaddress.IPv4Address):
        return True
    carried = [found.ipv4_mapped, found.sixtofour, *(_low(found) for prefix in _TRANSLATED if found in prefix)]
    if found.is_site_local or found in _TRANSLATED_HERE:
        return False
    return all(is_public(str(one)) for one in carried if one is not None)


def _low(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address:
    return ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
