"""Where a request comes from, through proxies that can be believed and through none that cannot."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from typing import Final

from sage_agent.security.options import Network

_PORT: Final = re.compile(r"\[([^\]]*)\](?::\d{1,5})?|([\d.]+):\d{1,5}", re.ASCII)
"""`192.0.2.1:4711` and `[2001:db8::1]:4711`."""


def client_address(peer: str, forwarded: str, proxies: Sequence[Network]) -> str:
    """Where a request comes from, as what limits are on: an IPv6 address as its network, which one household has."""
    return _shared_by_one(origin(peer, forwarded, proxies))


def origin(peer: str, forwarded: str, proxies: Sequence[Network]) -> str:
    """The first address, from the right of `X-Forwarded-For`, that is no trusted proxy's; the peer's where the peer is none.

    What stands further left was written by whoever wanted to. Some proxies write the port, too, which says nothing of who it is.
    """
    address = peer
    for said in reversed(forwarded.split(",") if forwarded else []):
        found = _without_port(said.strip())
        if not among(address, proxies) or not _is_address(found):
            break
        address = found
    return address


def _without_port(said: str) -> str:
    match = _PORT.fullmatch(said)
    return said if match is None else match.group(1) or match.group(2) or ""


def among(address: str, networks: Sequence[Network]) -> bool:
    """Whether an address is in one of the networks."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped is not None:
        found = found.ipv4_mapped
    return any(found.version == network.version and found in network for network in networks)


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _shared_by_one(address: str) -> str:
    """An IPv6 address as its /64, which is what one household has; an IPv4 address in IPv6's clothes as itself."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped is not None:
            return str(found.ipv4_mapped)
        return str(ipaddress.ip_network((found, 64), strict=False).network_address)
    return address
