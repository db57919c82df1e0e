"""The rules as data: catalogue, lint, routes and rendering."""

import dataclasses
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import yaml

from sage_obs.alerts.catalogue import CONDITIONS, KNOWN, groups
from sage_obs.alerts.links import Links
from sage_obs.alerts.lint import lint
from sage_obs.alerts.model import AlertRule, Group, RecordingRule
from sage_obs.alerts.promtest import expand
from sage_obs.alerts.render import ALERTMANAGER_FILE, RULES_FILES, ResponderRoute, manifests, render
from sage_obs.alerts.routing import RESPONDER, configuration
from sage_obs.alerts.trials import trials
from sage_obs.conventions import ALERT_WATCHDOG, BOARD_FLEET, RUNBOOK_INCIDENT
from sage_obs.errors import DriftError
from sage_obs.render import MARK, check
from sage_obs.slo.names import recorded_names
from sage_obs.slo.triggers import LATENCY, TRIGGERS
from sage_obs.slo.windows import DRILL, PRODUCTION, PROFILES, Windows

ARTEFACTS = Path(__file__).parents[3] / "alerts"


def alert(**changes: Any) -> AlertRule:
    """A sound alert with some fields changed."""
    rollback, *_ = groups(PRODUCTION, links=Links())
    return dataclasses.replace(rollback.alerts[0], **changes)


def group_of(*rules: RecordingRule | AlertRule) -> Group:
    """A group as the lint sees it."""
    return Group("g", 15, rules)


def test_every_trigger_has_one_alert_and_every_recorded_name_one_rule() -> None:
    """Nothing is forgotten, nothing is extra."""
    rollback, *others = groups(PRODUCTION, links=Links())
    assert [rule.alert for rule in rollback.alerts] == [trigger.alert for trigger in TRIGGERS]
    assert {rule.record for group in (rollback, *others) for rule in group.records} == recorded_names()
    assert [group.name for group in others] == list(CONDITIONS)
    assert [rule.alert for group in others for rule in group.alerts] == list(KNOWN)


@pytest.mark.parametrize("windows", PROFILES.values(), ids=list(PROFILES))
def test_the_rules_have_no_findings(windows: Windows) -> None:
    """What ships passes its own lint under every profile."""
    assert lint(groups(windows, links=Links())) == ()


def test_a_rollback_alert_says_what_to_do() -> None:
    """Labels for the route and the responder, links for people, times from the windows."""
    rules = {rule.alert: rule for group in groups(DRILL, links=Links("https://r/", "https://g/")) for rule in group.alerts}
    rule = rules[LATENCY.alert]
    assert rule.labels == {"action": "rollback", "runbook": "incident", "severity": "P1", "trigger": "latency"}
    assert rule.annotations["runbook_url"] == f"https://r/{RUNBOOK_INCIDENT}.md"
    assert rule.annotations["dashboard_url"].startswith(f"https://g/d/{BOARD_FLEET}?var-job=")
    assert (rule.hold, rule.keep) == (5, 10)


@pytest.mark.parametrize(
    ("rules", "rule", "message"),
    [
        ((lambda: alert(labels={**alert().labels, "runbook": ""})), "SageRollbackErrorRate", "has no runbook"),
        ((lambda: alert(annotations={**alert().annotations, "summary": ""})), "SageRollbackErrorRate", "has no summary"),
        ((lambda: alert(labels={**alert().labels, "severity": "critical"})), "SageRollbackErrorRate", "a severity other than P1"),
        ((lambda: alert(labels={**alert().labels, "share": "{{ $value }}"})), "SageRollbackErrorRate", "in the label share"),
        ((lambda: alert(annotations={**alert().annotations, "description": "bad"})), "SageRollbackErrorRate", "without $value"),
        ((lambda: alert(hold=0)), "SageRollbackErrorRate", "has for 0 s"),
        ((lambda: alert(keep=20)), "SageRollbackErrorRate", "has keep_firing_for 20 s"),
        ((lambda: RecordingRule("a:b:c", "rate(sage_agent_request_total[5m])")), "a:b:c", "reads sage_agent_request_total"),
    ],
    ids=["label", "annotation", "severity", "value", "description", "hold", "keep", "series"],
)
def test_a_defect_is_found(rules: Callable[[], RecordingRule | AlertRule], rule: str, message: str) -> None:
    """Each rule about rules finds what it is there for, and names the rule."""
    findings = [finding for finding in lint([group_of(rules())]) if message in finding.message]
    assert [finding.rule for finding in findings] == [rule]


def test_order_and_names_are_checked_across_a_group() -> None:
    """A series read before it is recorded is one evaluation old; one recorded twice is ambiguous."""
    made, read = RecordingRule("job:up:sum", "sum by (job) (up)"), RecordingRule("job:up:twice", "job:up:sum * 2")
    late = [finding for finding in lint([group_of(read, made)]) if "before its group" in finding.message]
    assert [str(finding) for finding in late] == ["job:up:twice: reads job:up:sum before its group records it"]
    assert "is defined 2 times" in {finding.message for finding in lint([group_of(made, made)])}


def test_a_rollback_alert_goes_to_the_responder_at_once() -> None:
    """One notification per job and version without waiting, with a bearer token where there is one, and on to the default receiver."""
    config = configuration(PRODUCTION, responder=ResponderRoute("http://r/alerts", "/run/token"))
    rollback, *_, rest = config["route"]["routes"]
    assert (rollback["receiver"], rollback["group_wait"], rollback["continue"]) == (RESPONDER, "0s", True)
    assert rollback["group_by"] == ["job", "version"]
    assert rollback["matchers"] == ['action="rollback"']
    assert rest == {"receiver": "default"}
    [webhook] = next(receiver for receiver in config["receivers"] if receiver["name"] == RESPONDER)["webhook_configs"]
    assert webhook["send_resolved"] is True
    assert webhook["http_config"]["authorization"] == {"type": "Bearer", "credentials_file": "/run/token"}


def test_without_a_token_none_is_sent() -> None:
    """An empty path is no file."""
    config = configuration(DRILL, responder=ResponderRoute("http://r/alerts"))
    assert "http_config" not in config["receivers"][-1]["webhook_configs"][0]


def test_an_operators_receivers_replace_those_without_an_address() -> None:
    """By their names; a new one is added."""
    mine: list[dict[str, Any]] = [{"name": "page", "pagerduty_configs": [{"routing_key": "k"}]}, {"name": "chat"}]
    receivers = {one["name"]: one for one in configuration(DRILL, responder=ResponderRoute(), receivers=mine)["receivers"]}
    assert receivers["page"] == mine[0]
    assert list(receivers) == ["default", "page", "ticket", "watchdog", "responder", "chat"]


@pytest.mark.parametrize("windows", PROFILES.values(), ids=list(PROFILES))
def test_rendering_is_deterministic_sorted_and_marked(windows: Windows) -> None:
    """The same bytes twice, keys in order, and a first line that says where they come from."""
    files = render(windows, links=Links(), responder=ResponderRoute())
    assert files == render(windows, links=Links(), responder=ResponderRoute())
    named = [f"{group.name}.yml" for group in groups(windows, links=Links())]
    tested = [*(one.slug for one in TRIGGERS), "releases", *CONDITIONS]
    assert set(files) == {*named, ALERTMANAGER_FILE, *(f"tests/{name}.yml" for name in tested)}
    assert all(fnmatch(name, RULES_FILES) for name in named)
    for text in files.values():
        assert MARK in text.splitlines()[0]
        assert windows.name in text.splitlines()[0]
        data = yaml.safe_load(text)
        assert list(data) == sorted(data)


def test_manifests_hold_the_same_rules() -> None:
    """One PrometheusRule for each group, with the namespace where one is given."""
    files = manifests(PRODUCTION, links=Links(), namespace="mon")
    for group in groups(PRODUCTION, links=Links()):
        found = yaml.safe_load(files[f"{group.name}.yml"])
        assert (found["apiVersion"], found["kind"]) == ("monitoring.coreos.com/v1", "PrometheusRule")
        assert (found["metadata"]["name"], found["metadata"]["namespace"]) == (group.name, "mon")
        assert found["spec"]["groups"] == [group.data()]
    assert "namespace" not in yaml.safe_load(manifests(PRODUCTION, links=Links())["sage-slo.yml"])["metadata"]


@pytest.mark.parametrize("name", KNOWN)
@pytest.mark.parametrize("windows", PROFILES.values(), ids=list(PROFILES))
def test_every_alert_is_tried_both_ways(windows: Windows, name: str) -> None:
    """It is seen to fire, and all but the one that always does to stay silent."""
    group, condition = next((group, one) for group, every in CONDITIONS.items() for one in every if one.alert == name)
    found = trials(condition, windows, tick=windows.evaluation * (4 if group == "sage-slo" else 1))
    assert any(trial.fires for trial in found)
    assert name == ALERT_WATCHDOG or any(trial.fires is None for trial in found)


def test_the_committed_rules_are_what_is_rendered_now() -> None:
    """Nobody edited them, and nobody forgot to render them again."""
    check(ARTEFACTS, render(PRODUCTION, links=Links(), responder=ResponderRoute()), again="sage-obs alerts export --force")


def test_drift_of_the_committed_rules_would_be_noticed() -> None:
    """Other windows give other files."""
    with pytest.raises(DriftError):
        check(ARTEFACTS, render(DRILL, links=Links(), responder=ResponderRoute()), again="x")


def test_templates_are_expanded_as_prometheus_does() -> None:
    """Labels, shares and multiples; an expression that is not known here is an error, not a wrong expectation."""
    labels = {"job": "a", "version": "1"}
    assert expand('{{ $labels.version }} of {{ $labels.job }}: {{ $value | printf "%.2f" }}', labels, 2.4) == "1 of a: 2.40"
    assert expand("{{ $value | humanizePercentage }}", labels, 0.0625) == "6.25%"
    with pytest.raises(KeyError):
        expand("{{ $value | humanize }}", labels, 1.0)
