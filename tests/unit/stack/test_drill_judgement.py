"""How a drill is judged: each check can fail, and only by what it is about."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from sage_obs.runbooks.journal import EventType, Journal
from sage_obs.stack.drill import Aftermath, Course, judge
from sage_obs.stack.drills import BAD_VERSION, DRILLS, GOOD_VERSION
from sage_obs.stack.timeline import events, moments
from sage_obs.stack.traffic import Second

DRILL = DRILLS["bad-release-responder-killed"]
GOOD_SECOND = Second(at=0, sent=40, bad=0, retried=0, first_bad=0)
AFTER = Aftermath((GOOD_VERSION,), converged=True, account=(GOOD_SECOND,) * 3, retried=0, runs=("ok",))


def _course(folder: Path) -> Course:
    """A drill that went well: first bad response at 100, killed at 106.5 between asking (106) and converging (107)."""
    times = iter((105.0, 106.0, 107.0, 115.0, 116.0))
    journal = Journal(folder, run="r", clock=lambda: next(times))
    journal.append(EventType.RUN_STARTED)
    journal.append(EventType.STEP_INTENT, step="mitigate.undo")
    journal.append(EventType.STEP_FINISHED, step="mitigate.converge", data={"verdict": "pass"})
    journal.append(EventType.STEP_FINISHED, step="mitigate.bake", data={"verdict": "pass"})
    journal.append(EventType.RUN_FINISHED, data={"outcome": "ok"})
    (folder / "postmortem.json").write_text(json.dumps({"bad_release": BAD_VERSION, "good_release": GOOD_VERSION}))
    (folder / "postmortem.md").write_text(f"from {BAD_VERSION} to {GOOD_VERSION}")
    return Course(deployed_at=99, first_bad=100, run=folder, killed_at=106.5, moments=moments(events(folder)))


def _failed(course: Course, after: Aftermath = AFTER) -> list[str]:
    return [check.name for check in judge(DRILL, course, after) if not check.passed]


def test_a_drill_that_went_well_passes_every_check(tmp_path: Path) -> None:
    """The baseline that the others change one thing of."""
    course = _course(tmp_path)
    assert (course.moments.started, course.moments.verified, course.moments.finished) == (105.0, 115.0, 116.0)
    assert _failed(course) == []


@pytest.mark.parametrize(
    ("after", "name"),
    [
        (replace(AFTER, running=(BAD_VERSION,)), "the bad release is gone"),
        (replace(AFTER, running=(GOOD_VERSION, BAD_VERSION)), "the bad release is gone"),
        (replace(AFTER, running=()), "the bad release is gone"),
        (replace(AFTER, converged=False), "the bad release is gone"),
        (replace(AFTER, account=(replace(GOOD_SECOND, bad=7),) * 3), "the error rate is back"),
        (replace(AFTER, account=()), "the error rate is back"),
        (replace(AFTER, account=(replace(GOOD_SECOND, sent=0),) * 3), "the error rate is back"),
        (replace(AFTER, runs=("ok", "ok")), "one run, which ended well"),
        (replace(AFTER, runs=("verification_failed",)), "one run, which ended well"),
        (replace(AFTER, runs=()), "one run, which ended well"),
    ],
)
def test_what_is_seen_afterwards_can_fail_a_drill(tmp_path: Path, after: Aftermath, name: str) -> None:
    """The bad release still running, failing traffic, no traffic, a second or a failed run."""
    assert _failed(_course(tmp_path), after) == [name]


def _late(course: Course) -> None:
    course.moments = replace(course.moments, verified=160.1)


def _never(course: Course) -> None:
    course.moments = replace(course.moments, verified=None)


def _killed_late(course: Course) -> None:
    course.killed_at = 107.5


def _not_killed(course: Course) -> None:
    course.killed_at = None


def _trouble(course: Course) -> None:
    course.trouble = "the agent died"


def _tampered(course: Course) -> None:
    assert course.run is not None
    path = course.run / "journal.jsonl"
    path.write_text(path.read_text().replace('"at":105.0', '"at":104.0'))


def _wrong_postmortem(course: Course) -> None:
    assert course.run is not None
    (course.run / "postmortem.json").write_text(json.dumps({"bad_release": GOOD_VERSION, "good_release": BAD_VERSION}))


def _no_postmortem(course: Course) -> None:
    assert course.run is not None
    (course.run / "postmortem.md").unlink()


@pytest.mark.parametrize(
    ("spoil", "name"),
    [
        (_late, "verified in under 60 s"),
        (_never, "verified in under 60 s"),
        (_killed_late, "the responder was killed in the middle of the rollback"),
        (_not_killed, "the responder was killed in the middle of the rollback"),
        (_trouble, "the drill ran to its end"),
        (_tampered, "the journal is intact"),
        (_wrong_postmortem, "the post-mortem names the right release"),
        (_no_postmortem, "the post-mortem names the right release"),
    ],
)
def test_what_happened_can_fail_a_drill(tmp_path: Path, spoil: Callable[[Course], None], name: str) -> None:
    """Too late, never, killed at the wrong time, a changed journal, a post-mortem that is wrong or missing."""
    course = _course(tmp_path)
    spoil(course)
    assert _failed(course) == [name]
