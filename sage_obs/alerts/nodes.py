"""YAML that people write, read with its lines, so that every complaint says where."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from sage_obs.errors import ConfigError

if TYPE_CHECKING:
    import yaml

_MAX_BYTES: Final = 16 * 2**20
"""A file of rules or of an incident is some kilobytes; a dump that was named by mistake is not read into memory."""
_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0, "y": 31_536_000.0}
_DURATION: Final = re.compile(r"(?:(\d+)y)?(?:(\d+)w)?(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m(?!s))?(?:(\d+)s)?(?:(\d+)ms)?", re.ASCII)
_ORDER: Final = ("y", "w", "d", "h", "m", "s", "ms")


@dataclass(frozen=True, slots=True)
class Node:
    """A value of a file. `value` is a text, None for null, a list of nodes, or a mapping of them."""

    file: str
    line: int
    value: str | tuple[Node, ...] | Mapping[str, Node] | None

    def wrong(self, why: str, *, hint: str = "") -> ConfigError:
        """The error that says where and why."""
        return ConfigError(f"{self.file}:{self.line}: {why}.", hint=hint)

    def mapping(self, what: str) -> Mapping[str, Node]:
        """Its keys and values. Raises ConfigError for anything else than a mapping, and says that `what` must be one."""
        if not isinstance(self.value, Mapping):
            raise self.wrong(f"{what} must be a mapping of keys to values, not {self._kind()}")
        return self.value

    def items(self, what: str) -> tuple[Node, ...]:
        """Its elements. Raises ConfigError for anything else than a list."""
        if not isinstance(self.value, tuple):
            raise self.wrong(f"{what} must be a list, not {self._kind()}")
        return self.value

    def text(self, what: str) -> str:
        """What is written. Raises ConfigError for lists, mappings and nothing."""
        if not isinstance(self.value, str) or not self.value.strip():
            raise self.wrong(f"{what} must be a text, not {self._kind()}")
        return self.value

    def texts(self, what: str) -> dict[str, str]:
        """A mapping of texts, which may be empty; nothing is an empty one."""
        if self.value is None:
            return {}
        return {name: one.value if isinstance(one.value, str) else one.text(f"{what}.{name}") for name, one in self.mapping(what).items()}

    def seconds(self, what: str) -> float:
        """A duration such as `30s` or `1h30m`, in seconds. Raises ConfigError for anything else."""
        try:
            return span(self.text(what))
        except ValueError as exc:
            raise self.wrong(f"{what} is {exc}") from exc

    def only(self, known: tuple[str, ...], what: str) -> None:
        """Raise ConfigError for a key that `what` does not have."""
        for name, one in self.mapping(what).items():
            if name not in known:
                raise one.wrong(f"{what} has no {name!r}", hint=f"It has {', '.join(known)}.")

    def _kind(self) -> str:
        match self.value:
            case None:
                return "nothing"
            case str():
                return f"{self.value[:40]!r}"
            case tuple():
                return "a list"
            case _:
                return "a mapping"


def span(text: str) -> float:
    """A duration as Prometheus writes it (`30s`, `1h30m`, `0`), in seconds. Raises ValueError for anything else."""
    match = _DURATION.fullmatch(text.strip())
    if text.strip() == "0":
        return 0.0
    if match is None or not any(match.groups()):
        raise ValueError(f"{text!r}, which is no duration such as 30s, 5m or 1h30m")
    return sum(int(amount) * _UNITS[unit] for amount, unit in zip(match.groups(), _ORDER, strict=True) if amount)


def read(path: Path) -> Node:
    """The content of a YAML file. Raises ConfigError, with the line, where it is empty, unreadable or no YAML."""
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_BYTES + 1)
    except OSError as exc:
        raise ConfigError(f"Cannot read {path} ({exc.strerror}).", hint="Check its name.") from exc
    if len(content) > _MAX_BYTES:
        raise ConfigError(f"{path} has more than {_MAX_BYTES // 2**20} MiB, which no file of this kind has.", hint="Check its name.")
    try:
        return parse(content.decode("utf-8-sig"), name=str(path))
    except UnicodeDecodeError as exc:
        line = content[: exc.start].count(b"\n") + 1
        raise ConfigError(f"{path}:{line}: this is not UTF-8.", hint="Save the file as UTF-8.") from exc


def parse(text: str, *, name: str) -> Node:
    """The same of a text, called `name` in errors."""
    import yaml

    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        if root is None:
            raise ConfigError(f"{name}:1: the file is empty.", hint="Check its name.")
        return _Tree(name).node(root)
    except yaml.MarkedYAMLError as exc:
        mark = exc.problem_mark or exc.context_mark
        raise ConfigError(f"{name}:{mark.line + 1 if mark else 1}: this is not YAML: {exc.problem or exc.context}.") from exc
    except yaml.YAMLError as exc:
        raise ConfigError(f"{name}: this is not YAML: {' '.join(str(exc).split())}.") from exc
    except RecursionError as exc:
        raise ConfigError(f"{name}: this is nested too deeply.") from exc


class _Tree:
    """From YAML's nodes to ours. One that several aliases name is made once, so that aliases of aliases do not multiply."""

    def __init__(self, file: str) -> None:
        self._file = file
        self._made: dict[int, Node] = {}
        self._open: set[int] = set()

    def node(self, node: yaml.Node) -> Node:
        """A node and what is in it."""
        if id(node) in self._open:
            raise ConfigError(f"{self._where(node)}: an alias leads to what it is in.")
        if id(node) not in self._made:
            self._open.add(id(node))
            self._made[id(node)] = Node(self._file, node.start_mark.line + 1, self._value(node))
            self._open.discard(id(node))
        return self._made[id(node)]

    def _value(self, node: yaml.Node) -> str | tuple[Node, ...] | Mapping[str, Node] | None:
        import yaml

        if isinstance(node, yaml.MappingNode):
            return self._mapping(node)
        if isinstance(node, yaml.SequenceNode):
            return tuple(self.node(one) for one in node.value)
        return None if node.tag == "tag:yaml.org,2002:null" else str(node.value)

    def _mapping(self, node: yaml.MappingNode) -> dict[str, Node]:
        import yaml

        found: dict[str, Node] = {}
        merged: dict[str, Node] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise ConfigError(f"{self._where(key)}: a key must be a text.")
            if key.tag == "tag:yaml.org,2002:merge":
                merged |= self.node(value).mapping("what is merged by <<")
            elif key.value in found:
                raise ConfigError(f"{self._where(key)}: {key.value!r} is there twice.", hint="Remove one of them.")
            else:
                found[key.value] = self.node(value)
        return {**merged, **found}

    def _where(self, node: yaml.Node) -> str:
        return f"{self._file}:{node.start_mark.line + 1}"
