"""What operators say of alerts: objectives, thresholds, windows, receivers, and every way to get it wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from sage_obs.alerts import settings
from sage_obs.alerts.catalogue import KNOWN, groups
from sage_obs.alerts.links import Links
from sage_obs.alerts.lint import lint
from sage_obs.alerts.render import ResponderRoute, render
from sage_obs.alerts.settings import AlertSettings
from sage_obs.cli import run
from sage_obs.conventions import Severity
from sage_obs.errors import ConfigError, ExitCode
from sage_obs.slo.windows import DRILL, PRODUCTION

_COUNTED: dict[str, Any] = {
    "name": "chat-answers",
    "target": 0.995,
    "counter": "shop_answers_total",
    "where": {"path": "/chat"},
    "bad": {"outcome": ["failed", "lost"]},
    "ignore": {"outcome": "gone"},
}
_TIMED: dict[str, Any] = {"name": "checkout-speed", "target": 0.9, "histogram": "shop_checkout_seconds", "under": 0.5}


def _parse(**document: Any) -> AlertSettings:
    return settings.parse(document, where="f.yaml", known=KNOWN)


def test_an_objective_of_ones_own_becomes_three_recorded_series() -> None:
    """Events, bad events and the budget, labelled with its name; the alerts are those of every objective."""
    wanted = _parse(objectives=[_COUNTED, _TIMED])
    [slo] = [group for group in groups(PRODUCTION, links=Links(), settings=wanted) if group.name == "sage-slo"]
    mine = {(rule.record, rule.labels["slo"]): rule.expr for rule in slo.records}
    total = 'sum by (job) (rate(shop_answers_total{path="/chat", outcome!="gone"}[5m]))'
    assert mine["job_slo:sage_slo_events:rate", "chat-answers"] == total
    bad = 'sum by (job) (rate(shop_answers_total{path="/chat", outcome=~"failed|lost"}[5m]))'
    assert mine["job_slo:sage_slo_bad_events:rate", "chat-answers"] == f"{bad} or 0 * {total}"
    assert mine["job_slo:sage_slo_budget:ratio", "chat-answers"] == '0 * job_slo:sage_slo_events:rate{slo="chat-answers"} + 0.005'
    assert 'shop_checkout_seconds_bucket{le="0.5"}' in mine["job_slo:sage_slo_bad_events:rate", "checkout-speed"]
    assert lint(groups(PRODUCTION, links=Links(), settings=wanted), also=wanted.metrics) == ()


def test_an_alert_is_changed_and_another_left_out() -> None:
    """By its name; windows of a drill stay its own."""
    wanted = _parse(
        alerts={"SageErrorRateHigh": {"threshold": 0.03, "hold": "1m", "severity": "P2"}, "SageMixedVersions": {"enabled": False}},
        windows={"rate": "10m"},
    )
    rules = {rule.alert: rule for group in groups(wanted.of(PRODUCTION), links=Links(), settings=wanted) for rule in group.alerts}
    assert "> 0.03" in rules["SageErrorRateHigh"].expr
    assert "[10m]" in rules["SageErrorRateHigh"].expr
    assert (rules["SageErrorRateHigh"].hold, rules["SageErrorRateHigh"].labels["severity"]) == (60.0, Severity.P2.value)
    assert "SageMixedVersions" not in rules
    assert wanted.of(DRILL) is DRILL


@pytest.mark.parametrize(("name", "threshold"), [("SageStorageSlow", 0.33), ("SageTargetsDown", 0.5)])
def test_a_threshold_that_cannot_be_tried_has_its_rule_and_no_test(name: str, threshold: float) -> None:
    """Too close to a bucket's bound, or away from the levels that are tried: the export works all the same."""
    wanted = _parse(alerts={name: {"threshold": threshold}})
    files = render(PRODUCTION, links=Links(), responder=ResponderRoute(), settings=wanted)
    assert any(f"> {threshold:g}" in text for file, text in files.items() if file.startswith("sage-"))
    tried = {test["name"] for file, text in files.items() if file.startswith("tests/sage-") for test in yaml.safe_load(text)["tests"]}
    assert set(KNOWN) - tried == {name}


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ({"objektives": []}, "f.yaml: unknown key `objektives`. Did you mean `objectives`?"),
        ({"objectives": {}}, "f.yaml: objectives: expected a list."),
        ({"objectives": [3]}, "f.yaml: objectives[0]: expected a mapping."),
        ({"objectives": [{**_COUNTED, "name": "Chat!"}]}, "objectives[0].name: expected a name of lower-case letters"),
        ({"objectives": [{**_COUNTED, "target": 1.5}]}, "objectives[0].target: expected a share over 0 and under 1"),
        ({"objectives": [{**_COUNTED, "target": True}]}, "objectives[0].target: expected a number"),
        ({"objectives": [{**_COUNTED, "counter": "a b"}]}, "objectives[0].counter: expected the name of a metric"),
        ({"objectives": [{**_COUNTED, "bad": {}}]}, "objectives[0]: `bad` says which events are bad"),
        ({"objectives": [{**_COUNTED, "bad": "x"}]}, "objectives[0].bad: expected labels with their values"),
        ({"objectives": [{**_COUNTED, "histogram": "x"}]}, "objectives[0]: an objective is about either a `counter` or a `histogram`."),
        ({"objectives": [{**_TIMED, "under": 0}]}, "objectives[0].under: expected a number over 0"),
        ({"objectives": [{**_TIMED, "tarket": 1}]}, "objectives[0]: unknown key `tarket`. Did you mean `target`?"),
        ({"objectives": [_TIMED, _TIMED]}, "f.yaml: there are two objectives called checkout-speed."),
        ({"objectives": [{**_TIMED, "name": "latency"}]}, "there are two objectives called latency."),
        ({"alerts": {"SageErrorRate": {}}}, "f.yaml: alerts: unknown key `SageErrorRate`. Did you mean `SageErrorRateHigh`?"),
        ({"alerts": {"SageErrorRateHigh": {"severity": "P9"}}}, "alerts.SageErrorRateHigh.severity: 'P9' is not a valid Severity"),
        ({"alerts": {"SageErrorRateHigh": {"hold": "soon"}}}, "alerts.SageErrorRateHigh.hold: 'soon' is no duration"),
        ({"alerts": {"SageErrorRateHigh": {"enabled": "yes"}}}, "alerts.SageErrorRateHigh.enabled: expected true or false"),
        ({"windows": {"rate": "0s"}}, "windows.rate: expected a duration of more than 0 s"),
        ({"receivers": [{"webhook_configs": []}]}, "receivers[0]: expected a receiver of Alertmanager's, with its `name`."),
    ],
)
def test_a_mistake_is_named_with_its_place(document: dict[str, Any], said: str) -> None:
    """The file, the entry, the key, and what was expected."""
    with pytest.raises(ConfigError) as caught:
        settings.parse(document, where="f.yaml", known=KNOWN)
    assert said in str(caught.value)


def test_a_file_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    """Missing, no YAML, no text."""
    (tmp_path / "broken.yaml").write_text("objectives: [")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    for name, said in (("missing.yaml", "There is no file"), ("broken.yaml", "is not valid YAML"), ("binary.yaml", "cannot be read")):
        with pytest.raises(ConfigError) as caught:
            settings.load(tmp_path / name, known=KNOWN)
        assert said in str(caught.value)


def test_objectives_are_added_listed_and_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is there stays, comments included; a second of the same name is refused and nothing written."""
    file = tmp_path / "sage-alerts.yaml"
    file.write_text("# ours\nalerts:\n  SageMixedVersions: {enabled: false}\n")
    add = ["slo", "add", "--settings", str(file)]
    first = [*add, "chat-answers", "--target", "0.995", "--counter", "shop_answers_total", "--bad", "outcome=failed,lost"]
    assert run(first) == ExitCode.OK
    assert run([*add, "checkout-speed", "--target", "0.9", "--histogram", "shop_checkout_seconds", "--under", "0.5"]) == ExitCode.OK
    before = file.read_text()
    assert run(first) != ExitCode.OK
    assert run([*add, "x", "--target", "0.9", "--counter", "c", "--bad", "outcome"]) == ExitCode.USAGE
    assert file.read_text() == before
    assert before.startswith("# ours\n")
    assert [one["name"] for one in yaml.safe_load(before)["objectives"]] == ["chat-answers", "checkout-speed"]
    capsys.readouterr()
    assert run(["slo", "list", "--settings", str(file)]) == ExitCode.OK
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == [
        "availability",
        "latency",
        "chat-answers",
        "checkout-speed",
    ]
    assert run(["slo", "show", "chat-answers", "--settings", str(file)]) == ExitCode.OK
    assert "0.005 of the events, as 216 minutes in 30 days" in capsys.readouterr().out
    assert run(["slo", "show", "nothing", "--settings", str(file)]) != ExitCode.OK
    assert "There are availability, latency, chat-answers, checkout-speed." in capsys.readouterr().err
