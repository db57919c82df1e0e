"""Rules about boards: what each is there for, on our boards and on anybody's."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage_obs.cli import run
from sage_obs.dashboards.lint.model import parse, read
from sage_obs.dashboards.lint.promql import analyse
from sage_obs.dashboards.lint.rules import RULES
from sage_obs.dashboards.lint.run import OWN_EXCLUSIONS, lint, read_exclusions, unused
from sage_obs.dashboards.render import boards
from sage_obs.errors import ConfigError, ExitCode

BOARDS = {board["uid"]: board for board in boards()}
Board = dict[str, Any]


def panel(board: Board, title: str) -> dict[str, Any]:
    """The panel of this title."""
    found: dict[str, Any] = next(one for one in board["panels"] if one["title"] == title and one["type"] != "row")
    return found


def variable(board: Board, name: str) -> dict[str, Any]:
    """The variable of this name."""
    found: dict[str, Any] = next(one for one in board["templating"]["list"] if one["name"] == name)
    return found


def drop_variable(name: str) -> Callable[[Board], None]:
    """Take a variable away."""
    return lambda board: board["templating"]["list"].remove(variable(board, name))


def change_expr(title: str, old: str, new: str) -> Callable[[Board], None]:
    """Break a panel's first query."""

    def change(board: Board) -> None:
        target = panel(board, title)["targets"][0]
        assert old in target["expr"]
        target["expr"] = target["expr"].replace(old, new)

    return change


@pytest.mark.parametrize("uid", BOARDS)
def test_what_ships_has_no_findings(uid: str) -> None:
    """Every board passes every rule, our own included."""
    assert lint(read(BOARDS[uid])) == ()


def test_every_exclusion_of_ours_is_needed_and_explained() -> None:
    """What excuses nothing any more is to be deleted."""
    assert unused((read(board) for board in BOARDS.values()), OWN_EXCLUSIONS) == ()
    assert all(len(one.reason) > 20 for one in OWN_EXCLUSIONS)


RUNTIME, AGENT, LLM, FLEET = "sage-runtime", "sage-agent", "sage-llm", "sage-fleet"
DEFECTS: dict[str, tuple[str, Callable[[Board], Any], str]] = {
    "house-model-rule": (FLEET, lambda board: board.update(uid="fleet"), "fleet: has a uid that does not begin"),
    "house-model-rule tag": (FLEET, lambda board: board.update(tags=[]), "has not the tag"),
    "house-model-rule schema": (FLEET, lambda board: board.update(schemaVersion=42), "not of schema 39"),
    "house-thresholds-rule": (RUNTIME, lambda board: panel(board, "Memory")["fieldConfig"]["defaults"].pop("thresholds"), "no thresholds"),
    "house-series-rule": (RUNTIME, change_expr("Memory", "resident", "residual"), "reads process_residual_memory_bytes"),
    "house-exemplar-rule": (FLEET, lambda board: panel(board, "Request duration")["targets"][0].update(exemplar=False), "does not ask for"),
    "house-reads-rule": (RUNTIME, lambda board: panel(board, "Tasks")["targets"][0].update(expr="vector(1)"), "'Tasks': reads no series"),
    "template-datasource-rule": (AGENT, drop_variable("loki_datasource"), "no variable for the data source of its loki queries"),
    "template-job-rule": (FLEET, drop_variable("job"), "has no variable job"),
    "template-job-rule fixed": (FLEET, lambda board: variable(board, "job").update(datasource={"uid": "x"}), "not asked of the chosen"),
    "template-instance-rule": (FLEET, lambda board: variable(board, "instance").update(multi=False), "not several or all"),
    "template-label-promql-rule": (LLM, lambda board: _ask(board, "model", "label_values(x{, model)"), "model whose query cannot be read"),
    "template-on-time-change-reload-rule": (FLEET, lambda board: variable(board, "job").update(refresh=1), "job that is not asked again"),
    "panel-datasource-rule": (RUNTIME, lambda board: panel(board, "Tasks").update(datasource={"uid": "x"}), "a data source of its own (x)"),
    "panel-title-description-rule": (RUNTIME, lambda board: panel(board, "Tasks").pop("description"), "'Tasks': has no description"),
    "panel-units-rule": (RUNTIME, lambda board: panel(board, "Tasks")["fieldConfig"]["defaults"].pop("unit"), "'Tasks': has no unit"),
    "panel-no-targets-rule": (RUNTIME, lambda board: panel(board, "Tasks").pop("targets"), "'Tasks': has no query"),
    "target-promql-rule": (RUNTIME, change_expr("Tasks", "sum", "sum sum"), "query A that cannot be read"),
    "target-rate-interval-rule": (RUNTIME, change_expr("Processor", "$__rate_interval", "5m"), "a fixed window for process_cpu"),
    "target-job-rule": (RUNTIME, change_expr("Memory", 'job=~"$job", ', ""), "ignores the chosen job for process_resident"),
    "target-instance-rule": (RUNTIME, change_expr("Memory", ', instance=~"$instance"', ""), "ignores the chosen instance"),
    "target-counter-agg-rule": (
        RUNTIME,
        lambda board: panel(board, "Tasks")["targets"][0].update(expr="process_cpu_seconds_total"),
        "itself",
    ),
    "target-logql-rule": (AGENT, change_expr("Log lines", "{", "("), "selects no streams"),
    "target-logql-rule brackets": (AGENT, change_expr("Log lines", "| json", "| json ("), "brackets do not match"),
    "target-logql-auto-rule": (
        AGENT,
        lambda board: panel(board, "Log lines")["targets"][0].update(expr='rate({a="b"}[5m])'),
        "fixed window 5m",
    ),
    "uneditable-dashboard-rule": (FLEET, lambda board: board.update(editable=True), "can be edited"),
    "model-rule": (FLEET, lambda board: board.update(uid=""), "Sage fleet: has no uid"),
    "model-rule inputs": (FLEET, lambda board: board.update(__inputs=[]), "asks for its data sources"),
    "unique-rule": (RUNTIME, lambda board: panel(board, "Memory").update(title="Tasks"), "'Tasks': has a title that 2"),
    "unique-rule id": (RUNTIME, lambda board: panel(board, "Memory").update(id=101), "2 panels with the id 101"),
    "layout-rule": (RUNTIME, lambda board: panel(board, "Memory")["gridPos"].update(x=0), "lies on"),
    "layout-rule width": (RUNTIME, lambda board: panel(board, "Descriptors")["gridPos"].update(w=9), "reaches beyond column 24"),
    "variables-rule": (LLM, drop_variable("model"), "mentions $model in query A"),
    "quantile-rule": (RUNTIME, change_expr("Event-loop lag", "le, instance", "instance"), "a quantile without the label le"),
    "recorded-series-rule": (
        FLEET,
        change_expr("Error rate", '"$job"', '"$job", instance=~"$instance"'),
        "whose name says that it has none",
    ),
    "known-series-rule": (LLM, change_expr("Calls", "sage_llm_api_calls", "sage_llm_api_call"), "reads sage_llm_api_call_total"),
    "exemplar-rule": (RUNTIME, lambda board: panel(board, "Memory")["targets"][0].update(exemplar=True), "'Memory': asks for exemplars"),
}


def _ask(board: Board, name: str, query: str) -> None:
    variable(board, name).update(query=query, definition=query)


@pytest.mark.parametrize("name", DEFECTS)
def test_a_rule_finds_what_it_is_there_for(name: str) -> None:
    """Each names itself, the board and the panel."""
    uid, break_it, message = DEFECTS[name]
    board = copy.deepcopy(BOARDS[uid])
    break_it(board)
    found = [str(finding) for finding in lint(read(board)) if finding.rule == name.partition(" ")[0]]
    assert any(message in one for one in found), found


def test_every_rule_has_a_defect_here() -> None:
    """A rule that is added is shown to bite."""
    assert {rule.name for rule in RULES} <= {name.partition(" ")[0] for name in DEFECTS}


def test_panels_in_collapsed_rows_are_looked_at() -> None:
    """A row that is closed holds its panels."""
    hidden = {"type": "timeseries", "title": "Inner", "targets": [{"refId": "A", "expr": "x"}], "datasource": "fixed"}
    board = read({"uid": "u", "panels": [{"type": "row", "title": "Row", "panels": [hidden]}]})
    assert any(finding.panel == "Inner" for finding in lint(board, rules=RULES))


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["type", "title", "targets", "panels", "expr", "datasource", "uid", "gridPos", "x", "list"]), inner, max_size=4
        )
    ),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from(["uid", "title", "tags", "templating", "annotations", "links", "schemaVersion"]), VALUES), VALUES)
def test_no_file_is_too_odd(board: Board, panels: object) -> None:
    """Whatever stands where, the rules find fault with it and do not break."""
    lint(parse(json.dumps({**board, "panels": [panels]}), where="a file"), rules=RULES)


@given(st.text(max_size=40))
def test_no_expression_is_too_odd(text: str) -> None:
    """What is no PromQL is an error that says so."""
    analyse(text)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"apiVersion": "v2", "spec": {}}', '{"panels": 3}'])
def test_what_is_no_dashboard_is_said_so(text: str) -> None:
    """With the file's name, and no traceback."""
    with pytest.raises(ConfigError, match=r"mine\.json is not"):
        parse(text, where="mine.json")


def broken(folder: Path) -> Path:
    """A file with a board that has one defect, the size of its data source."""
    board = copy.deepcopy(BOARDS[RUNTIME])
    board["uid"] = "mine"
    panel(board, "Tasks").pop("description")
    path = folder / "mine.json"
    path.write_text(json.dumps({"dashboard": board, "meta": {}}))
    return path


def test_files_of_the_users_are_checked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file, or a folder of them, by the rules for anybody; exit code 1 with findings, 0 without, 2 for what cannot be read."""
    path = broken(tmp_path)
    assert run(["dashboards", "lint", str(path)]) == ExitCode.FAILED
    assert capsys.readouterr().out == "mine, panel 'Tasks': has no description [panel-title-description-rule]\n"
    assert run(["dashboards", "lint", "--json", str(tmp_path)]) == ExitCode.FAILED
    assert json.loads(capsys.readouterr().out)["panel"] == "Tasks"
    path.write_text(json.dumps(BOARDS["sage-slo"]))
    assert run(["dashboards", "lint", str(tmp_path)]) == ExitCode.OK
    path.write_text("no")
    assert run(["dashboards", "lint", str(path)]) == ExitCode.USAGE
    assert run(["dashboards", "lint", str(tmp_path / "nowhere.json")]) == ExitCode.USAGE


def test_an_exclusion_is_read_beside_the_file_and_has_a_reason(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As dashboard-linter reads it; one without a reason, or of a rule that is none, is an error."""
    path, exclusions = broken(tmp_path), tmp_path / ".lint"
    exclusions.write_text("exclusions: {panel-title-description-rule: {entries: [{panel: Tasks, reason: it is plain}]}}")
    assert run(["dashboards", "lint", str(path)]) == ExitCode.OK
    exclusions.write_text("exclusions: {panel-title-description-rule: {entries: [{panel: Other, reason: it is plain}]}}")
    assert run(["dashboards", "lint", str(path)]) == ExitCode.FAILED
    exclusions.write_text("exclusions: {panel-title-description-rule: {}}")
    assert run(["dashboards", "lint", str(path)]) == ExitCode.USAGE
    assert "without a reason" in capsys.readouterr().err
    exclusions.write_text("exclusions: {my-rule: {reason: x}}")
    with pytest.raises(ConfigError, match="my-rule, which is no rule"):
        read_exclusions(exclusions)
