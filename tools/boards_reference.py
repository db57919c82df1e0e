"""Write docs/reference/boards.md from the boards: `python tools/boards_reference.py`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sage_obs.dashboards.lint.house import HOUSE
from sage_obs.dashboards.lint.rules import RULES
from sage_obs.dashboards.render import boards
from sage_obs.render import MARK

PAGE = Path(__file__).parents[1] / "docs/reference/boards.md"


def render() -> str:
    """The page."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield "# Boards"
    yield ""
    yield "Rendered from `sage_obs/dashboards/` by `make generate`; do not edit. [How to use them](../how-to/use-the-boards.md)."
    yield ""
    yield "Every board can be narrowed to jobs and instances, has a mark where a release started and where an alert of severity P1 fired,"
    yield "and links to the other boards with the same time and choice, and to the runbooks. The pictures are those of"
    yield "`sage-obs dashboards preview`."
    for board in boards():
        yield from _board(board)
    yield from _rules()


def _board(board: dict[str, Any]) -> Iterator[str]:
    uid = board["uid"]
    own = [one["name"] for one in board["templating"]["list"] if one["type"] == "query" and one["name"] not in {"job", "instance"}]
    yield from ("", f"## {board['title']}", "", f"`{uid}`. {board['description'].partition(MARK)[0].strip()}")
    if own:
        yield f"It can also be narrowed by {', '.join(f'`{name}`' for name in own)}."
    yield from ("", f"![{board['title']}](../boards/{uid}.webp)", "", "| panel | what it shows | unit |", "|---|---|---|")
    for panel in board["panels"]:
        if panel["type"] != "row":
            unit = panel.get("fieldConfig", {}).get("defaults", {}).get("unit", "")
            yield f"| {panel['title']} | {panel['description']} | {_unit(unit)} |"


def _unit(unit: str) -> str:
    words = {
        "percentunit": "ratio",
        "s": "seconds",
        "h": "hours",
        "reqps": "per second",
        "currencyUSD": "US dollars",
        "Bps": "bytes a second",
    }
    return words.get(unit, "times" if unit.startswith("suffix:x") else "" if unit in {"short", "string"} else unit)


def _rules() -> Iterator[str]:
    yield from ("", "## Rules of `sage-obs dashboards lint`", "", "| rule | what it asks for |", "|---|---|")
    for rule in RULES:
        yield f"| `{rule.name}` | {_first_line(rule.check)} |"
    yield from ("", "Our own boards are held to these too:", "", "| rule | what it asks for |", "|---|---|")
    for rule in HOUSE:
        yield f"| `{rule.name}` | {_first_line(rule.check)} |"


def _first_line(check: Any) -> str:
    return str(check.__doc__).strip().splitlines()[0]


if __name__ == "__main__":
    PAGE.write_text(render())
