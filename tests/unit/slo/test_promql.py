import pytest

from sage_obs.conventions import REQUESTS, Metric
from sage_obs.slo import promql
from sage_obs.slo.names import known_names, metrics_in, recorded_names
from sage_obs.slo.signals import Selector
from sage_obs.slo.triggers import CUSTOMER_IMPACT, ERROR_RATE, HEALTH, LATENCY, TRIGGERS, Trigger, trigger
from sage_obs.slo.windows import DRILL, PRODUCTION, PROFILES, Windows


@pytest.mark.parametrize(
    ("include", "exclude", "expected"),
    [
        ((), (), "sage_agent_requests_total"),
        ((("outcome", ("success",)),), (), 'sage_agent_requests_total{outcome="success"}'),
        ((("outcome", ("a", "b")),), (), 'sage_agent_requests_total{outcome=~"a|b"}'),
        ((), (("outcome", ("a",)),), 'sage_agent_requests_total{outcome!="a"}'),
        ((), (("outcome", ("a", "b")),), 'sage_agent_requests_total{outcome!~"a|b"}'),
        ((("x", ("1",)),), (("y", ("2",)),), 'sage_agent_requests_total{x="1", y!="2"}'),
    ],
    ids=["all", "one", "several", "not one", "not several", "both"],
)
def test_a_selection_is_written_as_matchers(
    include: tuple[tuple[str, tuple[str, ...]], ...], exclude: tuple[tuple[str, tuple[str, ...]], ...], expected: str
) -> None:
    """One value is compared, several are alternatives."""
    assert promql.select(Selector(REQUESTS, include, exclude)) == expected


def test_alternatives_mean_what_they_say() -> None:
    """Characters that a regular expression would take for its own are escaped, once for it and once for the string."""
    selector = Selector(REQUESTS, include=(("operation", ("a.b", "c|d", "tasks-send")),))
    assert promql.select(selector) == r'sage_agent_requests_total{operation=~"a\\.b|c\\|d|tasks-send"}'


def test_a_range_follows_the_braces() -> None:
    """Suffix and window stand where PromQL wants them."""
    assert promql.select(Selector(Metric("m", "histogram", "")), suffix="_bucket", window="5m") == "m_bucket[5m]"


def test_strings_are_quoted() -> None:
    """Quotes, backslashes and line ends cannot end a string."""
    assert promql.quote('a"b\\c\nd') == '"a\\"b\\\\c\\nd"'


def test_recorded_names_follow_the_slug() -> None:
    """A trigger's series are named after it."""
    assert promql.recorded(ERROR_RATE, "value") == "job_version:sage_rollback_error_rate:value"


@pytest.mark.parametrize("windows", PROFILES.values(), ids=list(PROFILES))
@pytest.mark.parametrize("one", TRIGGERS, ids=lambda one: one.slug)
def test_expressions_read_known_series_only(one: Trigger, windows: Windows) -> None:
    """Value, samples and condition rest on what is scraped or recorded."""
    for expression in (promql.value(one.signal, windows), promql.samples(one.signal, windows), promql.condition(one)):
        assert metrics_in(expression)
        assert metrics_in(expression) <= known_names()


def test_windows_are_the_profiles() -> None:
    """The same signal is looked at through the windows of its profile."""
    assert "[5m]" in promql.samples(ERROR_RATE.signal, PRODUCTION)
    assert "[10s]" in promql.samples(ERROR_RATE.signal, DRILL)
    assert "[1d] offset 2h" in promql.value(LATENCY.signal, PRODUCTION)


def test_another_source_of_releases_can_be_joined() -> None:
    """Without recorded releases the expression behind them is used, in parentheses."""
    assert "group_left (version) (a and b)" in promql.samples(HEALTH.signal, DRILL, info="a and b")
    assert "max by (job, version) ((a and b) offset 30s)" in promql.release_new(DRILL, info="a and b")


def test_the_condition_is_the_trigger() -> None:
    """Threshold and least samples are in it."""
    text = promql.condition(CUSTOMER_IMPACT)
    assert text == "job_version:sage_rollback_customer_impact:value > 0.1 and job_version:sage_rollback_customer_impact:samples >= 50"


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("up", {"up"}),
        ("rate(a_total[5m])", {"a_total"}),
        ('sum by (job, le) (rate(a_bucket{b="c", d=~"e|f"}[5m])) > 0.5', {"a_bucket"}),
        ("a * on (job, instance) group_left (version) b:c:d", {"a", "b:c:d"}),
        ("max by (job) (a offset 2h) unless on(job) b", {"a", "b"}),
        ('label_replace(a, "b", "c d", "", "") or vector(0)', {"a"}),
        ("a > bool 1e5 or NaN == +Inf", {"a"}),
        ("sum(a) without (b)", {"a"}),
        ("", set()),
    ],
)
def test_the_series_an_expression_reads(expression: str, expected: set[str]) -> None:
    """Functions, labels, strings, durations, numbers and keywords are not series."""
    assert metrics_in(expression) == expected


def test_recorded_series_are_known() -> None:
    """Two for each trigger, what runs, what changed, what is new, the reference; two of models, three of objectives."""
    assert len(recorded_names()) == 2 * len(TRIGGERS) + 4 + 2 + 3
    assert recorded_names() < known_names()


def test_a_trigger_is_found_by_its_slug() -> None:
    """And nothing else is found."""
    assert trigger("latency") is LATENCY
    with pytest.raises(KeyError):
        trigger("nothing")
