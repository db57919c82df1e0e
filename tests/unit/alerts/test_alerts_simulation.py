"""What simulations are made of: clocks, batches, scripts, what is read, and how it is told."""

import itertools
import math
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from sage_obs.alerts.files import FileGroup
from sage_obs.alerts.model import AlertRule, Group, RecordingRule
from sage_obs.alerts.simulation.batches import plan
from sage_obs.alerts.simulation.choosing import chosen
from sage_obs.alerts.simulation.clock import shifted
from sage_obs.alerts.simulation.history import notation, span
from sage_obs.alerts.simulation.model import Change, Incident, Spell, State
from sage_obs.alerts.simulation.probe import Sample, as_series
from sage_obs.alerts.simulation.reading import lookback, reads, selectors
from sage_obs.alerts.simulation.run import Simulation
from sage_obs.alerts.simulation.script import load
from sage_obs.alerts.simulation.text import WIDTH, bars, data, row, when
from sage_obs.errors import ConfigError


def group(name: str, interval: float, *rules: RecordingRule | AlertRule) -> FileGroup:
    """A group of a file."""
    return FileGroup("own.yml", 1, Group(name, interval, rules), tuple(range(2, 2 + len(rules))))


def alert(name: str, expr: str, *, hold: float = 0.0, keep: float = 0.0, **labels: str) -> AlertRule:
    """An alert without annotations."""
    return AlertRule(name, expr, hold, keep, labels, {})


@pytest.mark.parametrize(
    ("expr", "expected"),
    [
        ("time() - x > 5", "(time() + 100.0) - x > 5"),
        ("x - time( )", "x - (time() + 100.0)"),
        ("timestamp(max(x)) < 5", "(timestamp(max(x)) + 100.0) < 5"),
        ("timestamp(timestamp(x))", "(timestamp((timestamp(x) + 100.0)) + 100.0)"),
        ("hour() > 8 and day_of_week() < 6", "hour(vector(time() + 100.0)) > 8 and day_of_week(vector(time() + 100.0)) < 6"),
        ("hour(x)", "hour(x)"),
        ("x @ 160 + y @ 1.7e3", "x @ 60.000 + y @ 1600.000"),
        ("x @ end()", "x @ end()"),
        ('x{a="time() @ 5"} # time()', 'x{a="time() @ 5"} # time()'),
        ("x{a='\\'time()'} + `hour()`", "x{a='\\'time()'} + `hour()`"),
        ("up_time() + my:time()", "up_time() + my:time()"),
        ("rate(x[5m] offset 1h)", "rate(x[5m] offset 1h)"),
    ],
)
def test_expressions_are_moved_to_a_clock_that_starts_at_zero(expr: str, expected: str) -> None:
    """The present time gets the beginning added, a fixed one loses it, and what is relative or quoted stays."""
    assert shifted(expr, 100.0) == expected
    assert shifted(expr, 0.0) == expr


def test_what_is_read_is_seen_with_its_reach() -> None:
    """Windows, offsets and subqueries add up; an instant looks back as far as Prometheus does."""
    found = {
        one.selector: one.reach for one in reads('rate(a{x="1"}[5m] offset 1h) + b + max_over_time(rate(c[1m])[1h:1m] offset 1d) + -(d)')
    }
    assert found == {'a{x="1"}': 3900.0, "b": 300.0, "c": 90_060.0, "d": 300.0}
    assert [one.metric for one in reads('{__name__="a", x=~"b.*"}')] == ["a"]


def test_what_rules_make_themselves_is_not_fetched() -> None:
    """Recorded series and ALERTS come out of the rules; how far back an alert looks includes what they are recorded from."""
    rules = group(
        "g", 15, RecordingRule("r", "rate(a[1h])"), alert("A", "avg_over_time(r[1d]) > 1", hold=60, keep=30), alert("B", "ALERTS > 0")
    )
    assert [one.selector for one in selectors([rules])] == ["a"]
    assert lookback([rules]) == 86_400 + 3600 + 90
    assert lookback([group("g", 15, RecordingRule("r", "r + rate(a[1h])"))]) == 300 + 3600


def test_an_expression_that_is_none_is_named() -> None:
    """File, line and rule."""
    with pytest.raises(ConfigError, match=r"own.yml:2: the expression of A is no PromQL"):
        selectors([group("g", 15, alert("A", "sum("))])


def test_only_the_rules_of_the_alerts_that_were_asked_for_are_kept() -> None:
    """What is recorded for them stays, however deep; groups without any of it go."""
    rules = group(
        "g", 15, RecordingRule("a", "x"), RecordingRule("b", "a"), RecordingRule("c", "x"), alert("OneB", "b"), alert("TwoC", "c")
    )
    other = group("h", 15, alert("Other", "x"))
    (kept,) = chosen([rules, other], ["One*"])
    assert [rule.data().get("record", rule.data().get("alert")) for rule in kept.group.rules] == ["a", "b", "OneB"]
    assert kept.lines == (2, 3, 5)
    assert chosen([rules, other], []) == (rules, other)
    watching = group("w", 15, alert("Watching", "ALERTS"))
    assert [one.group.name for one in chosen([rules, other, watching], ["Watching"])] == ["g", "h", "w"]
    with pytest.raises(ConfigError, match="No rule has an alert Onne") as caught:
        chosen([rules, other], ["Onne"])
    assert caught.value.hint == "There are 3, such as OneB, Other."


def test_groups_are_evaluated_after_those_they_read() -> None:
    """Each interval is a batch of its own, and a batch records what later ones read."""
    slow = group("slow", 60, alert("S", "fast:r > 1"))
    fast = group("fast", 15, RecordingRule("fast:r", "first:r"), RecordingRule("fast:unread", "x"))
    first = group("first", 15, RecordingRule("first:r", "x"))
    planned = plan([slow, fast, first])
    assert [(one.interval, [each.group.name for each in one.groups], one.wanted) for one in planned.batches] == [
        (15, ["first", "fast"], frozenset({"fast:r"})),
        (60, ["slow"], frozenset()),
    ]
    assert planned.together == ()


def test_a_chain_over_intervals_is_followed() -> None:
    """Groups of one interval are two batches where a third stands between them."""
    chain = [group("a", 15, RecordingRule("a", "x")), group("b", 60, RecordingRule("b", "a")), group("c", 15, alert("C", "b"))]
    assert [[each.group.name for each in one.groups] for one in plan(reversed(chain)).batches] == [["a"], ["b"], ["c"]]


def test_groups_that_wait_for_each_other_are_evaluated_together() -> None:
    """At the shortest interval, and it is said."""
    planned = plan([group("a", 15, RecordingRule("a", "b")), group("b", 60, RecordingRule("b", "a")), group("c", 60, alert("C", "x"))])
    assert [(one.interval, [each.group.name for each in one.groups]) for one in planned.batches] == [(60, ["c"]), (15, ["a", "b"])]
    assert planned.together == ("a", "b")


def test_what_was_recorded_goes_on_as_series() -> None:
    """Values stand where they were recorded; what is recorded no more is stale from then on."""
    samples = [Sample(at, {"__name__": "r", "job": 'a"b'}, value) for at, value in ((0, "1E+00"), (60, "+Inf"), (240, "2E+00"))]
    (series,) = as_series(samples, interval=60, step=30, seconds=270)
    assert series.name == 'r{job="a\\"b"}'
    assert series.values == "1E+00 _ Inf _ stale _ _ _ 2E+00 _"


@given(st.lists(st.one_of(st.none(), st.sampled_from(["1", "2.5", "NaN", "+Inf", "-Inf", "1e+09", "0"])), max_size=30))
def test_what_is_fetched_is_told_value_by_value(values: list[str | None]) -> None:
    """Written out again, promtool's notation has every value in its place, and one stale mark where a series ends."""
    written: list[str | None] = []
    for one in notation(values).split():
        first, _, times = one.partition("x")
        written += [None if first in {"_", "stale"} else first] * (int(times) + (first != "_") if times else 1)
    assert written == [None if value is None else value.removeprefix("+") for value in values]
    ends = sum(before is not None and after is None for before, after in itertools.pairwise(values))
    assert notation(values).split().count("stale") == ends


def test_a_span_starts_on_the_grid() -> None:
    """So that a later run over the same time has the same evaluations."""
    found = span(1000, 2000, step=15, warmup=100, grid=60)
    assert (found.start, found.points, found.shown) == (900, 74, 1000)
    with pytest.raises(ConfigError, match="--from is not before --to"):
        span(2000, 1000, step=15, warmup=0, grid=15)
    for step in (0, 301, math.nan):
        with pytest.raises(ConfigError, match="--step is"):
            span(1000, 2000, step=step, warmup=0, grid=15)


SCRIPT = """\
scrape: 10s
jobs:
  shop:
    - instance: a:1
      phases:
        - {for: 20s, version: 1.0.0, requests: 7}
        - {for: 10s, failed: 50%}
    - begins: 20s
      phases:
        - {for: 20s, version: 2.0.0, requests: none, probe: none}
series:
  - {series: 'queue{q="x"}', values: "0+1x3"}
"""


def test_a_script_becomes_series(tmp_path: Path) -> None:
    """Rates are a second's, what a phase does not say stays, instances have names, and own series come as they are."""
    (tmp_path / "i.yaml").write_text(SCRIPT)
    incident = load(tmp_path / "i.yaml", scrape=15)
    found = {one.name: one.values for one in incident.series}
    total = 'sage_agent_requests_total{agent_id="agent", instance="a:1", job="shop", outcome="%s"}'
    assert (incident.step, incident.seconds, incident.origin) == (10, 40, 0)
    assert found[total % "success"] == "0+70x1 105+35x0 stale"
    assert found[total % "server_error"] == "0+0x1 35+35x0 stale"
    assert found['up{instance="shop-2:9090", job="shop"}'] == "_x2 1+0x1 stale"
    assert not any("health" in name or "requests" in name for name in found if "shop-2" in name)
    assert found['queue{q="x"}'] == "0+1x3"


def test_another_version_is_another_process_unless_it_is_said_otherwise(tmp_path: Path) -> None:
    """Its counters begin at 0 again, and it says when it has started."""
    text = "jobs: {{a: [{{phases: [{{for: 30s, version: '1', requests: 1}}, {{for: 30s, version: '2'{}}}, {{for: 15s}}]}}]}}"
    for said, started in (("", "30"), (", fresh: false", "0")):
        (tmp_path / "i.yaml").write_text(text.format(said))
        found = {one.name: one.values for one in load(tmp_path / "i.yaml", scrape=15).series}
        (second,) = (values for name, values in found.items() if name.startswith("sage_release") and 'version="2"' in name)
        assert second.startswith(f"_x2 {started}+0x1 {started}+0x0")
        (failed,) = (values for name, values in found.items() if "requests_total" in name and "success" in name)
        assert failed == ("0+15x1 0+15x1 30+15x0 stale" if started == "30" else "0+15x1 30+15x1 60+15x0 stale")


@pytest.mark.parametrize("p95", ["0.6ms", "40ms", "75ms", "100ms", "0.2", "5s"])
def test_every_p95_that_the_histogram_can_hold_can_be_asked_for(p95: str, tmp_path: Path) -> None:
    """Bounds of buckets too, though Prometheus will say a little less."""
    p95 = "0.0006" if p95 == "0.6ms" else p95
    (tmp_path / "i.yaml").write_text(f"jobs: {{a: [{{phases: [{{for: 15s, version: '1', p95: {p95}}}]}}]}}")
    assert any("_bucket" in one.name for one in load(tmp_path / "i.yaml", scrape=15).series)


@pytest.mark.parametrize(
    ("old", "new", "line", "why"),
    [
        ("scrape: 10s", "scrape: soon", 1, "scrape is 'soon', which is no duration"),
        ("scrape: 10s", "scrape: 0s", 1, "scrape must be more than 0"),
        ("scrape: 10s", "scape: 10s", 1, "an incident has no 'scape'"),
        ("jobs:", "ends: 0s\njobs:", 2, "the incident lasts 0 scrapes"),
        ("jobs:", "ends: 100y\njobs:", 2, "not between 1 and"),
        ("  shop:", '  sh"op:', 4, "the job's name has a quotation mark"),
        ("    - begins: 20s\n", "    - instance: a:1\n", 8, "job shop has two instances a:1"),
        ("begins: 20s", "begins: 25s", 8, "begins is 25 s, which is no multiple of the 10 s between two scrapes"),
        ("for: 10s, ", "", 7, "a phase needs `for`"),
        ("for: 10s, ", "for: 0s, ", 7, "a phase lasts at least one scrape"),
        ("version: 1.0.0, ", "", 6, "the first phase of an instance needs `version`"),
        ("failed: 50%", "failed: 150%", 7, "failed is 150%, which is not from 0 to 1"),
        ("failed: 50%", "failed: half", 7, "failed is 'half', which is no number"),
        ("failed: 50%", "failed: nan", 7, "failed is nan, which is not from 0 to 1"),
        ("failed: 50%", "faild: 50%", 7, "a phase has no 'faild'"),
        ("failed: 50%", "p95: 10s", 7, "p95 is 10s, which is not over 0.0005 s and at most 5 s"),
        ("failed: 50%", "up: maybe", 7, "up is 'maybe', neither true nor false"),
        ("probe: none", "probe: green", 10, "probe is 'green', which is none of passing, failing, none"),
        ('queue{q="x"}', "queue{q=x}", 12, "'queue{q=x}' is no series"),
        ("0+1x3", "0+1x3 ten", 12, "'ten' is no value of a series"),
        (', values: "0+1x3"', "", 12, "a series needs `series`"),
        (SCRIPT, "scrape: 10s\n", 1, "there is nothing in this incident"),
        (SCRIPT, "jobs: {a: []}\n", 1, "the incident lasts 0 scrapes"),
        (SCRIPT, "jobs: {a: [{phases: []}]}\n", 1, "`phases` is empty"),
        (SCRIPT, "jobs: {a: [{begins: 5m}]}\n", 1, "instance a-1:9090 needs `phases`"),
    ],
)
def test_what_a_script_cannot_mean_is_refused_with_its_line(old: str, new: str, line: int, why: str, tmp_path: Path) -> None:
    """File and line, and what is wrong there."""
    assert old in SCRIPT
    path = tmp_path / "i.yaml"
    path.write_text(SCRIPT.replace(old, new))
    with pytest.raises(ConfigError) as caught:
        load(path, scrape=15)
    assert caught.value.message.startswith(f"{path}:{line}: ")
    assert why in caught.value.message


def test_the_keys_of_a_script_are_read_as_yaml_reads_them(tmp_path: Path) -> None:
    """A version that looks like a number stays the text that was written."""
    (tmp_path / "i.yaml").write_text(yaml.safe_dump({"jobs": {"a": [{"phases": [{"for": "15s", "version": 1.1}]}]}}))
    assert any('version="1.1"' in one.name for one in load(tmp_path / "i.yaml", scrape=15).series)


def simulation(*, origin: float = 0.0) -> Simulation:
    """An hour in which an alert fires in the second quarter; it is shown from ten minutes on."""
    times = ((900.0, State.PENDING), (1200.0, State.FIRING), (1800.0, State.ENDED))
    changes = tuple(Change(at, "A", {"job": "a", "severity": "P1"}, state) for at, state in times)
    return Simulation(Incident((), 15, 4200, origin, 600), (Spell(changes),))


def test_changes_are_told_with_time_and_severity() -> None:
    """As time since the beginning where the incident never was, in UTC where it was; labels that the rule gives are left out."""
    told = simulation()
    plain = {"A": frozenset({"severity"})}
    assert row(told.spells[0].changes[0], told, plain) == ("+00:15:00", "pending", "P1", "A", "job=a")
    assert when(90_061, 0) == "+1d 01:01:01"
    told = simulation(origin=1_796_025_600.0)
    assert data(told.spells[0].changes[1], told) == {
        "alert": "A",
        "labels": {"job": "a", "severity": "P1"},
        "seconds": 600.0,
        "state": "firing",
        "time": "2026-11-30T08:20:00Z",
    }


def test_a_bar_shows_the_worst_of_each_stretch() -> None:
    """Sixty stretches of a minute each, from where alerts are shown."""
    (bar,) = bars(simulation(), {})
    assert bar.name == "A job=a severity=P1"
    expected = [State.ENDED] * 5 + [State.PENDING] * 5 + [State.FIRING] * 10 + [State.ENDED] * 40
    assert list(bar.states) == expected
    assert len(expected) == WIDTH


def test_a_short_spell_is_seen_in_its_bar() -> None:
    """Within a stretch the worst counts, though it is over when the stretch is."""
    changes = tuple(Change(at, "A", {}, state) for at, state in ((61.0, State.PENDING), (65.0, State.FIRING), (70.0, State.ENDED)))
    (bar,) = bars(Simulation(Incident((), 1, 3600), (Spell(changes),)), {})
    assert bar.states == (State.ENDED, State.FIRING, *[State.ENDED] * 58)
