from __future__ import annotations

import errno
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sage_obs.errors import JournalError, LockHeldError, PlatformError
from sage_obs.files import append_json
from sage_obs.platforms.base import Release
from sage_obs.platforms.ledger import Standing
from sage_obs.runbooks import journal, runs
from sage_obs.runbooks.locks import holding
from sage_obs.runbooks.model import Outcome
from sage_obs.runbooks.progress import fold
from sage_obs.runbooks.world import StoppedError
from tests.support.runbooks import BAD, FAILING, GOOD, HEALTHY, NOTHING, Scene


def _execute(scene: Scene, runbook: str = "incident", *, automatic: bool = True, **parameters: str) -> Outcome | None:
    return runs.execute(runs.script(runbook), scene.start(runbook, automatic=automatic, **parameters), scene.world).outcome


def _last_run(scene: Scene) -> Path:
    return runs.folders(scene.state)[-1]


def test_a_bad_release_is_rolled_back_verified_and_written_up(tmp_path: Path) -> None:
    """An automatic run goes back once, marks both releases, keeps an intact journal and drafts the post-mortem."""
    scene = Scene(tmp_path)
    assert _execute(scene) is Outcome.OK
    assert scene.platform.asked == ["1.0.0"]
    assert scene.ledger.standing(BAD.digest) is Standing.BAD
    assert scene.ledger.standing(GOOD.digest) is Standing.GOOD
    folder = _last_run(scene)
    journal.verify(journal.read(folder), source="the journal")
    written = json.loads((folder / "postmortem.json").read_text())
    assert (written["bad_release"], written["good_release"]) == ("1.1.0", "1.0.0")
    assert "1.0.0" in (folder / "postmortem.md").read_text()


def test_evidence_is_captured_before_anything_is_changed(tmp_path: Path) -> None:
    """The capture has finished before the intent of the rollback is written."""
    scene = Scene(tmp_path)
    _execute(scene)
    events = journal.read(_last_run(scene))
    captured = next(event.seq for event in events if event.step == "mitigate.capture" and event.type is journal.EventType.STEP_FINISHED)
    meant = next(event.seq for event in events if event.step == "mitigate.undo")
    assert captured < meant


def test_healthy_changes_nothing(tmp_path: Path) -> None:
    """All triggers pass: exit 0, nothing proposed, no post-mortem."""
    scene = Scene(tmp_path)
    scene.signals.now["1.1.0"] = HEALTHY
    assert _execute(scene) is Outcome.OK
    assert scene.platform.asked == []
    assert not (_last_run(scene) / "postmortem.md").exists()


@pytest.mark.parametrize("measured", [NOTHING, {**HEALTHY, "latency": NOTHING["latency"]}], ids=["no data", "one without data"])
def test_too_little_data_is_inconclusive(tmp_path: Path, measured: Mapping[str, Any]) -> None:
    """No data is neither healthy nor broken: exit 7, nothing changed."""
    scene = Scene(tmp_path)
    scene.signals.now["1.1.0"] = measured
    assert _execute(scene) is Outcome.INCONCLUSIVE
    assert scene.platform.asked == []


def test_a_failed_verification_escalates_and_never_rolls_back_again(tmp_path: Path) -> None:
    """The target fails too: the bad release is marked, the target keeps its standing, a person must take over."""
    scene = Scene(tmp_path)
    scene.signals.now["1.0.0"] = FAILING
    assert _execute(scene) is Outcome.VERIFICATION_FAILED
    assert scene.platform.asked == ["1.0.0"]
    marks = next(event.data["marks"] for event in journal.read(_last_run(scene)) if "marks" in event.data)
    assert [(one["version"], one["standing"]) for one in marks] == [("1.1.0", "bad")]
    assert scene.ledger.standing(BAD.digest) is Standing.BAD
    assert "not verified" in (_last_run(scene) / "postmortem.md").read_text()


def test_a_platform_that_never_converges_escalates(tmp_path: Path) -> None:
    """What the platform says counts, not that it accepted the request."""
    scene = Scene(tmp_path)
    scene.platform.stuck = True
    assert _execute(scene) is Outcome.VERIFICATION_FAILED
    assert scene.platform.asked == ["1.0.0"]


def test_a_refusing_rail_changes_nothing(tmp_path: Path) -> None:
    """With the kill switch off an automatic run ends as refused, and says which rail it was."""
    scene = Scene(tmp_path, automation="off")
    assert _execute(scene) is Outcome.REFUSED
    assert scene.platform.asked == []
    assert "SAGE_OBS_AUTOMATION is off" in (_last_run(scene) / "postmortem.md").read_text()


def test_without_approval_the_run_waits_and_looks_again_when_resumed(tmp_path: Path) -> None:
    """Nobody to ask: exit 4; once approved, what it had read is read anew before anything is changed."""
    scene = Scene(tmp_path)
    waiting = runs.execute(runs.script("incident"), scene.start(automatic=False), scene.world)
    assert waiting.waiting
    assert waiting.outcome is None
    assert scene.platform.asked == []
    scene.signals.now["1.1.0"] = HEALTHY
    resumed = runs.resume(_last_run(scene), replace(scene.world, approve=lambda _: True), by="test")
    assert resumed.outcome is Outcome.OK
    assert scene.platform.asked == []


def test_an_approved_run_that_waited_goes_on(tmp_path: Path) -> None:
    """Approved while it still fails: it rolls back."""
    scene = Scene(tmp_path)
    runs.execute(runs.script("incident"), scene.start(automatic=False), scene.world)
    resumed = runs.resume(_last_run(scene), replace(scene.world, approve=lambda _: True), by="test")
    assert resumed.outcome is Outcome.OK
    assert scene.platform.asked == ["1.0.0"]


def test_a_person_may_decline(tmp_path: Path) -> None:
    """No means no: refused, nothing changed."""
    scene = Scene(tmp_path, approve=lambda _: False)
    assert _execute(scene, automatic=False) is Outcome.REFUSED
    assert scene.platform.asked == []


def test_a_person_may_roll_back_what_no_trigger_complains_about(tmp_path: Path) -> None:
    """`rollback` is a person's decision; the rails only warn that no trigger fails."""
    scene = Scene(tmp_path, approve=lambda _: True)
    scene.signals.now["1.1.0"] = HEALTHY
    assert _execute(scene, "rollback", automatic=False) is Outcome.OK
    assert scene.platform.asked == ["1.0.0"]


@pytest.mark.parametrize("automatic", [False, True], ids=["person", "automatic"])
def test_a_dry_run_reads_and_leaves_no_trace(tmp_path: Path, *, automatic: bool) -> None:
    """The plan is the real one, and neither disk, lock nor platform is touched, even where everyone would say yes."""
    scene = Scene(tmp_path, approve=lambda _: True)
    before = sorted(tmp_path.rglob("*"))
    with holding(tmp_path / "elsewhere", ["deploy-sage-agent"], run="other"):
        progress = runs.preview(runs.script("incident"), scene.start(automatic=automatic), scene.world)
    assert progress.decision is not None
    assert progress.decision.target == GOOD
    assert not progress.decision.refusals
    assert progress.outcome is Outcome.OK
    assert scene.platform.asked == []
    assert [path for path in sorted(tmp_path.rglob("*")) if "elsewhere" not in path.parts] == before


def test_a_second_run_is_told_who_holds_the_service(tmp_path: Path) -> None:
    """Two runs at once: the second ends with the first one's id, and leaves no run behind."""
    scene = Scene(tmp_path)
    with holding(tmp_path, ["deploy-sage-agent"], run="the-first"), pytest.raises(LockHeldError, match="the-first"):
        _execute(scene)
    assert runs.folders(tmp_path) == ()


@pytest.mark.parametrize("full_from", range(1, 12))
def test_a_full_disk_stops_the_run_before_the_next_effect(tmp_path: Path, full_from: int) -> None:
    """Without an intent on disk nothing is changed; with room again the run ends as it would have."""
    scene, written = Scene(tmp_path), 0

    def write(path: Path, record: Mapping[str, Any]) -> None:
        nonlocal written
        written += 1
        if written >= full_from:
            raise OSError(errno.ENOSPC, "No space left on device")
        append_json(path, record)

    with pytest.raises(JournalError, match="No space left on device"):
        runs.execute(runs.script("incident"), scene.start(), scene.world, write=write)
    meant = any(event.data.get("effect") == "reversible" for folder in runs.folders(tmp_path) for event in journal.read(folder))
    assert meant or scene.platform.asked == []
    if full_from > 1:
        assert runs.resume(_last_run(scene), scene.world, by="test").outcome is Outcome.OK
        assert scene.platform.asked == ["1.0.0"]


def test_a_run_that_is_asked_to_stop_can_be_resumed(tmp_path: Path) -> None:
    """Stopped while it waits for convergence, it goes on there and asks the platform nothing twice."""
    scene = Scene(tmp_path)

    def stop(seconds: float) -> None:
        raise StoppedError(f"stopped instead of sleeping {seconds} s")

    with pytest.raises(StoppedError):
        runs.execute(runs.script("incident"), scene.start(), replace(scene.world, sleep=stop))
    assert runs.unfinished(tmp_path) == (_last_run(scene),)
    assert runs.resume(_last_run(scene), scene.world, by="test").outcome is Outcome.OK
    assert scene.platform.asked == ["1.0.0"]
    assert runs.unfinished(tmp_path) == ()


def test_a_run_that_has_ended_is_left_as_it_is(tmp_path: Path) -> None:
    """Resuming it writes nothing."""
    scene = Scene(tmp_path)
    _execute(scene)
    before = (_last_run(scene) / journal.FILE).read_bytes()
    assert runs.resume(_last_run(scene), scene.world, by="test").outcome is Outcome.OK
    assert (_last_run(scene) / journal.FILE).read_bytes() == before


def test_a_run_whose_journal_was_changed_is_not_resumed(tmp_path: Path) -> None:
    """What it says about the past cannot be relied on, so nothing is done by it."""
    scene = Scene(tmp_path)
    runs.execute(runs.script("incident"), scene.start(automatic=False), scene.world)
    path = _last_run(scene) / journal.FILE
    path.write_text(path.read_text().replace("sha256:good", "sha256:evil"))
    with pytest.raises(JournalError, match="was changed"):
        runs.resume(_last_run(scene), replace(scene.world, approve=lambda _: True), by="test")
    assert scene.platform.asked == []


def test_somebody_elses_deployment_meanwhile_is_not_undone(tmp_path: Path) -> None:
    """The plan was made against another release: the run ends as failed and changes nothing."""
    scene = Scene(tmp_path)
    third = Release("1.2.0", "sha256:third", 1001.0)

    def deploy_third(_: object) -> bool:
        scene.platform.desired = scene.platform.running = third
        return True

    scene.approve = deploy_third
    assert _execute(scene, automatic=False) is Outcome.FAILED
    assert scene.platform.asked == []


def test_a_platform_that_refuses_ends_the_run_with_its_reason(tmp_path: Path) -> None:
    """The platform's own words reach the journal, and nothing more is tried."""
    scene = Scene(tmp_path)

    def refuse(target: Release, *, by: str) -> None:
        raise PlatformError(f"no {target.version} for {by}")

    scene.platform.roll_back = refuse  # type: ignore[method-assign]
    assert _execute(scene) is Outcome.FAILED
    assert any("no 1.0.0 for run" in str(event.data.get("text")) for event in journal.read(_last_run(scene)))


def test_the_deadline_ends_a_run_that_takes_too_long(tmp_path: Path) -> None:
    """A run whose approval came after its deadline changes nothing."""
    scene = Scene(tmp_path)

    def late(_: object) -> bool:
        scene.clock.sleep(3600)
        return True

    scene.approve = late
    assert _execute(scene, automatic=False) is Outcome.FAILED
    assert scene.platform.asked == []


def test_a_file_in_the_state_folder_halts_automatic_runs_at_once(tmp_path: Path) -> None:
    """Looked for by every run: put there it refuses, taken away the next run acts."""
    scene = Scene(tmp_path)
    (tmp_path / "automation.off").touch()
    assert _execute(scene) is Outcome.REFUSED
    (tmp_path / "automation.off").unlink()
    assert _execute(scene) is Outcome.OK
    assert scene.platform.asked == ["1.0.0"]


def test_a_clock_that_is_set_is_no_deadline(tmp_path: Path) -> None:
    """An hour that did not pass ends nothing."""
    scene = Scene(tmp_path)

    def set_clock(_: object) -> bool:
        scene.clock.ahead = 3600
        return True

    scene.approve = set_clock
    _execute(scene, automatic=False)
    assert scene.platform.asked == ["1.0.0"]


def test_the_run_keeps_the_runbook_it_was_started_with(tmp_path: Path) -> None:
    """A run is resumed by its own copy of the runbook."""
    scene = Scene(tmp_path)
    runs.execute(runs.script("incident"), scene.start(automatic=False), scene.world)
    copy = _last_run(scene) / "runbooks/rollback.yaml"
    copy.write_text(copy.read_text().replace("Get approval", "Ask nicely"))
    assert any(step.title == "Ask nicely" for step in runs.stored_script(_last_run(scene)).steps)


def test_automatic_rollbacks_are_counted_by_what_they_meant_to_change(tmp_path: Path) -> None:
    """A run that changed nothing does not count against the flap guard; another service's does not either."""
    scene = Scene(tmp_path)
    scene.signals.now["1.1.0"] = HEALTHY
    _execute(scene)
    assert runs.automatic_rollbacks(tmp_path, "sage-agent") == ()
    scene.signals.now["1.1.0"] = FAILING
    _execute(scene)
    assert len(runs.automatic_rollbacks(tmp_path, "sage-agent")) == 1
    assert runs.automatic_rollbacks(tmp_path, "another") == ()


def _forge(folder: Path, changed: Mapping[str, Any]) -> None:
    """Put other data into the first event, with a chain that fits it."""
    first, *_ = journal.read(folder)
    forged = journal.next_event((), at=first.at, run=first.run, kind=first.type, step="", data={**first.data, **changed})
    (folder / journal.FILE).write_text(json.dumps(forged.line()) + "\n")


@pytest.mark.parametrize(
    "changed",
    [{"alerts": 3}, {"made": "up"}, {"parameters": [1]}, {"parameters": {"service": 1}}, {"runbook": None}],
    ids=["type", "key", "parameters", "service", "runbook"],
)
def test_a_journal_that_no_run_wrote_is_left_out_and_said(tmp_path: Path, changed: Mapping[str, Any]) -> None:
    """One corrupt folder is a sentence and not the end of whoever lists, counts or resumes runs."""
    scene, said = Scene(tmp_path), list[str]()
    runs.execute(runs.script("incident"), scene.start(automatic=False), scene.world)
    folder = _last_run(scene)
    _forge(folder, changed)
    assert runs.unfinished(tmp_path, say=said.append) == ()
    assert [folder.name in text for text in said] == [True]
    assert runs.covering(tmp_path, "sage-agent", at=0) is None
    assert runs.of_alert(tmp_path, "key") is None
    assert runs.automatic_rollbacks(tmp_path, "sage-agent") == ((folder / journal.FILE).stat().st_mtime,)
    with pytest.raises(JournalError, match="no run writes"):
        runs.resume(folder, scene.world, by="test")


def test_a_run_that_has_ended_is_sealed(tmp_path: Path) -> None:
    """Cut back to where it was under way, it is not taken for a run to resume; a crash before the seal is made good by a resumption."""
    scene = Scene(tmp_path)
    _execute(scene)
    folder = _last_run(scene)
    (folder / journal.SEAL).unlink()
    runs.resume(folder, scene.world, by="test")
    lines = (folder / journal.FILE).read_text().splitlines(keepends=True)
    (folder / journal.FILE).write_text("".join(lines[:-2]))
    assert runs.unfinished(tmp_path) == ()
    with pytest.raises(JournalError, match="sealed"):
        runs.resume(folder, scene.world, by="test")


def test_the_state_of_a_run_is_the_fold_of_its_journal(tmp_path: Path) -> None:
    """What the engine holds in memory is what anyone reads from the disk."""
    scene = Scene(tmp_path)
    progress = runs.execute(runs.script("incident"), scene.start(), scene.world)
    assert fold(journal.read(_last_run(scene))) == progress
