"""Where state is kept, as read from the settings."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlsplit

from sage_agent.state.options import SCHEMES
from sage_obs.errors import ConfigError
from sage_obs.settings import Value

_PORTS: Final = {"postgres": 5432, "redis": 6379}
_HALF_ESCAPED: Final = re.compile("%(?![0-9A-Fa-f]{2})", re.ASCII)


@dataclass(frozen=True, slots=True)
class StateConfig:
    """What kind of store, and where. `timeout` and `lifetime` are in seconds; `asked` is whether somebody chose the kind."""

    kind: str
    asked: bool
    path: Path
    url: str = field(repr=False)
    timeout: float
    max_open: int
    max_idle: int
    lifetime: float
    redis_connections: int


def read_state(values: Mapping[str, Value]) -> StateConfig:
    """Read the settings. Raises ConfigError where they say two things at once."""
    plain = {name: value.value for name, value in values.items()}
    kind, url = str(plain["storage_type"]), str(plain["storage_connection"])
    asked = values["storage_type"].source != "default"
    path = Path(plain["storage_path"])
    if url:
        meant = SCHEMES[url.partition("://")[0]]
        if asked and meant != kind:
            raise ConfigError(
                f"storage.type is {kind}, and the connection string is one of {meant}.", hint="Remove one of them, or make them agree."
            )
        kind, asked = meant, True
        check_address(url)
    if kind == "sqlite" and url:
        path = Path(url.partition("://")[2])
    if kind in _PORTS and not url:
        url = _url(kind, plain)
    if plain["max_idle_conns"] > plain["max_open_conns"]:
        raise ConfigError(
            f"storage.postgres.max_idle_conns is {plain['max_idle_conns']}, more than max_open_conns, {plain['max_open_conns']}.",
            hint="Lower the one or raise the other.",
        )
    return StateConfig(
        kind=kind,
        asked=asked,
        path=path,
        url=url,
        timeout=plain["storage_timeout"],
        max_open=plain["max_open_conns"],
        max_idle=plain["max_idle_conns"],
        lifetime=plain["conn_max_lifetime"],
        redis_connections=plain["redis_max_conns"],
    )


def check_address(url: str) -> None:
    """Raise ConfigError for an address that no client can read, without a word of it: theirs quote the password."""
    try:
        urlsplit(url).port  # noqa: B018 - it is read when it is asked for
    except ValueError:
        raise unreadable_address() from None
    if _HALF_ESCAPED.search(url):
        raise unreadable_address()


def unreadable_address() -> ConfigError:
    """What is said of such an address."""
    return ConfigError(
        "storage.connection_string cannot be read as an address, SCHEME://USER:PASSWORD@HOST:PORT/DATABASE.",
        hint="In a user or password write : as %3A, / as %2F, @ as %40, # as %23, ? as %3F, [ as %5B, % as %25.",
    )


def _url(kind: str, plain: Mapping[str, Any]) -> str:
    """The address that the single values make."""
    user, password = quote(plain["storage_user"], safe=""), quote(plain["storage_password"], safe="")
    who = f"{user}{':' + password if password else ''}@" if user or password else ""
    host = f"[{plain['storage_host']}]" if ":" in plain["storage_host"] else plain["storage_host"]
    place = f"{who}{host}:{plain['storage_port'] or _PORTS[kind]}"
    tls = plain["storage_tls"]
    if kind == "postgres":
        return f"postgresql://{place}/{quote(plain['storage_database'] or 'sage_agent', safe='')}?sslmode={tls}"
    scheme = "rediss" if tls in {"require", "verify-full"} else "redis"
    checks = "" if tls != "require" else "?ssl_cert_reqs=none"
    return f"{scheme}://{place}/{plain['storage_database'] or '0'}{checks}"
