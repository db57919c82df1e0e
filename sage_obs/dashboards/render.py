"""Boards as the JSON that Grafana provisions from files. The same code gives the same bytes."""

from __future__ import annotations

import json
from typing import Any, Final

NAMES: Final = ("fleet", "agent", "llm", "slo", "runtime", "profiling", "rollout", "incident")
"""The modules of `sage_obs.dashboards.boards`, in the order of lists."""


def render() -> dict[str, str]:
    """Every file of `sage-obs dashboards export`: relative name → text."""
    return {f"{board['uid']}.json": text(board) for board in boards()}


def text(board: dict[str, Any]) -> str:
    """A board as a file has it."""
    return json.dumps(board, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def boards() -> tuple[dict[str, Any], ...]:
    """Every board as Grafana's dashboard model."""
    import importlib

    from sage_obs.dashboards import grafana

    modules = (importlib.import_module(f"sage_obs.dashboards.boards.{name}") for name in NAMES)
    return tuple(grafana.prune(module.board()) for module in modules)
