"""Every query of every board, asked of a real Prometheus that looks at a real fleet: two releases, faults, and a day before."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterator
from typing import Any, Final

import pytest

from sage_obs.conventions import MEMORY_LIMIT
from sage_obs.dashboards.queries import VARIABLES as QUERY_VARIABLES
from sage_obs.dashboards.queries import Query, queries, substitute
from sage_obs.dashboards.render import boards
from sage_obs.profiling import fetch
from tests.support.fleet import NEW, OLD, Fleet, running_fleet

pytestmark = [pytest.mark.system, pytest.mark.timeout(240)]
VARIABLES: Final = {"__rate_interval": "20s", "__range": "1m"}
QUERIES: Final = {
    f"{board['uid']}: {one.panel} {one.ref}".strip(): one for board in boards() for one in queries(board, variables=VARIABLES)
}
UNITS: Final = {
    f"{board['uid']}: {panel['title']}": panel["fieldConfig"]["defaults"].get("unit", "") for board in boards() for panel in board["panels"]
    if panel["type"] in {"stat", "timeseries"}
}  # fmt: skip
MAY_BE_NEGATIVE: Final = {"Error budget left", "Error budget", "Growth of memory"}
"""A budget that is overspent, and memory that is given back."""
HAPPENED: Final = {
    "sage-fleet: Errors by type A",
    "sage-fleet: Firing alerts A",
    "sage-agent: Cached answers A",
    "sage-agent: Failed tool calls A",
    "sage-llm: Cached input A",
    "sage-llm: Cost against yesterday A",
    "sage-llm: Fallbacks A",
    "sage-llm: Reasoning A",
    "sage-runtime: Wait in the queue A",
    "sage-rollout: New releases A",
    "sage-rollout: Traffic on new releases A",
    "sage-incident: Requests hurt A",
}
"""What the traffic and the faults of the fleet must show."""
NOT_ALL: Final = {"sage-fleet: Failed requests A", "sage-llm: Failed calls A", "sage-agent: Failed tool calls A"}
"""Shares of what mostly or half of the time goes well."""


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """One fleet for all questions."""
    with running_fleet(tmp_path_factory.mktemp("fleet")) as running:
        yield running


def defect(fleet: Fleet, name: str, query: Query) -> str:
    """What is wrong with the answer to a query: "" where series come back whose values can be."""
    values = [float(row["value"][1]) for row in fleet.prometheus.query(query.expr)]
    share = UNITS.get(name.rpartition(" ")[0]) == "percentunit"
    checks = {
        "no series": not values,
        "not finite": not all(map(math.isfinite, values)),
        "negative": query.panel not in MAY_BE_NEGATIVE and min(values, default=0) < 0,
        "a share over 1": share and max(values, default=0) > 1 + 1e-9,
        "nothing happened": name in HAPPENED and max(values, default=0) <= 0,
        "all of it": name in NOT_ALL and max(values, default=0) >= 1,
    }
    return "".join(f"{what}: {values}" for what, wrong in checks.items() if wrong)


@pytest.mark.parametrize("name", QUERIES)
def test_a_query_finds_what_it_is_for(fleet: Fleet, name: str) -> None:
    """Each panel, variable and annotation has series with values that can be; only a memory limit may be missing, where there is none."""
    query = QUERIES[name]
    if MEMORY_LIMIT.name in query.expr and not fleet.prometheus.query(MEMORY_LIMIT.name):
        assert fleet.shop.value(MEMORY_LIMIT) == 0
        return
    assert defect(fleet, name, query) == ""


def first(panel: str) -> Query:
    """A panel's first query."""
    return next(one for name, one in QUERIES.items() if name.startswith(panel) and one.ref == "A")


def latest(fleet: Fleet, panel: str) -> dict[str, float]:
    """The values of a panel's first query now, by version or agent where it has any."""
    rows: list[dict[str, Any]] = fleet.prometheus.query(first(panel).expr)
    return {row["metric"].get("version", row["metric"].get("agent_id", "")): float(row["value"][1]) for row in rows}


def test_numbers_are_what_was_done(fleet: Fleet) -> None:
    """The failing release is blamed and the other is not; tools fail half the time; half of the input was cached."""
    errors = latest(fleet, "sage-rollout: Error rate")
    assert errors[OLD] == 0
    assert 0.05 < errors[NEW] < 0.5
    assert latest(fleet, "sage-rollout: Instances") == {OLD: 2, NEW: 1}
    assert latest(fleet, "sage-agent: Failed tool calls")[""] == pytest.approx(0.5, abs=0.15)
    failing = latest(fleet, "sage-incident: Users hurt by agent")
    assert failing[f"agent-{NEW}"] > 0.05
    assert failing[f"agent-{OLD}"] == failing["shop"] == 0
    assert latest(fleet, "sage-fleet: Requests by agent").keys() == {f"agent-{OLD}", f"agent-{NEW}", "shop"}


@pytest.mark.parametrize(
    ("panel", "old", "new"),
    [
        ("sage-fleet: Requests A", "sage_agent_requests_total", "sage_agent_request_total"),
        ("sage-fleet: Requests A", "job=~", "service=~"),
        ("sage-rollout: Requests A", "on (job, instance)", "on (job, pod)"),
        ("sage-runtime: Event-loop lag A", "by (le, instance)", "by (instance)"),
        ("sage-llm: Failed calls A", 'outcome!="success"', 'result!="success"'),
    ],
    ids=["typo", "label that is none", "label that does not match", "quantile without buckets", "wrong outcome label"],
)
def test_what_would_make_a_panel_useless_is_noticed(fleet: Fleet, panel: str, old: str, new: str) -> None:
    """A typo, a mismatch of labels and a lost label each change the answer into a defect, an error, or another number."""
    query = QUERIES[panel]
    broken = Query(query.panel, query.ref, query.expr.replace(old, new))
    assert broken.expr != query.expr
    try:
        noticed = defect(fleet, panel, broken)
    except AssertionError as exc:
        noticed = str(exc)
    assert noticed


def targets(kind: str) -> list[dict[str, Any]]:
    """The queries of a data source in the boards."""
    every = (target for board in boards() for panel in board["panels"] for target in panel.get("targets", ()))
    return [target for target in every if target["datasource"]["type"] == kind]


def test_the_diamonds_are_traces(fleet: Fleet) -> None:
    """Every graph that asks for exemplars gets some, each with the id of a trace."""
    asked = {one["expr"] for one in targets("prometheus") if one["exemplar"]}
    assert len(asked) >= 3
    values = {**QUERY_VARIABLES, **VARIABLES}
    for expr in asked:
        form = {"query": substitute(expr, values), "start": time.time() - 120, "end": time.time()}
        found = fleet.prometheus.client.post(f"{fleet.prometheus.url}/api/v1/query_exemplars", data=form).json()["data"]
        traces = [exemplar["labels"]["trace_id"] for series in found for exemplar in series["exemplars"]]
        assert traces, expr
        assert all(re.fullmatch(r"[0-9a-f]{32}", one) for one in traces)


def test_log_lines_have_what_the_boards_filter_by(fleet: Fleet) -> None:
    """The keys and levels in the queries of log lines are those of the agents' lines, failures among them."""
    filters = [re.findall(r'(\w+)=~?"([^"]+)"', one["expr"].partition("| json")[2]) for one in targets("loki")]
    lines = [line for agent in fleet.agents for line in agent.lines()]
    assert all(line["level"] and line["agent_id"] for line in lines)
    for found in filters:
        assert dict(found).keys() <= {"agent_id", "level", "outcome"}
        failed = [line for line in lines if re.fullmatch(dict(found)["outcome"], line.get("outcome", ""))]
        assert {line["version"] for line in failed} == {NEW}
        assert all(line["trace_id"] for line in failed)


def test_flame_graphs_ask_for_profiles_that_are_served(fleet: Fleet) -> None:
    """Sample and period types in the names of profiles are those of what the agent answers."""
    kinds = {one["profileTypeId"].split(":")[0]: one["profileTypeId"] for one in targets("grafana-pyroscope-datasource")}
    served = {"process_cpu": ("cpu", 1), "wall": ("wall", 1), "memory": ("heap", None), "goroutine": ("tasks", None)}
    assert kinds.keys() == served.keys()
    for name, (kind, seconds) in served.items():
        profile = fetch.from_url(fleet.agents[1].profiles_url, kind, seconds=seconds, token="")
        assert profile.period_kind is not None
        names = {f"{name}:{one.type}:{one.unit}:{profile.period_kind.type}:{profile.period_kind.unit}" for one in profile.kinds}
        assert kinds[name] in names
