"""Invariants of triggers, windows and selections."""

import math
import re

from hypothesis import given
from hypothesis import strategies as st

from sage_obs.conventions import REQUESTS
from sage_obs.slo import promql
from sage_obs.slo.names import metrics_in
from sage_obs.slo.signals import Selector
from sage_obs.slo.triggers import TRIGGERS, Measurement, Trigger, Verdict
from sage_obs.slo.windows import PROFILES, Windows, duration

triggers = st.sampled_from(TRIGGERS)
numbers = st.one_of(st.none(), st.floats())
finite = st.floats(min_value=0, max_value=1e9)
words = st.text(alphabet="ab.|*+()[]{}^$\\\"'-/ ", min_size=1, max_size=6)
UNITS = {"d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1000, "ms": 1}


@given(triggers, numbers, numbers)
def test_missing_or_scarce_data_is_unknown(trigger: Trigger, value: float | None, samples: float | None) -> None:
    """A verdict other than unknown rests on two finite numbers and enough samples, and only then there is one."""
    known = value is not None and samples is not None and math.isfinite(value) and math.isfinite(samples) and samples >= trigger.min_samples
    assert (trigger.judge(Measurement(value, samples)) is not Verdict.UNKNOWN) is known


@given(triggers, finite, finite, finite)
def test_worse_is_never_judged_better(trigger: Trigger, one: float, other: float, samples: float) -> None:
    """With the same samples, a larger value fails wherever a smaller one does."""
    better, worse = sorted((one, other))
    if trigger.judge(Measurement(better, samples)) is Verdict.FAIL:
        assert trigger.judge(Measurement(worse, samples)) is Verdict.FAIL


@given(triggers, finite, finite, finite)
def test_more_samples_never_change_a_verdict(trigger: Trigger, value: float, one: float, other: float) -> None:
    """They only make one possible."""
    fewer, more = sorted((one, other))
    verdict = trigger.judge(Measurement(value, fewer))
    assert verdict in {Verdict.UNKNOWN, trigger.judge(Measurement(value, more))}


@given(triggers)
def test_the_threshold_itself_passes(trigger: Trigger) -> None:
    """A trigger fires over its threshold, not at it."""
    assert trigger.judge(Measurement(trigger.threshold, trigger.min_samples)) is Verdict.PASS
    assert trigger.judge(Measurement(math.nextafter(trigger.threshold, math.inf), trigger.min_samples)) is Verdict.FAIL


@given(st.integers(min_value=1, max_value=10**12))
def test_a_duration_is_exact_and_as_prometheus_writes_it(milliseconds: int) -> None:
    """One number and one unit, which together are the milliseconds that went in."""
    match = re.fullmatch(r"(\d+)(ms|s|m|h|d)", duration(milliseconds / 1000))
    assert match is not None
    assert int(match[1]) * UNITS[match[2]] == milliseconds


@given(st.sampled_from(list(PROFILES.values())), finite)
def test_a_hold_time_is_never_under_one_evaluation(windows: Windows, seconds: float) -> None:
    """However short the windows are."""
    assert windows.hold(seconds) >= windows.evaluation


@given(st.lists(words, min_size=2, max_size=4, unique=True), words, st.booleans())
def test_a_selector_and_its_promql_accept_the_same(values: list[str], value: str, negate: bool) -> None:  # noqa: FBT001 - drawn
    """The anchored alternatives in the text match a label value exactly when the selector takes it."""
    labels = (("outcome", tuple(values)),)
    selector = Selector(REQUESTS, exclude=labels) if negate else Selector(REQUESTS, include=labels)
    text = promql.select(selector)
    pattern = text[text.index('"') + 1 : text.rindex('"')].replace('\\"', '"').replace("\\\\", "\\")
    for candidate in (*values, value):
        assert selector.accepts({"outcome": candidate}) is ((re.fullmatch(pattern, candidate) is not None) is not negate)


@given(words)
def test_nothing_in_a_string_is_taken_for_a_series(text: str) -> None:
    """Whatever a label value holds, only the metric is read."""
    assert metrics_in(f"sum(rate(m{{a={promql.quote(text)}}}[5m])) by (b)") == {"m"}
