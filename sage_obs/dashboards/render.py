"""Boards as the JSON that Grafana provisions from files. The same code gives the same bytes."""

from __future__ import annotations

import json
from typing import Any


def render() -> dict[str, str]:
    """Every file of `sage-obs dashboards export`: relative name → text."""
    return {f"{board['uid']}.json": json.dumps(board, indent=2, sort_keys=True, ensure_ascii=False) + "\n" for board in boards()}


def boards() -> tuple[dict[str, Any], ...]:
    """Every board as Grafana's dashboard model, by uid."""
    from sage_obs.dashboards import fleet, grafana

    return tuple(grafana.prune(make()) for make in (fleet.board,))
