"""What the commands about boards do before they print."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sage_obs.errors import ConfigError

if TYPE_CHECKING:
    from sage_obs.dashboards.lint.run import Finding


def lint_own() -> tuple[int, list[Finding]]:
    """How many boards ship, and every finding in them."""
    from sage_obs.dashboards.lint.model import read
    from sage_obs.dashboards.lint.run import lint
    from sage_obs.dashboards.render import boards

    every = [read(board) for board in boards()]
    return len(every), [finding for board in every for finding in lint(board)]


def lint_files(paths: Sequence[Path], exclusions: Path | None) -> tuple[int, list[Finding]]:
    """How many boards the files and folders hold, and every finding in them."""
    from sage_obs.dashboards.lint.model import parse
    from sage_obs.dashboards.lint.rules import RULES
    from sage_obs.dashboards.lint.run import Exclusion, lint, read_exclusions

    files = board_files(paths)
    findings: list[Finding] = []
    known: dict[Path, tuple[Exclusion, ...]] = {}
    for path in files:
        accepted = exclusions or path.parent / ".lint"
        if accepted not in known:
            known[accepted] = read_exclusions(accepted) if accepted.exists() else ()
        findings += lint(parse(read_text(path), where=str(path)), rules=RULES, exclusions=known[accepted])
    return len(files), findings


def board_files(paths: Iterable[Path]) -> list[Path]:
    """The files themselves and the `*.json` of the folders, sorted. Raises ConfigError where there are none."""
    found: list[Path] = []
    for path in paths:
        inside = sorted(path.glob("*.json")) if path.is_dir() else [path]
        if not inside:
            raise ConfigError(f"There is no *.json in {path}.")
        found += inside
    return found


def read_text(path: Path) -> str:
    """The text of a file. Raises ConfigError where it cannot be read."""
    try:
        return path.read_text()
    except UnicodeDecodeError as exc:
        raise ConfigError(f"{path} is not UTF-8 text.") from exc
    except OSError as exc:
        raise ConfigError(f"Cannot read {path} ({exc.strerror or exc}).") from exc
