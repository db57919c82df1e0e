"""Every query of every board, sent to a real Prometheus."""

from pathlib import Path

from sage_obs.alerts.catalogue import Links, groups
from sage_obs.alerts.render import rules_text
from sage_obs.conventions import REQUESTS
from sage_obs.dashboards.queries import queries
from sage_obs.dashboards.render import boards
from sage_obs.slo.promql import recorded
from sage_obs.slo.triggers import LATENCY
from sage_obs.slo.windows import DRILL
from tests.support.prometheus import Target, running_prometheus, serving


def test_no_panel_is_empty(tmp_path: Path) -> None:
    """Two releases under traffic give every variable, annotation and panel of every board data that is not NaN."""
    rules = rules_text(groups(DRILL, links=Links()), profile=DRILL.name)
    with (
        running_prometheus(tmp_path, DRILL, rules=rules) as prometheus,
        serving(Target("1.0.0")) as old,
        serving(Target("1.1.0", failed=0.1)) as new,
    ):
        prometheus.scrape(old, new)
        prometheus.wait(lambda: len(prometheus.query(recorded(LATENCY, "value"))) == 2, seconds=30, what="two releases judged")
        every = [query for board in boards() for query in queries(board, variables={"__rate_interval": "10s"})]
        empty = [query for query in every if not [row for row in prometheus.query(query.expr) if row["value"][1] != "NaN"]]
        assert empty == []
        assert len(every) > 30
        assert prometheus.query(every[3].expr.replace(REQUESTS.name, "sage_agent_request_total")) == []
