"""Boards as the files that Grafana reads. The same code gives the same bytes."""

from __future__ import annotations

import copy
import json
from typing import Any, Final

from sage_obs.dashboards.sources import DEFAULT_RUNBOOKS, RUNBOOKS

NAMES: Final = ("fleet", "agent", "llm", "slo", "runtime", "profiling", "rollout", "incident")
"""The modules of `sage_obs.dashboards.boards`, in the order of lists."""


def render(*, runbooks: str = DEFAULT_RUNBOOKS) -> dict[str, str]:
    """Every file of `sage-obs dashboards export`: relative name → text. `runbooks` is the address of the runbook pages."""
    from sage_obs.dashboards.provisioning import files

    return {**{f"{board['uid']}.json": text(board) for board in boards(runbooks=runbooks)}, **files()}


def render_configmaps(*, runbooks: str = DEFAULT_RUNBOOKS, namespace: str = "", folder: str = "Sage") -> dict[str, str]:
    """A ConfigMap for each board, as the sidecar of Grafana's Helm chart finds it: relative name → text."""
    from sage_obs.dashboards.provisioning import configmap

    return {
        f"{board['uid']}.configmap.yaml": configmap(board["uid"], text(board), namespace=namespace, folder=folder)
        for board in boards(runbooks=runbooks)
    }


def text(board: dict[str, Any]) -> str:
    """A board as a file has it."""
    return json.dumps(board, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def boards(*, runbooks: str = DEFAULT_RUNBOOKS) -> tuple[dict[str, Any], ...]:
    """Every board as Grafana's dashboard model."""
    import importlib

    from sage_obs.dashboards import grafana

    modules = (importlib.import_module(f"sage_obs.dashboards.boards.{name}") for name in NAMES)
    return tuple(_leading_to(runbooks, grafana.prune(module.board())) for module in modules)


def _leading_to(runbooks: str, board: dict[str, Any]) -> dict[str, Any]:
    """The same board with links to the runbook pages at this address."""
    if runbooks == DEFAULT_RUNBOOKS:
        return board
    changed = copy.deepcopy(board)
    variable = next(one for one in changed["templating"]["list"] if one["name"] == RUNBOOKS)
    variable.update(query=runbooks, current={"selected": True, "text": runbooks, "value": runbooks})
    return changed
