"""A profile as a page: one file that loads nothing, opens without a network and runs nothing of what a profile says."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import orjson

from sage_obs.profiling.profile import Frame, Profile

_PAGE: Final = Path(__file__).with_name("flamegraph.html")
_LEAST_SHARE: Final = 0.0005
"""Of the whole, below which a call is not drawn: it would be less than a pixel wide."""
_MOST_NODES: Final = 50_000
_ESCAPES: Final = ((b"<", b"\\u003c"), (b">", b"\\u003e"), (b"&", b"\\u0026"), (b"\xe2\x80\xa8", b"\\u2028"), (b"\xe2\x80\xa9", b"\\u2029"))
"""So that no name ends the script it stands in."""


class _Node:
    """A call with what was spent in it and in what it called; `weight` is the same without signs, for profiles of a difference."""

    __slots__ = ("calls", "frame", "values", "weight")

    def __init__(self, frame: Frame, kinds: int) -> None:
        self.frame = frame
        self.values = [0] * kinds
        self.weight = [0] * kinds
        self.calls: dict[tuple[str, str], _Node] = {}


def render(profile: Profile, *, title: str) -> bytes:
    """The page, in UTF-8."""
    root = _tree(profile)
    at = profile.position()
    data = {
        "title": title,
        "kinds": [[kind.type, kind.unit] for kind in profile.kinds],
        "at": at,
        "comments": profile.comments,
        "differs": any(value < 0 for sample in profile.samples for value in sample.values),
        "root": _plain(root, max(1.0, root.weight[at] * _LEAST_SHARE), at, [_MOST_NODES]),
    }
    text = orjson.dumps(data)
    for letter, escape in _ESCAPES:
        text = text.replace(letter, escape)
    before, after = _PAGE.read_bytes().split(b"/*DATA*/")
    return before + text + after


def _tree(profile: Profile) -> _Node:
    kinds = len(profile.kinds)
    root = _Node(Frame("all"), kinds)
    for sample in profile.samples:
        node = root
        _add(node, sample.values)
        for frame in reversed(sample.stack):
            key = (frame.name, frame.file)
            if (called := node.calls.get(key)) is None:
                called = node.calls[key] = _Node(frame, kinds)
            node = called
            _add(node, sample.values)
    return root


def _add(node: _Node, values: tuple[int, ...]) -> None:
    for at, value in enumerate(values):
        node.values[at] += value
        node.weight[at] += abs(value)


def _plain(node: _Node, least: float, at: int, left: list[int]) -> dict[str, Any]:
    """What the page's script reads; calls that are too small to be seen are left out, and so are those beyond the limit."""
    left[0] -= 1
    seen = sorted((one for one in node.calls.values() if one.weight[at] >= least), key=lambda one: one.frame)
    calls = [_plain(one, least, at, left) for one in seen if left[0] > 0]
    place = f"{node.frame.file}:{node.frame.line}" if node.frame.file else ""
    return {"n": node.frame.name, "f": place, "v": node.values, "w": node.weight, "c": calls}
