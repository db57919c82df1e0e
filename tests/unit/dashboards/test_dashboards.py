import copy
import importlib.util
import json
import re
import subprocess
import sys
import urllib.parse
from pathlib import Path
from typing import Any

import pytest

from sage_obs import conventions
from sage_obs.conventions import AGENT_METRICS, BOARD_FLEET, LLM_RATE_REMAINING
from sage_obs.dashboards.queries import Query, queries, substitute
from sage_obs.dashboards.render import boards, render
from sage_obs.render import MARK, check
from sage_obs.slo.names import known_names, metrics_in
from sage_obs.slo.triggers import TRIGGERS, Trigger

ROOT = Path(__file__).parents[3]
ARTEFACTS = ROOT / "dashboards"
Board = dict[str, Any]


BOARDS = {board["uid"]: board for board in boards()}


def fleet() -> Board:
    """A copy of the fleet board that a test may break."""
    return copy.deepcopy(BOARDS[BOARD_FLEET])


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


def test_there_is_a_board_for_every_uid() -> None:
    """The uids that alerts link to are those of the boards, in the order of the list."""
    assert list(BOARDS) == [value for name, value in vars(conventions).items() if name.startswith("BOARD_")]


@pytest.mark.parametrize("uid", BOARDS)
def test_a_board_is_for_file_provisioning(uid: str) -> None:
    """The classic model of schema 39, not editable, without inputs or a fixed data source or an id of its own."""
    board = BOARDS[uid]
    assert (board["uid"], board["schemaVersion"], board["editable"]) == (uid, 39, False)
    assert MARK in board["description"]
    sources = {value for path, value in leaves(board) if path.endswith("datasource/uid")}
    assert sources <= {f"${{{kind}_datasource}}" for kind in ("prometheus", "loki", "tempo", "pyroscope")}
    assert "__inputs" not in json.dumps(board)
    assert "id" not in board


@pytest.mark.parametrize("uid", BOARDS)
def test_nothing_of_an_older_grafana_is_written(uid: str) -> None:
    """No empty fields but those that a panel needs, no Angular panel, no fixed number of points; a first threshold is null."""
    board = BOARDS[uid]
    empty = {"overrides", "panels", "options", "groupBy", "tags", "calcs"}
    for path, value in leaves(board):
        assert value is not None or path.endswith("steps/value"), path
        assert value not in ("", []) or path.rsplit("/", 1)[1] in empty, path
    keys = {key for one in board["panels"] for part in (one, *one.get("targets", ())) for key in part}
    assert not keys & {"maxDataPoints", "span", "error", "editable", "height", "yaxes", "styles", "intervalFactor", "step"}
    known = {"row", "stat", "timeseries", "heatmap", "state-timeline", "table", "alertlist", "logs", "flamegraph", "text"}
    assert {one["type"] for one in board["panels"]} <= known


@pytest.mark.parametrize("uid", BOARDS)
def test_a_board_leads_on(uid: str) -> None:
    """To the other boards with time and choice, to the runbooks, to releases and incidents as marks; every board link has a board."""
    board = BOARDS[uid]
    boards_link, *pages = board["links"]
    assert (boards_link["tags"], boards_link["keepTime"], boards_link["includeVars"]) == (["sage-obs"], True, True)
    assert [page["url"] for page in pages] == ["${runbooks}/incident.md", "${runbooks}/rollback.md"]
    assert [one["name"] for one in board["annotations"]["list"]] == ["Releases", "Incidents"]
    linked = re.findall(r"/d/([\w-]+)", json.dumps(board))
    assert set(linked) <= set(BOARDS)


def test_a_link_to_traces_is_a_query_of_the_chosen_tempo() -> None:
    """The link of a panel opens Explore with a TraceQL query over the board's time."""
    [link] = panel(fleet(), "Failed requests over time")["links"]
    url = urllib.parse.urlsplit(link["url"])
    panes = json.loads(urllib.parse.parse_qs(url.query)["panes"][0])
    assert (url.path, panes["sage"]["datasource"]) == ("/explore", "${tempo_datasource}")
    assert panes["sage"]["queries"][0]["query"] == "{ status = error }"
    assert panes["sage"]["range"] == {"from": "${__from}", "to": "${__to}"}


def test_every_metric_of_an_agent_is_on_a_board() -> None:
    """What the layer and the agent expose is shown somewhere; what a provider says of its limits nobody reports yet."""
    shown = frozenset().union(*(metrics_in(query.expr) for board in BOARDS.values() for query in queries(board)))
    missing = {metric.name for metric in AGENT_METRICS if not shown.intersection(metric.series)}
    assert missing == {LLM_RATE_REMAINING.name}


@pytest.mark.parametrize("one", TRIGGERS, ids=lambda one: one.slug)
def test_each_trigger_has_a_panel_with_its_threshold(one: Trigger) -> None:
    """The line on the graph is the number in the alert."""
    shown = panel(fleet(), one.title)
    assert one.sentence in shown["description"]
    assert shown["fieldConfig"]["defaults"]["thresholds"]["steps"][-1] == {"color": "red", "value": one.threshold}
    assert shown["fieldConfig"]["defaults"]["custom"]["thresholdsStyle"] == {"mode": "dashed"}


@pytest.mark.parametrize("uid", BOARDS)
def test_all_jobs_and_instances_are_chosen_at_first(uid: str) -> None:
    """The choice "All" is written as Grafana writes it, and matches anything but nothing."""
    variables = {one["name"]: one for one in BOARDS[uid]["templating"]["list"]}
    for name, one in variables.items():
        if one["type"] == "query":
            assert (one["current"]["value"], one["allValue"]) == (["$__all"], ".+"), name
    assert {"prometheus_datasource", "job", "instance", "runbooks"} <= variables.keys()
    queried = {target["datasource"]["uid"].strip("${}") for one in BOARDS[uid]["panels"] for target in one.get("targets", ())}
    assert queried <= variables.keys()


def test_rendering_is_deterministic_and_sorted() -> None:
    """The same bytes twice, keys in order."""
    assert render() == render()
    for name, text in render().items():
        if name.endswith(".json"):
            data = json.loads(text)
            assert list(data) == sorted(data)


def test_the_committed_boards_are_what_is_rendered_now() -> None:
    """Nobody edited them, and nobody forgot to render them again."""
    check(ARTEFACTS, render(), again="sage-obs dashboards export --force")


@pytest.mark.parametrize("uid", BOARDS)
def test_queries_can_be_sent_as_they_are(uid: str) -> None:
    """Every query of panels, variables and annotations reads known series and has no Grafana variable left."""
    found = queries(BOARDS[uid])
    assert {query.panel for query in found} >= {"variable job", "variable instance", "annotation Releases", "annotation Incidents"}
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


def test_grafanalib_is_loaded_only_to_render() -> None:
    """Help, lint rules and queries do without it."""
    script = (
        "import sys, sage_obs.cli.dashboards, sage_obs.dashboards.lint.run, sage_obs.dashboards.queries, sage_obs.dashboards.render as r\n"
        "assert 'grafanalib' not in sys.modules\nr.render()\nassert 'grafanalib' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_the_reference_is_what_is_rendered_now() -> None:
    """The page of boards is rendered from them, and a picture of each is there."""
    spec = importlib.util.spec_from_file_location("boards_reference", ROOT / "tools/boards_reference.py")
    assert spec is not None
    assert spec.loader is not None
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    assert tool.PAGE.read_text() == tool.render()
    assert {path.stem for path in (ROOT / "docs/boards").glob("*.webp")} == set(BOARDS)
