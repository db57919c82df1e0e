from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sage_obs.files import append_json
from sage_obs.platforms.ledger import Standing
from sage_obs.runbooks import journal, runs, steps
from sage_obs.runbooks.model import Outcome
from tests.support.runbooks import BAD, FAILING, HEALTHY, Scene


@pytest.fixture(autouse=True)
def _no_capture(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is captured is another test's subject, and takes time."""
    monkeypatch.setattr(steps, "capture", lambda *_, **__: ())


class KilledError(BaseException):
    """Stands for kill -9: nothing catches it."""


class Killer:
    """A journal writer that dies before or after one of its appends, counted from 0."""

    def __init__(self, at: int, *, after: bool) -> None:
        self.left = at
        self.after = after

    def __call__(self, path: Path, record: Mapping[str, Any]) -> None:
        """Append, or die."""
        if self.left == 0 and not self.after:
            raise KilledError
        append_json(path, record)
        if self.left == 0:
            raise KilledError
        self.left -= 1


def _survive(scene: Scene, kills: list[Killer]) -> Outcome | None:
    """Start a run, be killed again and again, and resume until it ends, as a responder that is always restarted does."""
    for kill in kills:
        try:
            return _go_on(scene, kill)
        except KilledError:
            continue
    return _go_on(scene, append_json)


def _go_on(scene: Scene, write: Any) -> Outcome | None:
    if known := runs.folders(scene.state):
        return runs.resume(known[0], scene.world, by="test", write=write).outcome
    return runs.execute(runs.script("incident"), scene.start(), scene.world, write=write).outcome


def _check(scene: Scene, outcome: Outcome | None, expected: Outcome) -> None:
    assert outcome is expected
    assert scene.platform.asked == ["1.0.0"]
    assert scene.platform.running is not None
    assert scene.platform.running.version == "1.0.0"
    assert scene.ledger.standing(BAD.digest) is Standing.BAD
    for folder in runs.folders(scene.state):
        journal.verify(journal.read(folder), source=str(folder))
    assert (runs.folders(scene.state)[-1] / "postmortem.json").exists()


def _appends() -> int:
    with tempfile.TemporaryDirectory() as folder:
        scene = Scene(Path(folder))
        runs.execute(runs.script("incident"), scene.start(), scene.world)
        return len(journal.read(runs.folders(scene.state)[-1]))


APPENDS = 24
"""How many lines a run from alert to post-mortem writes."""


def test_every_boundary_is_tried() -> None:
    """The parametrisation below covers the whole journal."""
    assert _appends() == APPENDS


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("boundary", range(APPENDS))
@pytest.mark.parametrize("cured", [True, False], ids=["cured", "not-cured"])
def test_killed_at_any_journal_boundary_the_run_ends_the_same(tmp_path: Path, boundary: int, after: bool, cured: bool) -> None:  # noqa: FBT001 - parameters of the table
    """Killed before or after any append, it ends verified or escalated, asks the platform once, and its chain is intact."""
    scene = Scene(tmp_path)
    scene.signals.now["1.0.0"] = HEALTHY if cured else FAILING
    _check(scene, _survive(scene, [Killer(boundary, after=after)]), Outcome.OK if cured else Outcome.VERIFICATION_FAILED)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(kills=st.lists(st.tuples(st.integers(0, 8), st.booleans()), max_size=12))
def test_killed_again_and_again_the_run_still_ends_the_same(kills: list[tuple[int, bool]]) -> None:
    """Any sequence of kills leads to the same end with one effect."""
    with tempfile.TemporaryDirectory() as folder:
        scene = Scene(Path(folder))
        _check(scene, _survive(scene, [Killer(at, after=after) for at, after in kills]), Outcome.OK)
