"""How two boards differ, as lines for people."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

_ASSIGNED: Final = frozenset({"id", "version", "iteration"})
"""What Grafana gives a board, and is not ours to compare."""
_WIDTH: Final = 60


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """One line for each value that differs: its place, what it was and what it will be. Panels are named by their titles."""
    return list(_changes(_own(before), _own(after), ""))


def _own(board: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in board.items() if key not in _ASSIGNED}


def _changes(before: Any, after: Any, place: str) -> Iterator[str]:
    if isinstance(before, dict) and isinstance(after, dict):
        for key in sorted(before.keys() | after.keys()):
            yield from _entry(before, after, key, f"{place}.{key}" if place else key)
    elif isinstance(before, list) and isinstance(after, list):
        yield from _changes(_by_name(before), _by_name(after), place)
    elif before != after:
        yield f"~ {place}: {_short(before)} → {_short(after)}"


def _entry(before: Mapping[str, Any], after: Mapping[str, Any], key: str, place: str) -> Iterator[str]:
    if key not in before:
        yield f"+ {place}: {_short(after[key])}"
    elif key not in after:
        yield f"- {place}: {_short(before[key])}"
    else:
        yield from _changes(before[key], after[key], place)


def _by_name(listed: list[Any]) -> dict[str, Any]:
    """A list by what its entries call themselves, else by their places; so an entry that moved is not a change of all."""
    named: dict[str, Any] = {}
    for number, one in enumerate(listed):
        name = next((str(one[key]) for key in ("title", "name", "refId") if isinstance(one, dict) and one.get(key)), str(number))
        kind = "row " if isinstance(one, dict) and one.get("type") == "row" else ""
        named[f"[{kind}{name}]" if f"[{kind}{name}]" not in named else f"[{kind}{name} {number}]"] = one
    return named


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, sort_keys=True)
    return text if len(text) <= _WIDTH else f"{text[:_WIDTH]}…"
