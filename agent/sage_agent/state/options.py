"""The settings of where state is kept, as a table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from sage_obs.settings import Option, parse_choice, parse_int, parse_port, parse_seconds, parse_text

KINDS: Final = ("sqlite", "postgres", "redis", "memory")
"""Where state can be kept."""
SCHEMES: Final = {
    "postgres": "postgres",
    "postgresql": "postgres",
    "redis": "redis",
    "rediss": "redis",
    "unix": "redis",
    "sqlite": "sqlite",
}
"""What a connection string begins with, and the kind of store that means."""
_PATIENCE: Final = (0.1, 60.0)
"""Seconds. Requests wait for the store: longer is no answer, and shorter is none of a database that has to wake up."""
_TLS: Final = ("disable", "prefer", "require", "verify-full")


def parse_connection(value: object) -> str:
    """A connection string that says by its scheme what it is of. What is wrong is said without it: it holds a password."""
    text = parse_text(value).strip()
    if text and text.partition("://")[0] not in SCHEMES:
        raise ValueError("expected an address that starts with postgresql://, redis://, rediss:// or sqlite://")
    return text


def parse_lifetime(value: object) -> float:
    """A duration in seconds of at least one."""
    seconds = parse_seconds(value)
    if seconds < 1:
        raise ValueError("expected a duration of at least 1 second")
    return seconds


def parse_patience(value: object) -> float:
    """A duration in seconds from a tenth to a minute."""
    seconds = parse_seconds(value)
    if not _PATIENCE[0] <= seconds <= _PATIENCE[1]:
        raise ValueError("expected a duration from 100ms to 60s")
    return seconds


STATE_OPTIONS: Final[Mapping[str, Option]] = {
    "storage_type": Option("storage.type", ("SAGE_STORAGE_TYPE",), parse_choice(*KINDS), "sqlite", "where state is kept"),
    "storage_connection": Option(
        "storage.connection_string",
        ("SAGE_DB_CONNECTION_STRING",),
        parse_connection,
        "",
        "the address of the database, which beats the single values below",
        secret=True,
    ),
    "storage_path": Option(
        "storage.path", ("SAGE_STORAGE_PATH",), parse_text, ".sage-agent/state.db", "the SQLite file; it is made where there is none"
    ),
    "storage_host": Option("storage.host", ("SAGE_STORAGE_HOST",), parse_text, "localhost", "the database server"),
    "storage_port": Option("storage.port", ("SAGE_STORAGE_PORT",), parse_port, 0, "its port; 0 means its usual one"),
    "storage_database": Option(
        "storage.database", ("SAGE_STORAGE_DATABASE",), parse_text, "", "the database on it; none means sage_agent, or 0 of Redis"
    ),
    "storage_user": Option("storage.user", ("SAGE_STORAGE_USER",), parse_text, "", "whom to be there"),
    "storage_password": Option("storage.password", ("SAGE_STORAGE_PASSWORD",), parse_text, "", "the password", secret=True),
    "storage_tls": Option("storage.tls", ("SAGE_STORAGE_TLS",), parse_choice(*_TLS), "prefer", "whether the connection is encrypted"),
    "storage_timeout": Option(
        "storage.timeout", ("SAGE_STORAGE_TIMEOUT",), parse_patience, 2.0, "the longest one operation may take, in seconds"
    ),
    "max_open_conns": Option(
        "storage.postgres.max_open_conns",
        ("SAGE_DB_MAX_OPEN_CONNS",),
        parse_int(1, 10_000),
        25,
        "connections to PostgreSQL at most",
    ),
    "max_idle_conns": Option(
        "storage.postgres.max_idle_conns", ("SAGE_DB_MAX_IDLE_CONNS",), parse_int(0, 10_000), 5, "of which so many stay open unused"
    ),
    "conn_max_lifetime": Option(
        "storage.postgres.conn_max_lifetime", ("SAGE_DB_CONN_MAX_LIFETIME",), parse_lifetime, 300.0, "the longest one is kept, in seconds"
    ),
    "redis_max_conns": Option(
        "storage.redis.max_conns", ("SAGE_REDIS_MAX_CONNS",), parse_int(1, 10_000), 50, "connections to Redis at most"
    ),
}
"""By argument name."""
