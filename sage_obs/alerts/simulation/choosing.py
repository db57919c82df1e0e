"""Only the rules that some alerts rest on: fewer rules are evaluated sooner, and need fewer series."""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Iterable, Sequence
from dataclasses import replace

from sage_obs.alerts.files import FileGroup, name_of
from sage_obs.alerts.simulation.reading import ALERTS, rule_reads
from sage_obs.errors import ConfigError


def chosen(groups: Iterable[FileGroup], patterns: Sequence[str]) -> tuple[FileGroup, ...]:
    """The alerts whose names match one of these patterns (`SageRollback*`) and what is recorded for them; all without a pattern.

    Raises ConfigError for a pattern that no alert matches.
    """
    every = tuple(groups)
    names = {rule.alert for one in every for rule in one.group.alerts}
    for pattern in patterns:
        if not any(fnmatch.fnmatchcase(name, pattern) for name in names):
            raise unknown(pattern, names)
    if not patterns:
        return every
    wanted = _wanted(every, {name for name in names if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)})
    return tuple(found for one in every if (found := _only(one, wanted)).group.rules)


def unknown(name: str, names: Iterable[str]) -> ConfigError:
    """The error for an alert that no rule has, which names those it may be taken for."""
    every = sorted(names)
    near = difflib.get_close_matches(name, every, cutoff=0.4) or every
    return ConfigError(f"No rule has an alert {name}.", hint=f"There are {len(every)}, such as {', '.join(near[:3])}.")


def _wanted(groups: Sequence[FileGroup], alerts: set[str]) -> set[str]:
    """These alerts and every series they rest on, however deep; where a rule reads `ALERTS`, every alert."""
    wanted = set(alerts)
    while True:
        read = {
            name
            for one in groups
            for line, rule in one.rules
            if name_of(rule) in wanted
            for name in (each.metric for each in rule_reads(one, line, rule))
        }
        if read & ALERTS:
            read |= {rule.alert for one in groups for rule in one.group.alerts}
        if read <= wanted:
            return wanted
        wanted |= read


def _only(one: FileGroup, wanted: set[str]) -> FileGroup:
    kept = [(line, rule) for line, rule in one.rules if name_of(rule) in wanted]
    return replace(one, group=replace(one.group, rules=tuple(rule for _, rule in kept)), lines=tuple(line for line, _ in kept))
