"""Apply rules to boards; a finding names the board, the panel and the rule, and an exclusion has a reason."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sage_obs.dashboards.lint.house import HOUSE
from sage_obs.dashboards.lint.model import Board
from sage_obs.dashboards.lint.rules import RULES, Rule
from sage_obs.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Finding:
    """A defect of a board; `panel` is "" for the board itself."""

    rule: str
    board: str
    panel: str
    message: str

    def __str__(self) -> str:
        return f"{self.board}{f', panel {self.panel!r}' if self.panel else ''}: {self.message} [{self.rule}]"


@dataclass(frozen=True, slots=True)
class Exclusion:
    """A rule that does not hold, and why: for a board by its uid or title ("" for all), for a panel of it by its title ("" for all)."""

    rule: str
    reason: str
    board: str = ""
    panel: str = ""

    def covers(self, finding: Finding) -> bool:
        """Whether the finding is accepted."""
        return self.rule == finding.rule and self.board in {"", finding.board} and self.panel in {"", finding.panel}


_FIXED: Final = "a burn rate is defined over these windows (SRE workbook, chapter 5), and a budget over its period"
OWN_EXCLUSIONS: Final = (
    *(
        Exclusion("target-rate-interval-rule", _FIXED, "sage-slo", panel)
        for panel in (
            *("Availability", "Error budget left", "Burn rate", "Time to exhaustion", "Fast enough", "Error budget"),
            *("Burn over 1h and 5m", "Burn over 6h and 30m", "Burn over 1d and 2h", "Burn over 3d and 6h"),
        )
    ),
    Exclusion("target-rate-interval-rule", _FIXED, "sage-fleet", "Error budget left"),
    *(
        Exclusion("target-rate-interval-rule", "money is compared and budgeted by the hour and by the day", "sage-llm", panel)
        for panel in ("Cost against yesterday", "Spend against budget")
    ),
    Exclusion("target-rate-interval-rule", "runs of runbooks are rare: a window of seconds shows none", "sage-incident", "Runbook runs"),
    Exclusion("target-job-rule", "the responder is a job of its own, which is not among the agents'", "sage-incident", "Runbook runs"),
    Exclusion("target-instance-rule", "the responder is a job of its own", "sage-incident", "Runbook runs"),
)
"""Where our own boards do not follow the rules."""


def lint(board: Board, *, rules: Sequence[Rule] = (*RULES, *HOUSE), exclusions: Iterable[Exclusion] = ()) -> tuple[Finding, ...]:
    """Every finding that is not excluded, in the order of the rules; our own exclusions hold for our boards wherever they are."""
    excluded = (*OWN_EXCLUSIONS, *exclusions)
    return tuple(found for found in _findings(board, rules) if not any(one.covers(found) for one in excluded))


def unused(boards: Iterable[Board], exclusions: Iterable[Exclusion]) -> tuple[Exclusion, ...]:
    """Exclusions that excuse nothing any more."""
    every = [found for board in boards for found in _findings(board, (*RULES, *HOUSE))]
    return tuple(one for one in exclusions if not any(one.covers(found) for found in every))


def _findings(board: Board, rules: Sequence[Rule]) -> Iterator[Finding]:
    name = board.uid or board.title or "(no uid)"
    return (Finding(rule.name, name, panel, message) for rule in rules for panel, message in dict.fromkeys(rule.check(board)))


def read_exclusions(path: Path) -> tuple[Exclusion, ...]:
    """The exclusions of a `.lint` file as dashboard-linter has it, where each gives its reason. Raises ConfigError."""
    import yaml

    try:
        data = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as exc:
        raise ConfigError(f"Cannot read {path} ({exc}).") from exc
    tree = data.get("exclusions") if isinstance(data, dict) else None
    if not isinstance(tree, dict):
        raise ConfigError(f"{path} has no mapping `exclusions` of rules.", hint="exclusions: {target-job-rule: {reason: …}}")
    return tuple(one for name, body in tree.items() for one in _of_rule(path, str(name), body))


def _of_rule(path: Path, name: str, body: Any) -> Iterator[Exclusion]:
    if name not in {rule.name for rule in RULES}:
        raise ConfigError(f"{path} excludes {name}, which is no rule.", hint=f"Rules: {', '.join(rule.name for rule in RULES)}.")
    own = body if isinstance(body, dict) else {}
    entries = own.get("entries") or [{}]
    if not isinstance(entries, list):
        raise ConfigError(f"{path}: entries of {name} is no list.")
    for entry in entries:
        one = entry if isinstance(entry, dict) else {}
        reason = str(one.get("reason") or own.get("reason") or "").strip()
        if not reason:
            raise ConfigError(f"{path} excludes {name} without a reason.", hint="Say why, with `reason:`.")
        yield Exclusion(name, reason, str(one.get("dashboard") or ""), str(one.get("panel") or ""))
