from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage_obs.errors import PlatformError, UnavailableError
from sage_obs.platforms.base import PlatformState
from sage_obs.runbooks.waits import Streak, converged_on, until_converged, until_passing
from sage_obs.slo.triggers import TRIGGERS, Measurement, Trigger, Verdict
from tests.support.runbooks import BAD, FAILING, GOOD, HEALTHY, NOTHING, FakeSignals, Scene

SLUGS = tuple(one.slug for one in TRIGGERS)


def _restored(tmp_path: Path) -> Scene:
    scene = Scene(tmp_path)
    scene.platform.desired = scene.platform.running = GOOD
    return scene


def test_converged_means_every_instance_and_the_platform_itself(tmp_path: Path) -> None:
    """The platform's word, the digest and readiness of each instance: one missing is not converged."""
    state = _restored(tmp_path).platform.describe()
    one = state.instances[0]
    assert converged_on(state, GOOD)
    assert not converged_on(state, BAD)
    assert not converged_on(replace(state, converged=False), GOOD)
    assert not converged_on(replace(state, instances=()), GOOD)
    assert not converged_on(replace(state, instances=(one, replace(one, digest=BAD.digest))), GOOD)
    assert not converged_on(replace(state, instances=(one, replace(one, ready=False))), GOOD)


def test_a_platform_that_cannot_be_read_for_a_moment_is_asked_again(tmp_path: Path) -> None:
    """Trouble on the way is not the end of the wait; its reason is given if it stays."""
    scene = _restored(tmp_path)
    describe, troubles = scene.platform.describe, [True, True, False]

    def flaky() -> PlatformState:
        if troubles.pop(0):
            raise PlatformError("half-written")
        return describe()

    scene.platform.describe = flaky  # type: ignore[method-assign]
    assert until_converged(scene.world, GOOD, timeout=60).verdict is Verdict.PASS
    troubles.extend([True] * 1000)
    waited = until_converged(scene.world, GOOD, timeout=10)
    assert waited.verdict is Verdict.FAIL
    assert "half-written" in waited.text


def test_passing_must_last(tmp_path: Path) -> None:
    """All triggers pass for the bake time on end, and not a moment less."""
    scene = _restored(tmp_path)
    began = scene.clock()
    assert until_passing(scene.world, GOOD, SLUGS, timeout=900).verdict is Verdict.PASS
    assert scene.clock() - began == scene.windows.bake


@pytest.mark.parametrize("ahead", [3600.0, -3600.0], ids=["forward", "back"])
def test_a_clock_that_is_set_changes_no_interval(tmp_path: Path, ahead: float) -> None:
    """Neither is a release proven in two looks, nor does a wait end early or go on for an hour."""
    scene = _restored(tmp_path)

    def sleep(seconds: float) -> None:
        scene.clock.sleep(seconds)
        scene.clock.ahead = ahead

    world, began = replace(scene.world, sleep=sleep), scene.clock.time
    assert until_passing(world, GOOD, SLUGS, timeout=900).verdict is Verdict.PASS
    assert scene.clock.time - began == scene.windows.bake
    scene.platform.desired, scene.platform.stuck, scene.clock.ahead = BAD, True, 0.0
    assert until_converged(world, BAD, timeout=10).verdict is Verdict.FAIL
    assert scene.clock.time - began == scene.windows.bake + 10


class Changing(FakeSignals):
    """Healthy but for one bad moment."""

    def __init__(self, clock: object, moment: float, measured: dict[str, Measurement] | None) -> None:
        super().__init__()
        self.clock, self.moment, self.measured = clock, moment, measured

    def measure(self, trigger: Trigger, *, version: str, at: float | None = None) -> Measurement:
        """See Signals."""
        if self.clock() == self.moment:  # type: ignore[operator]
            if self.measured is None:
                raise UnavailableError("connection refused")
            return self.measured[trigger.slug]
        return super().measure(trigger, version=version, at=at)


def test_a_break_starts_the_bake_anew(tmp_path: Path) -> None:
    """Failing, unknown and unreachable all break it, none ends it."""
    for measured in (dict(FAILING), dict(NOTHING), None):
        scene = _restored(tmp_path)
        began = scene.clock()
        scene.signals = Changing(scene.clock, began + 3, measured)
        assert until_passing(scene.world, GOOD, SLUGS, timeout=900).verdict is Verdict.PASS
        assert scene.clock() - began == 4 + scene.windows.bake


def test_the_verdict_at_the_end_of_a_vain_wait_is_what_was_seen_last(tmp_path: Path) -> None:
    """Failing is fail, no data is unknown; the words say which trigger."""
    scene = _restored(tmp_path)
    scene.signals.now["1.0.0"] = FAILING
    failed = until_passing(scene.world, GOOD, SLUGS, timeout=20)
    assert (failed.verdict, "Error rate 33 %" in failed.text) == (Verdict.FAIL, True)
    scene.signals.now["1.0.0"] = NOTHING
    assert until_passing(scene.world, GOOD, SLUGS, timeout=20).verdict is Verdict.UNKNOWN


def test_a_target_that_no_longer_runs_is_not_verified(tmp_path: Path) -> None:
    """Good numbers of a release that was replaced meanwhile prove nothing."""
    scene = _restored(tmp_path)
    scene.platform.desired = scene.platform.running = BAD
    scene.signals.now["1.1.0"] = HEALTHY
    waited = until_passing(scene.world, GOOD, SLUGS, timeout=20)
    assert waited.verdict is Verdict.UNKNOWN
    assert "no longer runs 1.0.0" in waited.text


@given(verdicts=st.lists(st.sampled_from(list(Verdict)), max_size=30))
def test_a_streak_is_the_time_since_the_last_break(verdicts: list[Verdict]) -> None:
    """Whatever came before the last verdict that was not pass does not count."""
    streak, length = Streak(), 0.0
    for at, verdict in enumerate(verdicts):
        length = streak.observe(verdict, at=float(at))
    passes = 0
    for verdict in reversed(verdicts):
        if verdict is not Verdict.PASS:
            break
        passes += 1
    assert length == max(passes - 1, 0)
