"""The engine: it walks the steps, writes down what it is about to do and what came of it, and can be killed at any point.

All it knows of the run is the fold of the journal. A step that has an intent but no finish is attempted again; an action then asks its
probe first, so its effect happens at most once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from sage_obs.runbooks import postmortem_text
from sage_obs.runbooks.journal import Event, EventType, Log
from sage_obs.runbooks.model import READING, Effect, Kind, Next, Outcome, Runbook, Step, flatten
from sage_obs.runbooks.progress import Progress, advance, fold
from sage_obs.runbooks.records import overall
from sage_obs.runbooks.steps import HANDLERS, Handler, Result, Situation, attempt, intent
from sage_obs.runbooks.world import World
from sage_obs.slo.triggers import Verdict


@dataclass(frozen=True, slots=True)
class Script:
    """What is run: the runbook, and those it may call by name."""

    runbook: Runbook
    library: Mapping[str, Runbook]

    @property
    def steps(self) -> tuple[Step, ...]:
        """The steps in the order they run."""
        return flatten(self.runbook, self.library)


class Engine:
    """Runs one script over one journal. Without `folder` it is a dry run: it only reads. `watch` is shown every event."""

    def __init__(
        self, script: Script, log: Log, world: World, *, folder: Path | None, watch: Callable[[Event], None] = lambda _: None
    ) -> None:
        self._script = script
        self._log = log
        self._world = world
        self._folder = folder
        self._watch = watch
        self._began = world.monotonic()
        self.progress: Progress = fold(log.events)

    def run(self) -> Progress:
        """Go on from where the journal stands until the end, or until a person is needed.

        Raises JournalError when the journal cannot be written, StoppedError when the process is asked to stop; the run can be resumed.
        """
        if self.progress.outcome is not None:
            return self.progress
        for step in self._script.steps:
            if self._over(step):
                break
            self._step(step)
            if self.progress.waiting:
                return self.progress
        self._close()
        return self.progress

    def _over(self, step: Step) -> bool:
        """Whether to leave this step and all after it; what is known to be bad is still marked when a verification fails."""
        if self._folder is None and step.kind not in READING:
            return True
        if self.progress.ending is Outcome.VERIFICATION_FAILED:
            return False
        return self.progress.ending is not None

    def _close(self) -> None:
        if self._folder is not None and self._needs_closing():
            for step in self._script.runbook.closing:
                self._step(step)
        outcome = self.progress.ending or Outcome.OK
        self._append(EventType.RUN_FINISHED, data={"outcome": outcome.value, "exit_code": int(outcome.exit_code)})

    def _needs_closing(self) -> bool:
        """A run that found something wrong, or changed something, gets its post-mortem."""
        return overall(self.progress.findings) is Verdict.FAIL or self._changed()

    def _step(self, step: Step) -> None:
        if step.id in self.progress.finished:
            return
        if self.progress.ending is Outcome.VERIFICATION_FAILED and step.kind not in (Kind.RECORD, Kind.POSTMORTEM):
            return
        now = Situation(self._world, self.progress, step, self._script.runbook.limits, self._folder)
        result = self._late(step) or attempt(self._prepared, now)
        if result.ends is Outcome.WAITING_FOR_APPROVAL:
            self._append(EventType.RUN_PAUSED, step=step.id, data={"text": result.text})
            return
        self._finish(step, result)

    def _prepared(self, now: Situation) -> Result:
        """Write the intent unless it stands there already, then do it."""
        if now.step.id not in self.progress.intended:
            self._append(EventType.STEP_INTENT, step=now.step.id, data=intent(now))
        return self._handler(now.step)(now)

    def _handler(self, step: Step) -> Handler:
        if step.kind is Kind.POSTMORTEM:
            return lambda now: postmortem_text.step(self._log.events, now)
        return HANDLERS[step.kind, step.use]

    def _late(self, step: Step) -> Result | None:
        late = self._world.monotonic() - self._began > self._script.runbook.limits.deadline
        if not late or step.kind in (Kind.RECORD, Kind.POSTMORTEM):
            return None
        ends = Outcome.VERIFICATION_FAILED if self._changed() else Outcome.FAILED
        return Result(Verdict.FAIL, "the run's deadline has passed", ends=ends)

    def _changed(self) -> bool:
        return any(event.data["effect"] != Effect.NONE for event in self.progress.intended.values())

    def _finish(self, step: Step, result: Result) -> None:
        ends = result.ends or _ending(step, result.verdict)
        data = {
            "kind": step.kind.value,
            "title": step.title,
            "verdict": result.verdict.value,
            "text": result.text,
            "ends": ends.value if ends else None,
        }
        self._append(EventType.STEP_FINISHED, step=step.id, data={**data, **result.found})

    def _append(self, kind: EventType, *, step: str = "", data: Mapping[str, object]) -> None:
        event = self._log.append(kind, step=step, data=data)
        self.progress = advance(self.progress, event)
        self._watch(event)


def _ending(step: Step, verdict: Verdict) -> Outcome | None:
    """Where a step's verdict takes the run, None for on to the next step."""
    follows = {Verdict.PASS: step.on_pass, Verdict.FAIL: step.on_fail, Verdict.UNKNOWN: step.on_unknown}[verdict]
    match follows:
        case Next.CONTINUE:
            return None
        case Next.FINISH:
            return Outcome.OK
        case Next.ESCALATE:
            return Outcome.VERIFICATION_FAILED
        case Next.STOP:
            return Outcome.INCONCLUSIVE if verdict is Verdict.UNKNOWN else Outcome.FAILED
