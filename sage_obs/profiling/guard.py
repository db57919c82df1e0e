"""Who may look: whoever has the token, or, without one, whoever is on this machine and means to."""

from __future__ import annotations

import base64
import binascii
import hmac
import ipaddress
from collections.abc import Mapping
from typing import Final, NamedTuple

from sage_obs.errors import ConfigError

_NAMES: Final = frozenset({"localhost", "localhost.localdomain"})


def is_loopback(host: str) -> bool:
    """Whether nobody but this machine reaches that address."""
    name = host.strip("[]").lower()
    if name in _NAMES or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


class Refusal(NamedTuple):
    """A status and a reason."""

    status: int
    why: str


_NO_TOKEN: Final = Refusal(401, "The token of SAGE_PROFILING_TOKEN is needed: as a Bearer token, or as the password of Basic.")
_NOT_LOCAL: Final = Refusal(
    403, "Without a token only requests to localhost are answered: a web page could make a browser ask under another name."
)


class Guard:
    """Lets in those with the token, by Bearer or as the password of Basic. Without a token only a loopback address may be opened.

    Raises ConfigError for another one.
    """

    def __init__(self, host: str, token: str) -> None:
        self._token = token.encode()
        if not token and not is_loopback(host):
            raise ConfigError(
                f"Profiles are not served on {host} without a token: whoever reaches the port could read paths and slow the process.",
                hint="Set SAGE_PROFILING_TOKEN (or SAGE_PROFILING_TOKEN_FILE), or SAGE_PROFILING_HOST=127.0.0.1.",
            )

    def refusal(self, headers: Mapping[str, str]) -> Refusal | None:
        """Why a request is not let in, None where it is."""
        if self._token:
            offered = _offered(headers.get("authorization", ""))
            return None if hmac.compare_digest(offered, self._token) else _NO_TOKEN
        return None if is_loopback(_host(headers.get("host", "localhost"))) else _NOT_LOCAL


def _host(header: str) -> str:
    """The host without its port."""
    if header.startswith("["):
        return header.partition("]")[0]
    return header.rpartition(":")[0] or header if header.count(":") == 1 else header


def _offered(header: str) -> bytes:
    scheme, _, rest = header.partition(" ")
    if scheme.lower() == "bearer":
        return rest.strip().encode("latin-1", "replace")
    if scheme.lower() != "basic":
        return b""
    try:
        return base64.b64decode(rest.strip(), validate=True).partition(b":")[2]
    except (binascii.Error, ValueError):
        return b""
