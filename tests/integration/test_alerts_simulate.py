"""`sage-obs alerts simulate`: scripts and a real Prometheus's memory, evaluated by promtool."""

import json
import time
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from sage_obs.alerts.catalogue import groups
from sage_obs.alerts.links import Links
from sage_obs.alerts.render import rules_text
from sage_obs.alerts.scenarios import Bench, of_releases, of_trigger
from sage_obs.alerts.simulation import script
from sage_obs.cli import run
from sage_obs.conventions import ALERT_ROLLBACK_ERROR_RATE
from sage_obs.errors import ExitCode
from sage_obs.slo.triggers import ERROR_RATE, TRIGGERS
from sage_obs.slo.windows import DRILL, PRODUCTION, PROFILES, Windows, duration
from tests.support.incidents import as_script, backfill
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
def test_a_prometheus_remembers_the_same_incident(windows: Windows, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An incident replayed from a real Prometheus has the changes, to the second, that its script has."""
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
