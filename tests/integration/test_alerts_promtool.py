"""The rendered rules under promtool and amtool, and proof that the scenarios would notice a broken rule."""

import dataclasses
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from sage_obs.alerts import settings, tools
from sage_obs.alerts.catalogue import CONDITIONS, KNOWN, groups
from sage_obs.alerts.catalogue.rollback import GROUP_ROLLBACK
from sage_obs.alerts.links import Links
from sage_obs.alerts.model import AlertRule, Group, RecordingRule
from sage_obs.alerts.promtest import RELEASES
from sage_obs.alerts.render import ALERTMANAGER_FILE, ResponderRoute, render, rules_text
from sage_obs.cli import run
from sage_obs.errors import ExitCode
from sage_obs.slo.triggers import HEALTH, TRIGGERS, Trigger
from sage_obs.slo.windows import DRILL, PRODUCTION, PROFILES, Windows
from sage_obs.stack.binaries import find

ROLLBACK_FILE = f"{GROUP_ROLLBACK}.yml"
Rule = RecordingRule | AlertRule
Mutate = Callable[[AlertRule], AlertRule]


def rendered(windows: Windows, folder: Path, *, responder: ResponderRoute | None = None) -> Path:
    """A folder with everything that an export writes."""
    tools.write(folder, render(windows, links=Links(), responder=responder or ResponderRoute()))
    return folder


TESTED = (*(trigger.slug for trigger in TRIGGERS), RELEASES, *CONDITIONS)


@pytest.mark.parametrize(
    ("windows", "name"),
    [(PRODUCTION, name) for name in TESTED] + [(DRILL, name) for name in TESTED if name not in CONDITIONS],
    ids=lambda one: getattr(one, "name", one),
)
def test_every_scenario_holds(windows: Windows, name: str, tmp_path: Path) -> None:
    """Each alert fires just after its threshold and time and is silent just before; those without a release in a drill: see the mutants."""
    folder = rendered(windows, tmp_path)
    assert {path.stem for path in (folder / "tests").iterdir()} == set(TESTED)
    report = tools.run_tests(find("promtool"), folder, names=(name,))
    assert report.passed, report.output
    assert report.output.count("SUCCESS") == 1


@pytest.mark.parametrize("windows", PROFILES.values(), ids=list(PROFILES))
@pytest.mark.parametrize("token", ["", "/run/secrets/responder"], ids=["open", "token"])
def test_the_tools_accept_what_is_rendered(windows: Windows, token: str, tmp_path: Path) -> None:
    """Promtool finds no fault with the rules, nor amtool with the configuration, with and without a token."""
    folder = rendered(windows, tmp_path, responder=ResponderRoute(url="http://127.0.0.1:1/alerts", token_file=token))
    for report in (tools.check_rules(find("promtool"), folder), tools.check_config(find("amtool"), folder)):
        assert report.passed, report.output


@pytest.mark.parametrize(
    ("labels", "receivers"),
    [
        (("severity=P1", "action=rollback"), "responder,page"),
        (("severity=P1", "action=page"), "page"),
        (("severity=P2",), "ticket"),
        (("severity=P3",), "default"),
        ((), "default"),
        (("severity=P3", "alertname=SageWatchdog"), "watchdog"),
    ],
)
def test_alerts_reach_their_receivers(labels: tuple[str, ...], receivers: str, tmp_path: Path) -> None:
    """Alertmanager's own routing sends a rollback to the responder and on to whoever is paged, anything else by its severity."""
    config = rendered(DRILL, tmp_path) / ALERTMANAGER_FILE
    command = [str(find("amtool")), "config", "routes", "test", f"--config.file={config}", *labels]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == receivers


@pytest.mark.parametrize("command", ["lint", "test"])
def test_the_commands_run_the_tools(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Lint and test name what they ran and that it passed."""
    assert run(["alerts", command, "--profile", "drill"]) == ExitCode.OK
    said = capsys.readouterr().out
    assert f"drill: promtool {'check' if command == 'lint' else command} rules" in said
    assert command == "lint" or [line.split("/")[-1] for line in said.splitlines()] == [f"{name}.yml: passed" for name in sorted(TESTED)]


def test_a_failing_tool_fails_the_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """With rules that do not fit the tests the command exits 1 and shows what promtool said."""
    broken = dataclasses.replace(DRILL, hold_scale=1 / 30)
    original = render(DRILL, links=Links(), responder=ResponderRoute())
    files = {**original, ROLLBACK_FILE: rules_text(groups(broken, links=Links())[:1], profile="drill")}
    monkeypatch.setattr("sage_obs.alerts.render.render", lambda *_args, **_options: files)
    assert run(["alerts", "test", "--profile", "drill"]) == ExitCode.FAILED
    said = capsys.readouterr()
    assert "FAILED" in said.out
    assert "exp:" in said.err


def test_the_tools_reject_what_is_broken(tmp_path: Path) -> None:
    """A rule that does not parse and a route to a receiver that does not exist are reported, with the tool's words."""
    folder = rendered(DRILL, tmp_path)
    (folder / ROLLBACK_FILE).write_text("groups: [{name: a, rules: [{record: b, expr: 'sum('}]}]")
    (folder / ALERTMANAGER_FILE).write_text("route: {receiver: nobody}")
    rules, config = tools.check_rules(find("promtool"), folder), tools.check_config(find("amtool"), folder)
    assert not rules.passed
    assert "parse error" in rules.output
    assert not config.passed
    assert "nobody" in config.output


def survives(mutant: Iterable[Group], names: tuple[str, ...], folder: Path) -> bool:
    """Whether the scenarios still hold with these rules."""
    rendered(DRILL, folder)
    (folder / ROLLBACK_FILE).write_text(rules_text(mutant, profile=DRILL.name))
    assert tools.check_rules(find("promtool"), folder).passed
    return tools.run_tests(find("promtool"), folder, names=names).passed


def mutated(name: str, mutate: Callable[[Rule], Rule]) -> tuple[Group, ...]:
    """The drill's rules with one of them changed."""

    def changed(rule: Rule) -> Rule:
        return mutate(rule) if name == (rule.alert if isinstance(rule, AlertRule) else rule.record) else rule

    original = groups(DRILL, links=Links())[:1]
    mutant = tuple(dataclasses.replace(group, rules=tuple(changed(rule) for rule in group.rules)) for group in original)
    assert mutant != original
    return mutant


def replaced(old: str, new: str) -> Callable[[Rule], Rule]:
    """A mutation of the expression's text."""
    return lambda rule: dataclasses.replace(rule, expr=rule.expr.replace(old, new))


def alert_mutations(trigger: Trigger) -> dict[str, Callable[[Rule], Rule]]:
    """Every way in which one rollback alert may be wrong that a scenario must notice."""
    threshold, guard = f"> {trigger.threshold:g} ", f" and job_version:sage_rollback_{trigger.slug.replace('-', '_')}:samples >= "
    step = DRILL.evaluation

    def hold(change: float) -> Callable[[Rule], Rule]:
        return lambda rule: dataclasses.replace(rule, hold=rule.hold + change) if isinstance(rule, AlertRule) else rule

    def keep(change: float) -> Callable[[Rule], Rule]:
        return lambda rule: dataclasses.replace(rule, keep=rule.keep + change) if isinstance(rule, AlertRule) else rule

    mutations = {
        "threshold-higher": replaced(threshold, f"> {trigger.threshold * 1.3:g} "),
        "threshold-lower": replaced(threshold, f"> {trigger.threshold * 0.7:g} "),
        "comparison-reversed": replaced(threshold, f"< {trigger.threshold:g} "),
        "hold-longer": hold(step),
        "hold-shorter": hold(-step),
        "no-hold": hold(-DRILL.hold(trigger.hold)),
        "keep-longer": keep(step),
        "keep-shorter": keep(-step),
        "no-keep": keep(-DRILL.hold(trigger.keep)),
        "guard-higher": replaced(f"{guard}{trigger.min_samples:g}", f"{guard}{trigger.min_samples * 1.5:g}"),
        "guard-reversed": replaced(f"{guard}{trigger.min_samples:g}", f"{guard.replace('>=', '<')}{trigger.min_samples:g}"),
        "not-only-new": replaced(" and on (job, version) job_version:sage_release:new", ""),
        "only-old": replaced(") and on (job, version) ", ") unless on (job, version) "),
        "severity": lambda rule: dataclasses.replace(rule, labels={"severity": "P3"}) if isinstance(rule, AlertRule) else rule,
        "annotation": lambda rule: dataclasses.replace(rule, annotations={"summary": "!"}) if isinstance(rule, AlertRule) else rule,
    }
    if trigger is not HEALTH:  # a share of instances always rests on one instance at least, so its guard cannot be missed
        mutations["no-guard"] = replaced(f"{guard}{trigger.min_samples:g}", "")
        mutations["guard-lower"] = replaced(f"{guard}{trigger.min_samples:g}", f"{guard}{trigger.min_samples * 0.7:g}")
    return mutations


ALERT_MUTANTS = {
    f"{trigger.slug}-{name}": (trigger, mutation) for trigger in TRIGGERS for name, mutation in alert_mutations(trigger).items()
}


@pytest.mark.parametrize(("trigger", "mutation"), ALERT_MUTANTS.values(), ids=list(ALERT_MUTANTS))
def test_a_wrong_alert_is_noticed(trigger: Trigger, mutation: Callable[[Rule], Rule], tmp_path: Path) -> None:
    """Whatever is changed in a rollback alert, a scenario of its trigger fails."""
    assert not survives(mutated(trigger.alert, mutation), (trigger.slug,), tmp_path)


RECORDED_MUTANTS = {
    "restart-counts-the-past": ("job_instance:sage_release:changed", "> 1", "> 9", (RELEASES,)),
    "every-instance-changed": ("job_instance:sage_release:changed", "> 1", "> 0", ("error-rate", RELEASES)),
    "first-release-is-new": (
        "job_version:sage_release:new",
        " and on (job) max by (job)",
        " or on (job) 0 * max by (job)",
        ("error-rate",),
    ),
    "old-release-is-new": ("job_version:sage_release:new", "unless on (job, version)", "and on (job)", ("error-rate",)),
    "new-for-longer": ("job_version:sage_release:new", "offset 30s", "offset 33s", (RELEASES,)),
    "new-for-shorter": ("job_version:sage_release:new", "offset 30s", "offset 27s", (RELEASES,)),
    "release-forgotten": ("job_instance_version:sage_release:info", "[30s]", "[10s]", (RELEASES,)),
    "gone-targets-count": ("job_instance_version:sage_release:info", " and on (job, instance) up", "", ("error-rate", RELEASES)),
    "client-errors-are-served": (
        "job_version:sage_rollback_error_rate:value",
        "cancelled|client_error",
        "cancelled|rejected",
        ("error-rate",),
    ),
    "success-is-an-error": ("job_version:sage_rollback_error_rate:value", '"server_error"', '"success"', ("error-rate",)),
    "satisfaction-is-impact": ("job_version:sage_rollback_customer_impact:value", '"frustrated"', '"satisfied"', ("customer-impact",)),
    "median": ("job_version:sage_rollback_latency:value", "histogram_quantile(0.95", "histogram_quantile(0.5", ("latency",)),
    "lower-limit": ("job_version:sage_rollback_latency:value", ", 0.02)", ", 0.01)", ("latency",)),
    "objective": ("job_version:sage_rollback_latency:value", "* 0 + 0.1", "* 0 + 0.2", ("latency",)),
    "compared-with-itself": ("job_version:sage_rollback_latency:value", "offset 30s", "offset 1s", ("latency",)),
    "silence-is-sickness": (
        "job_version:sage_rollback_health:value",
        "or on (job, instance) up",
        "or on (job, instance) up * 0",
        ("health",),
    ),
    "down-is-healthy": ("job_version:sage_rollback_health:value", "instance) up)", "instance) up * 0 + 1)", (RELEASES,)),
    "one-check-is-enough": ("job_version:sage_rollback_health:value", "min by", "max by", ("health",)),
}


@pytest.mark.parametrize(("record", "old", "new", "names"), RECORDED_MUTANTS.values(), ids=list(RECORDED_MUTANTS))
def test_a_wrong_recording_rule_is_noticed(record: str, old: str, new: str, names: tuple[str, ...], tmp_path: Path) -> None:
    """Whatever is changed in what the alerts rest on, a scenario fails."""
    assert not survives(mutated(record, replaced(old, new)), names, tmp_path)


def test_the_page_on_settings_works_as_it_stands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its file is read, linted, accepted by promtool and amtool, and its objectives are tried."""
    page = (Path(__file__).parents[2] / "docs/how-to/alerts-of-your-own.md").read_text()
    file = tmp_path / "sage-alerts.yaml"
    file.write_text(page.partition("```yaml\n")[2].partition("```")[0])
    out = tmp_path / "out"
    assert run(["alerts", "export", "--settings", str(file), "--out", str(out)]) == ExitCode.OK
    assert "chat-answers" in (out / "tests/sage-slo.yml").read_text()
    assert run(["alerts", "lint", "--settings", str(file)]) == ExitCode.OK
    capsys.readouterr()
    wanted = settings.load(file, known=KNOWN)
    tools.write(tmp_path, render(DRILL, links=Links(), responder=ResponderRoute(), settings=wanted))
    report = tools.run_tests(find("promtool"), tmp_path, names=("sage-slo", "sage-service"))
    assert report.passed, report.output
