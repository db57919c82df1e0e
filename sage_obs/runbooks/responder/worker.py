"""What the responder does with what it was told: one run at a time, resumed after a crash, and the baker in between."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

from sage_obs.conventions import RUNBOOK_INCIDENT
from sage_obs.errors import JournalError, LockHeldError, SageObsError
from sage_obs.runbooks import report, runs
from sage_obs.runbooks.journal import Event
from sage_obs.runbooks.progress import Progress, Start
from sage_obs.runbooks.responder.alerts import Notice
from sage_obs.runbooks.responder.baker import Baker
from sage_obs.runbooks.responder.counters import Counters
from sage_obs.runbooks.responder.inbox import Inbox
from sage_obs.runbooks.world import StoppedError, World

BY: Final = "responder"
_RETRY: Final = 1.0
"""Seconds until something is tried again that another run (a person's, perhaps) or a full disk kept from being done."""


class Worker:
    """Works through the inbox. `world` must have a `sleep` that raises StoppedError once `stopping` is set; `say` gets sentences.

    `parameters` are those of the incident runbook: the service, its platform.
    """

    def __init__(
        self,
        world: World,
        inbox: Inbox,
        counters: Counters,
        *,
        parameters: dict[str, str],
        stopping: threading.Event,
        say: Callable[[str], None],
    ) -> None:
        self._world = world
        self._inbox = inbox
        self._counters = counters
        self._parameters = parameters
        self._stopping = stopping
        self._say = say
        self._baker = Baker(world)
        self._script = runs.script(RUNBOOK_INCIDENT)
        self._complaints: set[str] = set()
        self._aside: set[str] = set()
        self.news = threading.Event()

    def work(self) -> None:
        """Until it is asked to stop. What was begun before a crash goes first."""
        try:
            while not self._stopping.is_set():
                busy = self.turn()
                self.news.wait(_RETRY if busy else self._world.windows.evaluation)
                self.news.clear()
        except StoppedError:
            self._say("stopped; a run that was under way goes on when the responder is started again")

    def turn(self) -> bool:
        """Do everything there is to do once; True where something is left that could not be done yet."""
        left = [not self._attempt(folder.name, partial(self._resume, folder)) for folder in self._unfinished()]
        left += [not self._answer(notice) for notice in self._inbox.waiting() if notice.key not in self._aside]
        if (version := self._baker.look()) != "":
            self._say(f"release {version} is proven good")
        return any(left)

    def _unfinished(self) -> list[Path]:
        return [folder for folder in runs.unfinished(self._world.state, say=self._complain) if folder.name not in self._aside]

    def _answer(self, notice: Notice) -> bool:
        """Run the incident runbook for a notice that asks for it; False where it has to wait."""
        if not notice.firing or not notice.alerts:
            return self._handled(notice, "noted")
        if (covered := self._covered(notice)) is not None:
            return self._handled(notice, f"covered by {covered.name}")
        if runs.of_alert(self._world.state, notice.key) is None and not self._attempt(notice.key, partial(self._execute, notice)):
            return False
        return self._handled(notice, "run")

    def _covered(self, notice: Notice) -> Path | None:
        """The run that already cured this: Alertmanager sends a group anew when another of its alerts joins late."""
        if notice.latest_at is None:
            return None
        return runs.covering(self._world.state, self._parameters["service"], at=notice.latest_at)

    def _handled(self, notice: Notice, result: str) -> bool:
        try:
            self._inbox.handled(notice, result=result, at=self._world.clock())
        except OSError as exc:
            self._complain(f"the inbox cannot be written ({exc.strerror})")
            return False
        return True

    def _complain(self, trouble: str) -> None:
        """Say what is wrong, but not again each time it is tried."""
        if trouble not in self._complaints:
            self._complaints.add(trouble)
            self._say(trouble)

    def _attempt(self, name: str, run: Callable[[], Progress]) -> bool:
        """Run it; False where it is left undone. `name` is the run's id, or the key of the notice that asks for one."""
        began = time.monotonic()
        try:
            progress = run()
        except StoppedError:
            raise
        except (LockHeldError, JournalError) as exc:
            self._complain(str(exc))
            return False
        except SageObsError as exc:
            self._complain(str(exc))
            return True
        except Exception as exc:  # noqa: BLE001 - one run that goes wrong must not keep other alerts from being answered
            self._set_aside(name, exc)
            return False
        if progress.start is not None and progress.outcome is not None:
            self._counters.ran(progress.start.runbook, progress.outcome, seconds=time.monotonic() - began)
        return True

    def _set_aside(self, name: str, exc: Exception) -> None:
        """Leave a run that cannot go on alone for as long as this responder lives."""
        self._aside.add(name)
        self._complain(f"{name} is set aside until the responder is started again ({type(exc).__name__}: {exc})")

    def _execute(self, notice: Notice) -> Progress:
        start = Start(
            runbook=RUNBOOK_INCIDENT,
            parameters=self._parameters,
            automatic=True,
            profile=self._world.windows.name,
            by=BY,
            alert_key=notice.key,
            alerts=notice.alerts,
            alerted_at=notice.started_at,
        )
        return runs.execute(self._script, start, self._world, watch=self._watch)

    def _resume(self, folder: Path) -> Progress:
        return runs.resume(folder, self._world, by=BY, watch=self._watch)

    def _watch(self, event: Event) -> None:
        text = report.line(event)
        if text:
            self._say(text)
