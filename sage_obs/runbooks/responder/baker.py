"""The baker keeps the ledger honest: a release is good once all triggers have passed for long enough while it was all that ran."""

from __future__ import annotations

from sage_obs.errors import SageObsError
from sage_obs.platforms.base import Release
from sage_obs.platforms.ledger import Standing
from sage_obs.runbooks.records import overall
from sage_obs.runbooks.waits import Streak, converged_on
from sage_obs.runbooks.words import span
from sage_obs.runbooks.world import World
from sage_obs.slo.triggers import TRIGGERS, Verdict

_SLUGS = tuple(one.slug for one in TRIGGERS)


class Baker:
    """Watches the release that runs. Unknown never counts: without traffic nothing is proven."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._streak = Streak()
        self._digest = ""

    def look(self) -> str:
        """Look once; returns the version that was just marked good, "" otherwise. What cannot be read breaks the streak."""
        try:
            return self._look()
        except (SageObsError, OSError):
            self._streak.reset()
            return ""

    def _look(self) -> str:
        release = self._candidate()
        if release is None or self._world.ledger is None:
            self._streak.reset()
            return ""
        verdict = overall(self._world.measure(_SLUGS, (release.version,)))
        if self._streak.observe(verdict, at=self._world.monotonic()) < self._world.windows.bake or verdict is not Verdict.PASS:
            return ""
        reason = f"all triggers passed for {span(self._world.windows.bake)}"
        return release.version if self._world.ledger.mark(release, Standing.GOOD, by="responder", reason=reason) else ""

    def _candidate(self) -> Release | None:
        """The release that runs, if nothing is known of it yet; a release known to be bad is never called good by itself."""
        state = self._world.describe()
        if self._world.ledger is None or state is None or state.desired is None or not converged_on(state, state.desired):
            return None
        if state.desired.digest != self._digest:
            self._digest = state.desired.digest
            self._streak.reset()
        return state.desired if self._world.ledger.standing(state.desired.digest) is Standing.UNPROVEN else None
