"""Three readers of one definition, over the same live target: recorded rules, raw expressions, a direct scrape."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from sage_obs.alerts.catalogue import groups
from sage_obs.alerts.links import Links
from sage_obs.alerts.render import rules_text
from sage_obs.signals.prometheus import PrometheusSignals
from sage_obs.signals.scrape import ScrapeSignals
from sage_obs.slo.triggers import ERROR_RATE, TRIGGERS, Verdict
from sage_obs.slo.windows import DRILL
from tests.support.prometheus import Target, running_prometheus, serving

RULES = rules_text(groups(DRILL, links=Links()), profile=DRILL.name)


@pytest.mark.parametrize("rules", [RULES, "groups: []"], ids=["recorded", "raw"])
@pytest.mark.parametrize("failed", [0.0, 1 / 3], ids=["healthy", "failing"])
def test_prometheus_and_a_direct_scrape_agree(tmp_path: Path, rules: str, failed: float) -> None:
    """Every trigger gets the same verdict and nearly the same value, with and without the rules."""
    with running_prometheus(tmp_path, DRILL, rules=rules) as prometheus, serving(Target("1.1.0", failed=failed)) as target:
        through = PrometheusSignals(prometheus.url, DRILL, job="sage-agents")
        assert through.measure(ERROR_RATE, version="1.1.0").value is None
        assert through.versions() == ()
        prometheus.scrape(target)
        known = {one.slug: False for one in TRIGGERS}

        def all_known() -> bool:
            for one in TRIGGERS:
                known[one.slug] = one.judge(through.measure(one, version="1.1.0")) is not Verdict.UNKNOWN
            return all(known.values())

        prometheus.wait(all_known, seconds=20, what=f"every trigger is measured: {known}")
        direct = ScrapeSignals(lambda: (target,), replace(DRILL, rate=1.0))
        assert through.versions() == direct.versions() == ("1.1.0",)
        for one in TRIGGERS:
            seen, scraped = through.measure(one, version="1.1.0"), direct.measure(one, version="1.1.0")
            assert seen.value == pytest.approx(scraped.value, rel=0.05, abs=0.001), one.slug
            assert one.judge(seen) is one.judge(scraped), one.slug
        assert (through.facts().requests_per_second or 0) > 0
        assert "1.1.0" in through.snapshot(seconds=20) or rules != RULES
