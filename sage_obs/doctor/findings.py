"""A finding, and the world it is looked for in."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from sage_obs.errors import ConfigError
from sage_obs.settings import OPTIONS, Option, Value, resolve

OPTIONS_GROUP: Final = "sage_obs_options"
"""Entry points that are tables of settings read from `SAGE_*` variables by programs built on sage-obs."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is wrong: the check that found it, what it is, and what to do about it. Neither text holds a secret."""

    check: str
    what: str
    remedy: str


@dataclass(frozen=True, slots=True)
class World:
    """What is examined: an environment, and the command that would run in it, which may be empty."""

    environ: Mapping[str, str]
    command: Sequence[str]
    folder: Path

    def setting(self, name: str) -> Value:
        """One of the layer's settings as the environment has it; one that cannot be parsed counts as not set."""
        option = OPTIONS[name]
        try:
            return resolve({name: option}, environ=self.environ)[name]
        except ConfigError:
            return Value(option.default, "default")


def entry_points(group: str) -> list[importlib.metadata.EntryPoint]:
    """The entry points of a group, in the order that OpenTelemetry's loader meets them."""
    return list(importlib.metadata.entry_points(group=group))


def options() -> dict[str, Option]:
    """Every setting there is a variable for, those of other programs included."""
    tables: list[Any] = [entry.load() for entry in entry_points(OPTIONS_GROUP)]
    return {f"{number}.{name}": option for number, table in enumerate([OPTIONS, *tables]) for name, option in table.items()}


def address(url: str) -> str:
    """Scheme, host and port of an address: users, passwords, paths and queries may be secret."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}" if host else "an address without a host"
