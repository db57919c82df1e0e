import copy
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sage_obs.conventions import BOARD_FLEET
from sage_obs.dashboards.lint import lint
from sage_obs.dashboards.queries import Query, queries, substitute
from sage_obs.dashboards.render import boards, render
from sage_obs.render import MARK, check
from sage_obs.slo.names import known_names, metrics_in
from sage_obs.slo.triggers import TRIGGERS, Trigger

ARTEFACTS = Path(__file__).parents[3] / "dashboards"
Board = dict[str, Any]


def fleet() -> Board:
    """A copy of the fleet board that a test may break."""
    [board] = boards()
    return copy.deepcopy(board)


def panel(board: Board, title: str) -> dict[str, Any]:
    """The panel of this title."""
    found: dict[str, Any] = next(one for one in board["panels"] if one["title"] == title)
    return found


def leaves(data: Any, path: str = "") -> list[tuple[str, Any]]:
    """Every value with its path."""
    if isinstance(data, dict):
        return [leaf for key, value in data.items() for leaf in leaves(value, f"{path}/{key}")] or [(path, data)]
    if isinstance(data, list):
        return [leaf for value in data for leaf in leaves(value, path)] or [(path, data)]
    return [(path, data)]


def test_the_board_is_for_file_provisioning() -> None:
    """The classic model of schema 39 with a stable uid, not editable, without inputs or a fixed data source."""
    board = fleet()
    assert (board["uid"], board["schemaVersion"], board["editable"]) == (BOARD_FLEET, 39, False)
    assert MARK in board["description"]
    assert {value for path, value in leaves(board) if path.endswith("datasource/uid")} == {"${prometheus_datasource}"}
    assert "__inputs" not in json.dumps(board)
    assert "id" not in board


def test_nothing_of_an_older_grafana_is_written() -> None:
    """No empty fields but those that a panel needs, no Angular panel, no fixed number of points; a first threshold is null."""
    board = fleet()
    for path, value in leaves(board):
        assert value is not None or path.endswith("thresholds/steps/value"), path
        assert value not in ("", []) or path.rsplit("/", 1)[1] in {"overrides", "panels", "options"}, path
    keys = {key for one in board["panels"] for part in (one, *one.get("targets", ())) for key in part}
    assert not keys & {"maxDataPoints", "span", "error", "editable", "height", "yaxes", "styles", "intervalFactor", "step"}
    assert {one["type"] for one in board["panels"]} == {"row", "stat", "timeseries", "heatmap", "state-timeline", "table", "alertlist"}


@pytest.mark.parametrize("one", TRIGGERS, ids=lambda one: one.slug)
def test_each_trigger_has_a_panel_with_its_threshold(one: Trigger) -> None:
    """The line on the graph is the number in the alert."""
    shown = panel(fleet(), one.title)
    assert one.sentence in shown["description"]
    assert shown["fieldConfig"]["defaults"]["thresholds"]["steps"][-1] == {"color": "red", "value": one.threshold}
    assert shown["fieldConfig"]["defaults"]["custom"]["thresholdsStyle"] == {"mode": "dashed"}


def test_all_jobs_and_instances_are_chosen_at_first() -> None:
    """The choice "All" is written as Grafana writes it, and matches anything but nothing."""
    variables = {one["name"]: one for one in fleet()["templating"]["list"]}
    assert list(variables) == ["prometheus_datasource", "job", "instance"]
    for name in ("job", "instance"):
        assert (variables[name]["current"]["value"], variables[name]["allValue"]) == (["$__all"], ".+")


def test_rendering_is_deterministic_and_sorted() -> None:
    """The same bytes twice, keys in order."""
    assert render() == render()
    for text in render().values():
        data = json.loads(text)
        assert list(data) == sorted(data)


def test_the_committed_boards_are_what_is_rendered_now() -> None:
    """Nobody edited them, and nobody forgot to render them again."""
    check(ARTEFACTS, render(), again="sage-obs dashboards export --force")


def test_queries_can_be_sent_as_they_are() -> None:
    """Every query of panels, variables and annotations reads known series and has no Grafana variable left."""
    found = queries(fleet())
    assert {query.panel for query in found} >= {"variable job", "variable instance", "annotation Releases", "Requests", "Health"}
    assert all("$" not in query.expr for query in found)
    assert all(metrics_in(query.expr) <= known_names() for query in found)


def test_queries_take_values_for_variables() -> None:
    """Given values win over those that stand for "All"."""
    found = queries(fleet(), variables={"job": "a|b", "__rate_interval": "7s"})
    requests = next(query for query in found if query.panel == "Requests")
    assert requests == Query("Requests", "A", 'sum (rate(sage_agent_requests_total{job=~"a|b", instance=~".+"}[7s]))')


def test_every_way_of_writing_a_variable_is_replaced() -> None:
    """Bare, in braces, with a format; one without a value is an error, not an empty query."""
    assert substitute("$a ${a} ${a:regex} $ab", {"a": "1", "ab": "2"}) == "1 1 1 2"
    with pytest.raises(KeyError):
        substitute("$unknown", {})


def test_the_board_has_no_findings() -> None:
    """What ships passes its own lint."""
    assert lint(fleet()) == ()


def change_expr(title: str, old: str, new: str) -> Callable[[Board], None]:
    """Break a panel's first query."""

    def change(board: Board) -> None:
        target = panel(board, title)["targets"][0]
        assert old in target["expr"]
        target["expr"] = target["expr"].replace(old, new)

    return change


DEFECTS: dict[str, tuple[Callable[[Board], Any], str]] = {
    "uid": (lambda board: board.update(uid="fleet"), "fleet: has a uid"),
    "editable": (lambda board: board.update(editable=True), "can be edited"),
    "schema": (lambda board: board.update(schemaVersion=42), "not of schema 39"),
    "description": (lambda board: panel(board, "Memory").pop("description"), "'Memory': has no description"),
    "unit": (lambda board: panel(board, "Memory")["fieldConfig"]["defaults"].pop("unit"), "'Memory': has no unit"),
    "thresholds": (lambda board: panel(board, "Memory")["fieldConfig"]["defaults"].pop("thresholds"), "'Memory': has no thresholds"),
    "title": (lambda board: panel(board, "Memory").update(title="Tokens"), "'Tokens': has a title that 2"),
    "id": (lambda board: panel(board, "Memory").update(id=101), "2 panels with the id 101"),
    "overlap": (lambda board: panel(board, "Memory")["gridPos"].update(x=0), "lies on"),
    "too wide": (lambda board: panel(board, "Descriptors")["gridPos"].update(w=9), "reaches beyond column 24"),
    "no query": (lambda board: panel(board, "Memory").pop("targets"), "'Memory': has no query"),
    "data source": (lambda board: panel(board, "Memory")["targets"][0].update(datasource={"uid": "x"}), "a data source of its own"),
    "series": (change_expr("Memory", "resident", "residual"), "reads process_residual_memory_bytes"),
    "job": (change_expr("Memory", 'job=~"$job", ', ""), "ignores the chosen job"),
    "instance": (change_expr("Memory", ', instance=~"$instance"', ""), "ignores the chosen instance"),
    "recorded instance": (change_expr("Error rate", '"$job"', '"$job", instance=~"$instance"'), "selects an instance of"),
    "window": (change_expr("Requests", "$__rate_interval", "5m"), "has the fixed window 5m"),
    "exemplar": (lambda board: panel(board, "Memory")["targets"][0].update(exemplar=True), "'Memory': asks for exemplars"),
    "no exemplar": (lambda board: panel(board, "Request duration")["targets"][0].update(exemplar=False), "does not ask for exemplars"),
}


@pytest.mark.parametrize(("break_it", "message"), DEFECTS.values(), ids=list(DEFECTS))
def test_a_defect_is_found(break_it: Callable[[Board], Any], message: str) -> None:
    """Each rule about boards finds what it is there for, and names the panel."""
    board = fleet()
    break_it(board)
    assert any(message in str(finding) for finding in lint(board))


def test_grafanalib_is_loaded_only_to_render() -> None:
    """Help, lint rules and queries do without it."""
    script = (
        "import sys, sage_obs.cli.dashboards, sage_obs.dashboards.lint, sage_obs.dashboards.queries, sage_obs.dashboards.render as r\n"
        "assert 'grafanalib' not in sys.modules\nr.render()\nassert 'grafanalib' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
