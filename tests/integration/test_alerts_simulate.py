"""`sage-obs alerts simulate`: scripts and a real Prometheus's memory, evaluated by promtool."""

import json
import re
import shlex
import time
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from sage_obs.alerts.catalogue import groups
from sage_obs.alerts.links import Links
from sage_obs.alerts.render import rules_text
from sage_obs.alerts.scenarios import Bench, of_releases, of_trigger
from sage_obs.alerts.simulation import history, script
from sage_obs.alerts.simulation.model import Incident, Series
from sage_obs.cli import run
from sage_obs.conventions import ALERT_ROLLBACK_ERROR_RATE
from sage_obs.errors import ExitCode
from sage_obs.slo.triggers import ERROR_RATE, TRIGGERS
from sage_obs.slo.windows import DRILL, PRODUCTION, PROFILES, Windows, duration
from tests.support.incidents import answering, as_script, backfill
from tests.support.prometheus import Target, running_prometheus, serving

ROLLBACK: Final = ("--alert", "SageRollback*")


def simulated(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[dict[str, Any]]:
    """The changes that the command reports as JSON."""
    assert run(["alerts", "simulate", *arguments, "--json"]) == ExitCode.OK
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def spells(changes: list[dict[str, Any]], state: str) -> set[tuple[str, str, str, float]]:
    """Alert, job, version and seconds of each change into a state."""
    return {
        (one["alert"], one["labels"]["job"], one["labels"].get("version", ""), one["seconds"]) for one in changes if one["state"] == state
    }


def written(folder: Path, incident: dict[str, Any]) -> Path:
    """The incident as a file."""
    path = folder / "incident.yaml"
    path.write_text(yaml.safe_dump(incident))
    return path


@pytest.mark.parametrize("name", [*(trigger.slug for trigger in TRIGGERS), "releases"])
def test_every_scenario_of_the_rollback_alerts_comes_out_as_it_says(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each alert of a scenario fires and ends at the scenario's own ticks, and no other rollback alert fires."""
    bench = Bench(DRILL)
    triggers = {trigger.slug: trigger for trigger in TRIGGERS}
    scenarios = tuple(of_releases(bench) if name == "releases" else of_trigger(triggers[name], bench))
    ends = max((one.ends for scenario in scenarios for one in scenario.firing), default=bench.end) + 5
    file = written(tmp_path, as_script(scenarios, DRILL, ends=ends))
    changes = simulated(capsys, "--script", str(file), "--profile", "drill", *ROLLBACK)
    firing = [(scenario.name, one) for scenario in scenarios for one in scenario.firing]
    assert spells(changes, "firing") == {(one.trigger.alert, job, one.version, one.begins * DRILL.scrape) for job, one in firing}
    fired = {(alert, job, version) for alert, job, version, _ in spells(changes, "firing")}
    ended = {one for one in spells(changes, "ended") if one[:3] in fired}
    assert {(one.trigger.alert, job, one.version, one.ends * DRILL.scrape) for job, one in firing} <= ended


def test_a_bad_release_calls_for_a_rollback_at_the_scenarios_tick(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With production's windows and every rule, the rollback alert is pending, firing and over when the scenario says so."""
    bench = Bench(PRODUCTION)
    scenario = next(of_trigger(ERROR_RATE, bench))
    (expected,) = scenario.firing
    file = written(tmp_path, as_script((scenario,), PRODUCTION, ends=expected.ends + 2))
    changes = simulated(capsys, "--script", str(file), "--expect", ALERT_ROLLBACK_ERROR_RATE)
    times = {one["state"]: one["seconds"] / PRODUCTION.scrape for one in changes if one["alert"] == ALERT_ROLLBACK_ERROR_RATE}
    assert times == {"pending": expected.begins - bench.hold(ERROR_RATE), "firing": expected.begins, "ended": expected.ends}
    assert {one["alert"] for one in changes} > {ALERT_ROLLBACK_ERROR_RATE, "SageWatchdog"}


def release(windows: Windows) -> dict[str, Any]:
    """A release that is bad for a while and then good, beside one that stays; nothing is taken away, which a backfill could not say."""
    known, bad, good = (duration(seconds) for seconds in (windows.novelty + windows.rate, windows.rate * 2, windows.rate * 2))
    begins = {"begins": known, "instance": "new:9090"}
    phases = [{"for": bad, "version": "1.1.0", "requests": 20, "failed": 0.2}, {"for": good, "failed": 0}]
    all_of_it = duration(windows.novelty + windows.rate * 5)
    old = {"instance": "old:9090", "phases": [{"for": all_of_it, "version": "1.0.0", "requests": 20, "p95": "40ms"}]}
    return {"scrape": duration(windows.scrape), "jobs": {"shop": [old, {**begins, "phases": phases}]}}


@pytest.mark.parametrize("windows", PROFILES.values(), ids=list(PROFILES))
def test_a_prometheus_remembers_the_same_incident(
    windows: Windows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An incident replayed from a real Prometheus has the changes, to the second, that its script has; it comes in pieces."""
    monkeypatch.setattr(history, "_CHUNK_POINTS", 77)
    file = written(tmp_path, release(windows))
    profile = ("--profile", windows.name, *ROLLBACK)
    scripted = simulated(capsys, "--script", str(file), *profile)
    assert {one["state"] for one in scripted} == {"pending", "firing", "ended"}
    incident = script.load(file, scrape=windows.scrape)
    start = (time.time() - incident.seconds) // 3600 * 3600 - 3600
    backfill(incident, tmp_path, start=start)
    span = ("--from", str(start), "--to", str(start + incident.seconds))
    with running_prometheus(tmp_path, windows, rules="groups: []") as prometheus:
        remembered = simulated(capsys, "--prometheus", prometheus.url, *span, "--warmup", "0s", *profile)
        elsewhere = run(["alerts", "simulate", "--prometheus", prometheus.url, *span, "--job", "other", "--json"])
    assert [{**one, "time": None} for one in remembered] == scripted
    assert remembered[0]["time"] == time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(start + remembered[0]["seconds"]))
    assert elsewhere == ExitCode.FAILED
    assert "none of the" in capsys.readouterr().err


def test_what_is_simulated_is_what_a_live_prometheus_did(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The alerts that a server had over targets it scraped come out of its memory again, within two evaluations."""
    rules = rules_text(groups(DRILL, links=Links()), profile=DRILL.name)
    with running_prometheus(tmp_path, DRILL, rules=rules) as prometheus, serving(Target("1.0.0")) as old:
        begin = time.time()
        prometheus.scrape(old)
        known = f"job_instance_version:sage_release:info offset {DRILL.novelty:.0f}s"
        prometheus.wait(lambda: prometheus.query(known), seconds=60, what="the old release is long known")
        with serving(Target("1.1.0", failed=1 / 3)) as new:
            prometheus.scrape(old, new)
            firing = f'ALERTS{{alertstate="firing", alertname="{ALERT_ROLLBACK_ERROR_RATE}"}}'
            prometheus.wait(lambda: prometheus.query(f"{firing} offset 4s"), seconds=30, what="the alert has fired for a while")
        end = time.time()
        span = ("--from", str(begin), "--to", str(end), "--warmup", "0s")
        changes = simulated(capsys, "--prometheus", prometheus.url, *span, "--profile", "drill", "--alert", ALERT_ROLLBACK_ERROR_RATE)
        for state in ("pending", "firing"):
            selected = f'ALERTS{{alertstate="{state}", alertname="{ALERT_ROLLBACK_ERROR_RATE}"}}'
            (first,) = prometheus.query(f"min_over_time(timestamp({selected})[{end - begin + 5:.0f}s:1s])")
            (simulated_at,) = (one["seconds"] for one in changes if one["state"] == state)
            assert begin + simulated_at == pytest.approx(float(first["value"][1]), abs=2 * DRILL.evaluation)


PAGE: Final = (Path(__file__).parents[2] / "docs/how-to/simulate-alerts.md").read_text()


def blocks(language: str) -> list[str]:
    """The page's blocks in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def test_the_pages_examples_come_out_as_it_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its files and commands, run as they stand, print what stands below them, and what is under Verify succeeds."""
    monkeypatch.chdir(tmp_path)
    for name, text in zip(("incident.yaml", "queue.yaml", "queue-rules.yml"), blocks("yaml"), strict=True):
        Path(name).write_text(text)
    for block in blocks("console"):
        command, _, expected = block.partition("\n")
        assert run(shlex.split(command.removeprefix("$ sage-obs "))) == ExitCode.OK
        assert capsys.readouterr().out.splitlines() == expected.splitlines()
    (verified,) = re.findall(r"^```sh\n(.*?)^```", PAGE.partition("## Verify")[2], re.MULTILINE | re.DOTALL)
    for command in verified.splitlines():
        assert run(shlex.split(command.removeprefix("sage-obs "))) == ExitCode.OK


OWN_RULES: Final = {
    "groups": [
        {
            "name": "slow",
            "interval": "1m",
            "rules": [
                {"alert": "High", "expr": "job:a:max > 10", "for": "1m", "keep_firing_for": "2m", "labels": {"severity": "P2"}},
                {"alert": "Lasts", "expr": "max_over_time(job:a:max[170s]) > 10"},
            ],
        },
        {"name": "quick", "rules": [{"record": "job:a:max", "expr": "max by (job) (a)"}, {"alert": "Quick", "expr": "job:a:max > 10"}]},
    ]
}


def test_rules_of_several_intervals_are_evaluated_at_theirs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What a quick group records is read by a slow one at its own times, and hold and keep times count from there."""
    file = written(tmp_path, {"ends": "15m", "series": [{"series": 'a{job="x"}', "values": "0x20 20x15 0x40"}]})
    (tmp_path / "own.yml").write_text(yaml.safe_dump(OWN_RULES))
    changes = simulated(capsys, "--script", str(file), "--rules", str(tmp_path / "own.yml"))
    assert [(one["seconds"], one["alert"], one["state"]) for one in changes] == [
        (315, "Quick", "firing"),
        (360, "High", "pending"),
        (360, "Lasts", "firing"),
        (420, "High", "firing"),
        (555, "Quick", "ended"),
        (720, "High", "ended"),
        (720, "Lasts", "ended"),
    ]


CLOCK_RULES: Final = """\
groups:
  - name: clock
    rules:
      - {alert: Due, expr: 'deadline - time() < 300'}
      - {alert: Fixed, expr: 'timestamp(deadline) >= DUE - 300 and deadline @ START > 0'}
      - {alert: Hours, expr: 'deadline and on () (hour() * 60 + minute() >= HOUR * 60 + MINUTE)'}
"""


def test_rules_about_the_time_of_day_see_the_time_that_was(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Expressions of the present time, of timestamps, hours and fixed times hold when they held, though promtool's clock begins at 0."""
    start = time.time() // 86_400 * 86_400 - 12 * 3600
    due = start + 900
    at = time.gmtime(start + 660)
    numbers = {"DUE": f"{due:.0f}", "START": f"{start + 60:.0f}", "HOUR": f"{at.tm_hour}", "MINUTE": f"{at.tm_min}"}
    rules = CLOCK_RULES
    for name, number in numbers.items():
        rules = rules.replace(name, number)
    (tmp_path / "own.yml").write_text(rules)
    step = PRODUCTION.scrape
    backfill(Incident((Series('deadline{job="x"}', f"{due:.0f}+0x80"),), step, 80 * step), tmp_path, start=start)
    span = ("--from", f"{start + 60:.0f}", "--to", f"{start + 1000:.0f}", "--warmup", "60s")
    with running_prometheus(tmp_path, PRODUCTION, rules="groups: []") as prometheus:
        changes = simulated(capsys, "--prometheus", prometheus.url, *span, "--rules", str(tmp_path / "own.yml"))
    firing = {one["alert"]: one["seconds"] + 60 for one in changes}
    assert firing == {"Due": 600 + step, "Fixed": 600, "Hours": 660}


def test_an_expected_alert_that_stays_silent_fails_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 1 and its name; that nothing happened is said, too."""
    file = written(tmp_path, {"ends": "10m", "series": [{"series": 'a{job="x"}', "values": "0x40"}]})
    (tmp_path / "own.yml").write_text(yaml.safe_dump(OWN_RULES))
    arguments = ["alerts", "simulate", "--script", str(file), "--rules", str(tmp_path / "own.yml")]
    assert run([*arguments, "--expect", "High"]) == ExitCode.FAILED
    said = capsys.readouterr()
    assert said.out == "No alert became pending.\n"
    assert "High has not fired, and was expected to" in said.err
    assert run(arguments) == ExitCode.OK


@pytest.mark.parametrize(
    ("rule", "why"),
    [
        ({"alert": "A", "expr": "a * on (job) a"}, "many-to-many"),
        ({"alert": "A", "expr": "a == 0"}, "exceeded limit of 1"),
        ({"alert": "A", "expr": "sum("}, "own.yml:5: the expression of A is no PromQL"),
        ({"alert": "A", "expr": "a", "labels": {"no-label": "x"}}, "no-label"),
        ({"record": "a", "expr": "b"}, "There is no alert in these rules"),
    ],
)
def test_rules_that_cannot_be_evaluated_are_named(
    rule: dict[str, Any], why: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A usage error with Prometheus's reason, and no traceback."""
    series = [{"series": f'a{{job="x",i="{n}"}}', "values": "0x9"} for n in range(2)]
    file = written(tmp_path, {"ends": "1m", "series": series})
    (tmp_path / "own.yml").write_text(yaml.safe_dump({"groups": [{"name": "g", "limit": 1, "rules": [rule]}]}))
    assert run(["alerts", "simulate", "--script", str(file), "--rules", str(tmp_path / "own.yml")]) == ExitCode.USAGE
    assert why in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ([], "--script or from --prometheus"),
        (["--prometheus", "http://127.0.0.1:1"], "needs --from and --to"),
        (["--prometheus", "http://127.0.0.1:1", "--from", "now", "--to", "now-1h"], "--from is not before --to"),
        (["--prometheus", "http://127.0.0.1:1", "--from", "yesterday", "--to", "now"], "--from is 'yesterday', which is no time"),
        (["--prometheus", "http://127.0.0.1:1", "--from", "now-1x", "--to", "now"], "--from is '1x', which is no duration"),
        (["--prometheus", "http://127.0.0.1:1", "--from", "0", "--to", "1796025600000"], "--from is 0, which is no time"),
        (["--prometheus", "http://127.0.0.1:1", "--from", "now-1h", "--to", "9999999999"], "--to is in the future"),
        (["--prometheus", "http://127.0.0.1:1", "--from", "now-1h", "--to", "now", "--step", "10m"], "--step is 600 s"),
        (["--prometheus", "http://127.0.0.1:1", "--from", "now-1h", "--to", "now", "--alert", "Nope"], "No rule has an alert Nope"),
        (["--script", "incident.yaml", "--from", "now-1h"], "--from belongs to --prometheus"),
    ],
)
def test_options_that_make_no_sense_are_usage_errors(
    arguments: list[str], why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2, with a sentence that names the option, before anything is asked for."""
    monkeypatch.chdir(tmp_path)
    Path("incident.yaml").write_text("jobs: {}")
    assert run(["alerts", "simulate", *arguments]) == ExitCode.USAGE
    assert why in capsys.readouterr().err


def answer(result: object, kind: str = "vector") -> bytes:
    """What Prometheus answers."""
    return json.dumps({"status": "success", "data": {"resultType": kind, "result": result}}).encode()


COUNTED: Final = answer([{"metric": {}, "value": [0, "1"]}])


@pytest.mark.parametrize(
    ("count", "values", "why"),
    [
        (b"<html>", b"", "does not answer as Prometheus does (status 200, no JSON)"),
        (b"{}", b"", "does not answer as Prometheus does (status 200)"),
        (b'{"status": "error", "error": "too many samples"}', b"", "refused `count(count_over_time(a[3900s]))`: too many samples"),
        (answer([]), b"", "has none of the 1 series that the rules read"),
        (answer([{"metric": {}, "value": [0, "9000000"]}]), b"", "9,000,000 series with 261 values each are more than the 2,000,000"),
        (answer([{"metric": {}}]), b"", "its answer has another form"),
        (answer(None), b"", "its answer has another form"),
        (COUNTED, answer([{"metric": {}, "values": [[0, "5"]]}]), "its answer has another form"),
        (COUNTED, answer([{"metric": {}, "values": [["x", "5"]]}]), "its answer has another form"),
        (COUNTED, b" " * (128 * 2**20 + 1), "is longer than 128 MiB"),
    ],
)
def test_a_server_that_is_no_prometheus_or_has_too_much_is_reported(
    count: bytes, values: bytes, why: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 1 and what the server did; neither is an answer without end taken into memory."""
    (tmp_path / "own.yml").write_text("groups: [{name: g, rules: [{alert: A, expr: a > 1}]}]")
    with answering({"/api/v1/query": count, "/api/v1/query_range": values}) as url:
        arguments = [
            "--prometheus",
            url.replace("//", "//me:s3cret@"),
            "--from",
            "2024-01-01T08:00",
            "--to",
            "1704099600",
            "--warmup",
            "5m",
        ]
        assert run(["alerts", "simulate", *arguments, "--rules", str(tmp_path / "own.yml")]) == ExitCode.FAILED
    said = capsys.readouterr().err
    assert why in said
    assert "s3cret" not in said


def test_a_dead_server_is_reported(capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 1, with the address and what to check."""
    with answering({}) as url:
        pass
    assert run(["alerts", "simulate", "--prometheus", url, "--from", "now-1h", "--to", "now"]) == ExitCode.FAILED
    assert f"Cannot reach Prometheus at {url} (connection refused)" in capsys.readouterr().err


def test_what_is_no_number_is_replayed_as_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """NaN, infinities and gaps of a server's answer reach the rules; what was over before the span is not shown."""
    (tmp_path / "own.yml").write_text(
        "groups: [{name: g, rules: [{alert: Nan, expr: a != a}, {alert: Much, expr: a == Inf}, {alert: Gone, expr: absent(a)}]}]"
    )
    start = 1_704_096_000
    values = [[start + 15 * number, text] for number, text in ((0, "1"), (1, "NaN"), (2, "+Inf"), (3, "1"), (5, "-Inf"))]
    series = answer([{"metric": {"__name__": "a", "job": "x"}, "values": values}], "matrix")
    with answering({"/api/v1/query": COUNTED, "/api/v1/query_range": series}) as url:
        span = ("--from", str(start), "--to", str(start + 75), "--warmup", "0s")
        changes = simulated(capsys, "--prometheus", url, *span, "--rules", str(tmp_path / "own.yml"))
        span = ("--from", str(start + 60), "--to", str(start + 75), "--warmup", "1m")
        later = simulated(capsys, "--prometheus", url, *span, "--rules", str(tmp_path / "own.yml"))
    assert [(one["seconds"], one["alert"], one["state"]) for one in later] == [(0, "Gone", "firing"), (15, "Gone", "ended")]
    assert [(one["seconds"], one["alert"], one["state"]) for one in changes] == [
        (15, "Nan", "firing"),
        (30, "Much", "firing"),
        (30, "Nan", "ended"),
        (45, "Much", "ended"),
        (60, "Gone", "firing"),
        (75, "Gone", "ended"),
    ]


def test_files_are_linted_with_promtool(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What Prometheus would refuse is an error at its place; findings are lines or JSON; warnings fail with --strict only."""
    text = "groups:\n- name: a\n  rules:\n  - {record: 'a b', expr: up}\n- name: b\n  rules:\n  - {record: ok, expr: up}\n"
    (tmp_path / "bad.yml").write_text(text + "  - {record: c, expr: 'sum('}\n")
    assert run(["alerts", "lint", str(tmp_path / "bad.yml")]) == ExitCode.FAILED
    first, second = capsys.readouterr().out.splitlines()
    assert first == f"{tmp_path}/bad.yml:4: error: a a b: promtool: invalid recording rule name: a b"
    assert second.startswith(f"{tmp_path}/bad.yml:8: error: b c: promtool: could not parse expression")
    (tmp_path / "warned.yml").write_text("groups:\n- name: a\n")
    assert run(["alerts", "lint", "--json", str(tmp_path / "warned.yml")]) == ExitCode.OK
    finding = {"file": f"{tmp_path}/warned.yml", "group": "a", "level": "warning", "line": 2, "message": "has no rules", "rule": ""}
    assert json.loads(capsys.readouterr().out) == finding
    assert run(["alerts", "lint", "--strict", str(tmp_path / "warned.yml")]) == ExitCode.FAILED
    assert run(["alerts", "lint", "--strict"]) == ExitCode.USAGE


@pytest.mark.parametrize("windows", PROFILES.values(), ids=list(PROFILES))
def test_our_own_rules_have_no_findings_as_files(windows: Windows, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is exported passes as somebody else's would have to."""
    file = tmp_path / "sage.yml"
    file.write_text(rules_text(groups(windows, links=Links(runbooks="https://runbooks.example")), profile=windows.name))
    assert run(["alerts", "lint", "--strict", "--profile", windows.name, str(file)]) == ExitCode.OK, capsys.readouterr().out


def test_the_operators_settings_count(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Our rules are replayed with the thresholds and hold times of the settings file."""
    good = [{"for": "30s", "version": "1.0.0", "requests": 100, "failed": 0.04}]
    file = written(tmp_path, {"jobs": {"shop": [{"phases": good}]}})
    (tmp_path / "settings.yaml").write_text("alerts: {SageErrorRateHigh: {threshold: 0.03}}\n")
    arguments = ("--script", str(file), "--profile", "drill", "--alert", "SageErrorRateHigh")
    assert simulated(capsys, *arguments) == []
    changes = simulated(capsys, *arguments, "--settings", str(tmp_path / "settings.yaml"))
    assert [one["state"] for one in changes] == ["pending", "firing"]
