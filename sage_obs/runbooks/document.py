"""Reading YAML so that an error can name the file, the line, the key, and what may have been meant."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeVar

from sage_obs.errors import ConfigError

if TYPE_CHECKING:
    from yaml import MappingNode, Node

T = TypeVar("T")
_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)(s|m|h)", re.ASCII)
_SECONDS: Final = {"s": 1.0, "m": 60.0, "h": 3600.0}
_REQUIRED: Final = object()


def suggestion(name: str, known: Iterable[str]) -> str:
    """`Did you mean …?` with the closest known name, else the known names."""
    names = list(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    return f"Did you mean `{close[0]}`?" if close else f"Known: {', '.join(names)}."


def seconds(text: str) -> float:
    """A duration such as `90s`, `5m` or `1h`, in seconds. Raises ValueError."""
    match = _DURATION.fullmatch(text)
    if match is None:
        raise ValueError("expected a duration such as 90s, 5m or 1h")
    return float(match[1]) * _SECONDS[match[2]]


@dataclass(frozen=True, slots=True)
class Mapping:
    """A YAML mapping that remembers where it stands. `path` is its dotted place in the file."""

    source: str
    path: str
    line: int
    entries: dict[str, Node]

    def only(self, *known: str) -> Mapping:
        """The same mapping. Raises ConfigError for a key that is not among `known`."""
        for key, node in self.entries.items():
            if key not in known:
                raise self._error(node, key, "is not known here", hint=suggestion(key, known))
        return self

    def text(self, key: str, default: object = _REQUIRED) -> str:
        """A scalar as text."""
        from yaml import ScalarNode

        node = self._node(key, default)
        if node is None:
            return str(default)
        if not isinstance(node, ScalarNode):
            raise self._error(node, key, "must be a single value")
        return str(node.value)

    def parsed(self, key: str, parse: Callable[[str], T], default: object = _REQUIRED) -> T:
        """A scalar through a parser that raises ValueError with what was expected."""
        text = self.text(key, default)
        try:
            return parse(text)
        except ValueError as exc:
            raise self._error(self.entries.get(key), key, f"is `{text}`: {exc}") from exc

    def choice(self, key: str, choices: Collection[str], default: object = _REQUIRED) -> str:
        """A scalar that must be one of `choices`."""
        text = self.text(key, default)
        if text not in choices:
            raise self._error(self.entries.get(key), key, f"cannot be `{text}`", hint=suggestion(text, choices))
        return text

    def texts(self, key: str, *, choices: Collection[str] = ()) -> tuple[str, ...]:
        """A list of scalars, () where the key is absent; each must be one of `choices` where there are any."""
        from yaml import ScalarNode

        found = []
        for node in self._items(key):
            if not isinstance(node, ScalarNode):
                raise self._error(node, key, "must be a list of single values")
            if choices and node.value not in choices:
                raise self._error(node, key, f"cannot hold `{node.value}`", hint=suggestion(str(node.value), choices))
            found.append(str(node.value))
        return tuple(found)

    def mapping(self, key: str) -> Mapping:
        """A mapping below this one, empty where the key is absent."""
        node = self.entries.get(key)
        return Mapping(self.source, self._at(key), self.line, {}) if node is None else self._mapping(node, key)

    def mappings(self, key: str) -> tuple[Mapping, ...]:
        """A list of mappings, () where the key is absent."""
        return tuple(self._mapping(node, f"{key}[{index}]") for index, node in enumerate(self._items(key)))

    def fail(self, key: str, problem: str, *, hint: str = "") -> ConfigError:
        """The error that says what is wrong with a key of this mapping."""
        return self._error(self.entries.get(key), key, problem, hint=hint)

    def _node(self, key: str, default: object) -> Node | None:
        node = self.entries.get(key)
        if node is None and default is _REQUIRED:
            raise self._error(None, key, "is missing")
        return node

    def _items(self, key: str) -> Sequence[Node]:
        from yaml import SequenceNode

        node = self.entries.get(key)
        if node is None:
            return ()
        if not isinstance(node, SequenceNode):
            raise self._error(node, key, "must be a list")
        return list(node.value)

    def _mapping(self, node: Node, key: str) -> Mapping:
        from yaml import MappingNode

        if not isinstance(node, MappingNode):
            raise self._error(node, key, "must be a mapping")
        return mapping(node, source=self.source, path=self._at(key))

    def _at(self, key: str) -> str:
        return f"{self.path}.{key}" if self.path else key

    def _error(self, node: Node | None, key: str, problem: str, *, hint: str = "") -> ConfigError:
        line = self.line if node is None else node.start_mark.line + 1
        return ConfigError(f"{self.source}, line {line}: `{self._at(key)}` {problem}.", hint=hint)


def mapping(node: MappingNode, *, source: str, path: str) -> Mapping:
    """A mapping node with its keys as text. Raises ConfigError for a key that stands there twice."""
    found = Mapping(source, path, node.start_mark.line + 1, {})
    for key, value in node.value:
        if str(key.value) in found.entries:
            raise ConfigError(f"{source}, line {key.start_mark.line + 1}: `{found._at(str(key.value))}` stands there twice.")  # noqa: SLF001 - its own class
        found.entries[str(key.value)] = value
    return found


def parse(text: str, *, source: str) -> Mapping:
    """The mapping a YAML text holds. Raises ConfigError when it is no YAML or no mapping."""
    import yaml

    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as exc:
        mark = getattr(exc, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise ConfigError(f"{source}{where} is not readable as YAML: {getattr(exc, 'problem', None) or exc}.") from exc
    if not isinstance(node, yaml.MappingNode):
        raise ConfigError(f"{source} must hold a mapping with `metadata` and `steps`.")
    return mapping(node, source=source, path="")
