from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from sage_obs.errors import JournalError
from sage_obs.runbooks import journal, postmortem, postmortem_text, runs
from sage_obs.runbooks.records import Exhibit
from tests.support.runbooks import FAILING, Scene


def _ran(scene: Scene, *, automatic: bool = True) -> tuple[journal.Event, ...]:
    runs.execute(runs.script("incident"), scene.start(automatic=automatic), scene.world)
    return journal.read(runs.folders(scene.state)[-1])


def test_every_line_of_the_timeline_stands_on_a_journal_entry(tmp_path: Path) -> None:
    """Number and digest of each line's entry are the journal's, and times never run backwards."""
    events = _ran(Scene(tmp_path))
    draft = postmortem.draft(events)
    digests = {event.seq: event.sha256 for event in events}
    assert draft.timeline
    assert all(digests[line.entry] == line.sha256 for line in draft.timeline)
    assert [line.at for line in draft.timeline] == sorted(line.at for line in draft.timeline)
    assert draft.journal_head == events[-1].sha256


def test_times_are_computed_from_the_journal(tmp_path: Path) -> None:
    """Deployed at 990, the alert's 995, converged, and baked after that."""
    scene = Scene(tmp_path)
    draft = postmortem.draft(_ran(scene))
    assert draft.times.to_detect == 5.0
    mitigated, verified = (draft.times.since_detection(at) for at in (draft.times.mitigated, draft.times.verified))
    assert mitigated is not None
    assert verified is not None
    assert verified - mitigated == pytest.approx(scene.windows.bake)
    seconds = json.loads(postmortem_text.as_json(draft))["seconds"]
    assert seconds == {"deployed_to_detected": 5.0, "detected_to_mitigated": mitigated, "detected_to_verified": verified}


def test_the_root_cause_is_left_to_people_and_gaps_are_shown(tmp_path: Path) -> None:
    """Nothing is invented: no cause, and what could not be captured is listed with its reason."""
    draft = postmortem.draft(_ran(Scene(tmp_path)))
    text = postmortem_text.as_markdown(draft)
    assert text.count(postmortem_text.TO_WRITE) == 2
    assert json.loads(postmortem_text.as_json(draft))["root_cause"] is None
    assert any(gap.startswith("Not captured: metrics of agent-1 (ConnectError") for gap in draft.gaps)


def test_an_unverified_rollback_is_not_called_a_fix(tmp_path: Path) -> None:
    """The summary says that it was not verified, and a person has to take over."""
    scene = Scene(tmp_path)
    scene.signals.now["1.0.0"] = FAILING
    draft = postmortem.draft(_ran(scene))
    assert draft.times.verified is None
    assert "it was not verified that this ended it" in draft.summary
    assert "It was not verified that all triggers pass again." in draft.gaps
    assert any("a person takes over" in action for action in draft.actions)


def test_a_refused_run_restored_nothing(tmp_path: Path) -> None:
    """No release is named as restored, and the reason of the rail is."""
    draft = postmortem.draft(_ran(Scene(tmp_path, automation="off")))
    assert draft.restored is None
    assert draft.bad is not None
    assert "because SAGE_OBS_AUTOMATION is off" in draft.summary


def test_it_is_written_from_the_journal_only(tmp_path: Path) -> None:
    """The same journal gives the same text, wherever and whenever it is drafted."""
    events = _ran(Scene(tmp_path))
    assert postmortem_text.as_markdown(postmortem.draft(events)) == postmortem_text.as_markdown(postmortem.draft(list(events)))
    with pytest.raises(JournalError, match="empty"):
        postmortem.draft(())


def test_a_bar_in_a_text_does_not_break_the_table(tmp_path: Path) -> None:
    """Every row of the timeline has three cells."""
    scene = Scene(tmp_path)
    scene.platform.command = lambda target: ("deploy", target.version, "|", "tee")  # type: ignore[method-assign]
    events = _ran(scene)
    assert any("| tee" in str(event.data.get("command", "")).replace("', '", " ") for event in events)
    rows = [line for line in postmortem_text.as_markdown(postmortem.draft(events)).splitlines() if line.startswith("| 1970")]
    assert rows
    assert all(row.replace("\\|", "").count("|") == 4 for row in rows)


def test_a_flame_graph_is_a_link_and_other_evidence_a_name(tmp_path: Path) -> None:
    """Whoever reads the draft in the run's folder opens the page from there."""
    page = Exhibit("cpu flame graph of a 1", "evidence/a 1-cpu.html", "ab", 7, "")
    draft = replace(
        postmortem.draft(_ran(Scene(tmp_path))), evidence=(page, replace(page, file="evidence/log.txt"), Exhibit("x", "", "", 0, "gone"))
    )
    text = postmortem_text.as_markdown(draft)
    assert "- cpu flame graph of a 1: [evidence/a 1-cpu.html](evidence/a%201-cpu.html), 7 bytes" in text
    assert "`evidence/log.txt`, 7 bytes" in text
    assert "- x: not captured (gone)" in text
