"""Rules that somebody else has written: Prometheus's rule files and the operator's PrometheusRule, as values with their lines."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sage_obs.alerts.model import AlertRule, Group, RecordingRule
from sage_obs.alerts.nodes import Node, read

_OPERATOR: Final = "PrometheusRule"
_GROUP_KEYS: Final = ("name", "interval", "query_offset", "limit", "labels", "rules")
_RULE_KEYS: Final = ("record", "alert", "expr", "for", "keep_firing_for", "labels", "annotations")


@dataclass(frozen=True, slots=True)
class FileGroup:
    """A group of a file. `lines` are those of its rules, `limit` how many series or alerts a rule may make, 0 for any number.

    Where `own_interval` is false the group has the one that was given for all.
    """

    file: str
    line: int
    group: Group
    lines: tuple[int, ...]
    limit: int = 0
    own_interval: bool = True

    @property
    def rules(self) -> tuple[tuple[int, RecordingRule | AlertRule], ...]:
        """Its rules, each with its line."""
        return tuple(zip(self.lines, self.group.rules, strict=True))


def name_of(rule: RecordingRule | AlertRule) -> str:
    """What a rule makes."""
    return rule.alert if isinstance(rule, AlertRule) else rule.record


def read_rules(path: Path, *, interval: float) -> tuple[FileGroup, ...]:
    """The groups of a file; one without an interval is evaluated every `interval` seconds.

    Raises ConfigError, with the line, for what is no file of rules: a wrong shape, an unknown key, a rule that makes nothing.
    """
    root = read(path)
    content = root.mapping("a file of rules")
    if (kind := content.get("kind")) is not None and kind.value == _OPERATOR:
        root = content.get("spec", root)
        content = root.mapping("spec")
    if "groups" not in content:
        raise root.wrong("there are no `groups`", hint="A file of rules begins with `groups:`.")
    groups = content["groups"].items("groups")
    if not groups:
        raise content["groups"].wrong("`groups` is empty")
    return tuple(_group(node, interval) for node in groups)


def read_all(paths: Iterable[Path], *, interval: float) -> tuple[FileGroup, ...]:
    """The groups of several files."""
    return tuple(group for path in paths for group in read_rules(path, interval=interval))


def _group(node: Node, interval: float) -> FileGroup:
    node.only(_GROUP_KEYS, "a group")
    content = node.mapping("a group")
    name = _needed(node, "name", "a group").text("the group's name")
    labels = content["labels"].texts("labels") if "labels" in content else {}
    rules = content["rules"].items(f"rules of group {name}") if "rules" in content and content["rules"].value is not None else ()
    every = content["interval"].seconds("interval") if "interval" in content else interval
    if every <= 0:
        raise content["interval"].wrong("interval must be more than 0")
    return FileGroup(
        file=node.file,
        line=node.line,
        group=Group(name, every, tuple(_rule(one, labels) for one in rules)),
        lines=tuple(one.line for one in rules),
        limit=_whole(content["limit"]) if "limit" in content else 0,
        own_interval="interval" in content,
    )


def _rule(node: Node, labels: dict[str, str]) -> RecordingRule | AlertRule:
    node.only(_RULE_KEYS, "a rule")
    content = node.mapping("a rule")
    if ("record" in content) == ("alert" in content):
        raise node.wrong("a rule has either `record` or `alert`")
    expr = _needed(node, "expr", "a rule").text("expr")
    own = {**labels, **(content["labels"].texts("labels") if "labels" in content else {})}
    if "record" in content:
        for name in ("for", "keep_firing_for", "annotations"):
            if name in content:
                raise content[name].wrong(f"a recording rule has no `{name}`")
        return RecordingRule(content["record"].text("record"), expr, own)
    return AlertRule(
        alert=content["alert"].text("alert"),
        expr=expr,
        hold=content["for"].seconds("for") if "for" in content else 0.0,
        keep=content["keep_firing_for"].seconds("keep_firing_for") if "keep_firing_for" in content else 0.0,
        labels=own,
        annotations=content["annotations"].texts("annotations") if "annotations" in content else {},
    )


def _needed(node: Node, name: str, what: str) -> Node:
    found = node.mapping(what).get(name)
    if found is None:
        raise node.wrong(f"{what} needs `{name}`")
    return found


def _whole(node: Node) -> int:
    text = node.text("limit")
    if not text.isdecimal():
        raise node.wrong(f"limit must be a whole number, not {text!r}")
    return int(text)
