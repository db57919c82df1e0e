from __future__ import annotations

import inspect
import json
import time
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import pytest

from sage_obs.errors import UnavailableError
from sage_obs.signals.exposition import metrics_url
from sage_obs.signals.scrape import ScrapeSignals
from sage_obs.slo.triggers import CUSTOMER_IMPACT, ERROR_RATE, HEALTH, LATENCY, TRIGGERS, Measurement, Verdict
from sage_obs.slo.windows import DRILL

WINDOWS = replace(DRILL, rate=10.0)


def _page(version: str = "1.0.0", *, good: float = 0, bad: float = 0, started: float = 1.0, ready: float = 1, extra: str = "") -> str:
    """What an agent shows after so many requests, 10 ms each."""
    total = good + bad
    return f"""\
sage_release_timestamp_seconds{{version="{version}"}} {started}
sage_agent_requests_total{{agent_id="a",outcome="success"}} {good}
sage_agent_requests_total{{agent_id="a",outcome="server_error"}} {bad}
sage_agent_requests_total{{agent_id="a",outcome="client_error"}} 5000
sage_agent_experience_total{{agent_id="a",outcome="satisfied"}} {good}
sage_agent_experience_total{{agent_id="a",outcome="frustrated"}} {bad}
sage_agent_errors_total{{agent_id="a",error_type="server_error"}} {bad}
sage_llm_api_calls_total{{provider="scripted",model="m",outcome="success"}} {good}
sage_llm_api_calls_total{{provider="scripted",model="m",outcome="server_error"}} {bad}
sage_llm_errors_total{{provider="scripted",model="m",error_type="server_error"}} {bad}
sage_agent_request_overhead_seconds_bucket{{agent_id="a",le="0.005"}} 0
sage_agent_request_overhead_seconds_bucket{{agent_id="a",le="0.01"}} {total}
sage_agent_request_overhead_seconds_bucket{{agent_id="a",le="+Inf"}} {total}
sage_agent_request_overhead_seconds_count{{agent_id="a"}} {total}
sage_agent_health_status{{agent_id="a",probe="liveness",check="overall"}} 1
sage_agent_health_status{{agent_id="a",probe="readiness",check="overall"}} {ready}
sage_agent_health_status{{agent_id="a",probe="readiness",check="disk"}} 0
{extra}"""


@dataclass
class Fleet:
    """Targets whose answers are scripted: one text, or an error, for each scrape; the last one stays."""

    answers: dict[str, list[str | UnavailableError]]
    time: float = 100.0
    scrapes: dict[str, int] = field(default_factory=dict)

    def fetch(self, target: str) -> str:
        """One scrape."""
        number = self.scrapes.get(target, 0)
        self.scrapes[target] = number + 1
        answer = self.answers[target][min(number, len(self.answers[target]) - 1)]
        if isinstance(answer, UnavailableError):
            raise answer
        return answer

    def sleep(self, seconds: float) -> None:
        """Time passes."""
        self.time += seconds

    def signals(self) -> ScrapeSignals:
        """What is under test."""
        return ScrapeSignals(lambda: tuple(self.answers), WINDOWS, fetch=self.fetch, sleep=self.sleep, clock=lambda: self.time)


def _fleet(*targets: Iterable[str | UnavailableError]) -> Fleet:
    return Fleet({f"target-{number}": list(answers) for number, answers in enumerate(targets)})


GONE = UnavailableError("connection refused")


def test_what_happened_between_two_scrapes_is_what_counts() -> None:
    """Old failures are not new ones; client errors are no requests served."""
    signals = _fleet([_page(good=1000, bad=900), _page(good=1060, bad=940)]).signals()
    assert signals.measure(ERROR_RATE, version="1.0.0") == Measurement(0.4, 100)
    assert signals.measure(CUSTOMER_IMPACT, version="1.0.0") == Measurement(0.4, 100)
    assert signals.versions() == ("1.0.0",)


def test_all_questions_are_answered_from_the_same_two_scrapes() -> None:
    """The window is waited for once, and the name says that there is no Prometheus."""
    here = _fleet([_page(), _page(good=100)])
    signals = here.signals()
    for trigger in TRIGGERS:
        signals.measure(trigger, version="1.0.0")
    signals.facts()
    assert here.scrapes == {"target-0": 2}
    assert here.time == 110.0
    assert "no Prometheus" in signals.name


def test_a_later_question_slides_the_window_on() -> None:
    """It does not wait for the whole window again, and forgets what is older."""
    here = _fleet([_page(), _page(bad=100), _page(bad=100, good=100), _page(bad=100, good=300)])
    signals = here.signals()
    assert signals.measure(ERROR_RATE, version="1.0.0").value == 1.0
    here.sleep(10)
    assert signals.measure(ERROR_RATE, version="1.0.0") == Measurement(0.0, 100)
    here.sleep(5)
    assert signals.measure(ERROR_RATE, version="1.0.0") == Measurement(0.0, 300)


def test_time_is_measured_by_a_clock_that_nobody_sets() -> None:
    """Setting the wall clock back must not make a question take an hour."""
    assert inspect.signature(ScrapeSignals).parameters["clock"].default is time.monotonic


def test_a_clock_that_stands_still_gives_no_rate() -> None:
    """Without time between two scrapes the requests a second are not known."""
    here = _fleet([_page(), _page(good=100)])
    signals = ScrapeSignals(lambda: tuple(here.answers), WINDOWS, fetch=here.fetch, sleep=lambda _: None, clock=lambda: 1.0)
    assert signals.facts().requests_per_second is None


def test_a_restarted_process_counts_from_zero() -> None:
    """Counters that fell, or that belong to another start, are not subtracted."""
    fell = _fleet([_page(good=500), _page(good=60)]).signals()
    assert fell.measure(ERROR_RATE, version="1.0.0").samples == 60
    passed_it = _fleet([_page(good=50), _page(good=60, started=2.0)]).signals()
    assert passed_it.measure(ERROR_RATE, version="1.0.0").samples == 60


def test_a_release_is_not_blamed_for_the_one_it_replaced() -> None:
    """After a switch on the same address only the new release's own requests count, and the old one has none."""
    signals = _fleet([_page("1.0.0", bad=500), _page("1.1.0", good=100, started=2.0)]).signals()
    assert signals.measure(ERROR_RATE, version="1.1.0") == Measurement(0.0, 100)
    assert signals.measure(ERROR_RATE, version="1.0.0") == Measurement(None, 0)
    assert signals.versions() == ("1.1.0",)


def test_no_traffic_is_unknown() -> None:
    """Nothing between the scrapes, or series that are not there, give no value; no verdict is made of it."""
    idle = _fleet([_page(good=10)]).signals()
    assert ERROR_RATE.judge(idle.measure(ERROR_RATE, version="1.0.0")) is Verdict.UNKNOWN
    bare = _fleet(['sage_release_timestamp_seconds{version="1.0.0"} 1\n']).signals()
    for trigger in (ERROR_RATE, LATENCY, CUSTOMER_IMPACT):
        assert trigger.judge(bare.measure(trigger, version="1.0.0")) is Verdict.UNKNOWN
    assert idle.measure(HEALTH, version="9.9.9") == Measurement(None, None)


def test_nan_is_left_out() -> None:
    """A series that says NaN says nothing."""
    signals = _fleet([_page(), _page(good=100, extra='sage_agent_requests_total{agent_id="b",outcome="success"} NaN\n')]).signals()
    assert signals.measure(ERROR_RATE, version="1.0.0") == Measurement(0.0, 100)


def test_latency_is_compared_with_the_objective_where_there_is_no_past() -> None:
    """p95 of 9.75 ms over the 100 ms that count where nothing was observed before."""
    signals = _fleet([_page(), _page(good=100)]).signals()
    measured = signals.measure(LATENCY, version="1.0.0")
    assert measured.value == pytest.approx(0.0975)
    assert measured.samples == 100


def test_health_counts_instances_that_fail_or_are_gone() -> None:
    """One of three not ready, one gone since; a single failing check under a passing probe does not count."""
    signals = _fleet([_page()], [_page(ready=0)], [_page(), GONE]).signals()
    assert signals.measure(HEALTH, version="1.0.0") == Measurement(2 / 3, 3)


def test_an_unreachable_service_is_an_error_not_a_verdict() -> None:
    """With no target answering the first scrape nothing can be told; the target's own reason is given."""
    with pytest.raises(UnavailableError, match="connection refused"):
        _fleet([GONE], [GONE]).signals().versions()
    with pytest.raises(UnavailableError, match="nothing to scrape"):
        _fleet().signals().versions()
    with pytest.raises(UnavailableError, match="does not show metrics"):
        _fleet(["<html>{"]).signals().versions()


def test_it_has_no_past() -> None:
    """Questions about earlier get no answer, and take no time."""
    here = _fleet([_page(bad=100)])
    signals = here.signals()
    assert signals.measure(ERROR_RATE, version="1.0.0", at=50.0) == Measurement(None, None)
    assert signals.versions(at=50.0) == ()
    assert signals.facts(at=50.0).requests_per_second is None
    assert here.scrapes == {}


def test_facts_come_from_the_same_difference() -> None:
    """Traffic a second, failures by kind, and the provider's share."""
    facts = _fleet([_page(), _page(good=60, bad=40)]).signals().facts()
    assert facts.requests_per_second == pytest.approx(10.0)
    assert [(one.error_type, one.share) for one in facts.errors] == [("server_error", 1.0)]
    assert [(one.provider, one.share, one.calls) for one in facts.providers] == [("scripted", 0.4, 100)]


def test_the_snapshot_holds_every_trigger() -> None:
    """As evidence, JSON by release and trigger."""
    kept = json.loads(_fleet([_page(), _page(good=100)]).signals().snapshot(seconds=30))
    assert set(kept["measured"]["1.0.0"]) == {trigger.slug for trigger in TRIGGERS}


@pytest.mark.parametrize("target", ["localhost:9090", "http://localhost:9090", "http://localhost:9090/", "http://localhost:9090/metrics"])
def test_a_target_may_be_named_in_any_way(target: str) -> None:
    """With or without scheme and path."""
    assert metrics_url(target) == "http://localhost:9090/metrics"
