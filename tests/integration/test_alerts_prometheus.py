"""The drill's rules in a real Prometheus, over targets that serve what the test wants."""

from pathlib import Path

from sage_obs.alerts.catalogue import groups
from sage_obs.alerts.links import Links
from sage_obs.alerts.render import rules_text
from sage_obs.conventions import ALERT_ROLLBACK_ERROR_RATE, RECORD_RELEASE_INFO
from sage_obs.slo.windows import DRILL
from tests.support.prometheus import Target, running_prometheus, serving


def test_a_bad_new_release_is_reported_and_a_bad_old_one_is_not(tmp_path: Path) -> None:
    """With both releases failing a third of their requests, the rollback alert fires for the new one only."""
    rules = rules_text(groups(DRILL, links=Links()), profile=DRILL.name)
    firing = f'ALERTS{{alertstate="firing", alertname="{ALERT_ROLLBACK_ERROR_RATE}"}}'
    with (
        running_prometheus(tmp_path, DRILL, rules=rules) as prometheus,
        serving(Target("1.0.0", failed=1 / 3)) as old,
        serving(Target("1.1.0", failed=1 / 3)) as new,
    ):
        prometheus.scrape(old)
        long_known = f"{RECORD_RELEASE_INFO} offset {DRILL.novelty:.0f}s"
        prometheus.wait(lambda: prometheus.query(long_known), seconds=60, what="the old release is long known")
        assert prometheus.query("ALERTS") == []
        prometheus.scrape(old, new)
        prometheus.wait(lambda: prometheus.query(firing), seconds=20, what="the alert fires")
        assert {alert["metric"]["version"] for alert in prometheus.query("ALERTS")} == {"1.1.0"}
        assert {alert["metric"]["alertname"] for alert in prometheus.query("ALERTS")} == {ALERT_ROLLBACK_ERROR_RATE}
