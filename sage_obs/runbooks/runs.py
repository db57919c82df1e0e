"""Runs: their folders under `<state>/runs`, starting one, going on with one, and what earlier ones did."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from sage_obs.errors import ConfigError, JournalError
from sage_obs.files import append_json, replace_text
from sage_obs.runbooks import journal, loader
from sage_obs.runbooks.engine import Engine, Script
from sage_obs.runbooks.journal import Event, EventType, Journal, MemoryLog
from sage_obs.runbooks.locks import holding
from sage_obs.runbooks.model import Effect, Outcome, bind, locks
from sage_obs.runbooks.progress import Progress, Start, fold
from sage_obs.runbooks.world import World

Watch = Callable[[Event], None]
Write = Callable[[Path, Mapping[str, Any]], None]
_RUNBOOKS: Final = "runbooks"
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)


def _silent(event: Event) -> None:
    del event


def new_id(runbook: str, *, at: float) -> str:
    """An id that sorts by time: `20261123T162652Z-incident-3fa9c1`."""
    return f"{datetime.fromtimestamp(at, UTC):%Y%m%dT%H%M%SZ}-{runbook}-{secrets.token_hex(3)}"


def script(name: str) -> Script:
    """A runbook of the catalogue and those it may call. Raises ConfigError for an unknown name."""
    loader.source(name)
    library = loader.catalogue()
    return Script(library[name], library)


def check_service(name: str) -> str:
    """A service's name, which becomes part of paths. Raises ConfigError."""
    if not _NAME.fullmatch(name):
        raise ConfigError(f"`{name}` cannot be a service's name.", hint="Use letters, digits, dots, dashes and underscores, up to 64.")
    return name


def preview(about: Script, start: Start, world: World, *, watch: Watch = _silent) -> Progress:
    """Execute the reads of a runbook: nothing is written, changed or locked. Raises UnavailableError, PlatformError."""
    start = _bound(about, start)
    log = MemoryLog(run="dry-run", clock=world.clock)
    watch(log.append(EventType.RUN_STARTED, data=_data(start)))
    return Engine(about, log, world, folder=None, watch=watch).run()


def execute(about: Script, start: Start, world: World, *, watch: Watch = _silent, write: Write = append_json) -> Progress:
    """Start a run and go on until it ends or waits.

    Raises LockHeldError when another run has the service, JournalError when the journal cannot be written, StoppedError when the
    process is asked to stop.
    """
    start = _bound(about, start)
    run = new_id(start.runbook, at=world.clock())
    with holding(world.state, locks(about.runbook, about.library, start.parameters), run=run):
        folder = _create(world.state, run, about)
        log = Journal(folder, run=run, clock=world.clock, write=write)
        watch(log.append(EventType.RUN_STARTED, data=_data(start)))
        return _run(Engine(about, log, world, folder=folder, watch=watch), log, folder)


def _run(engine: Engine, log: Journal, folder: Path) -> Progress:
    progress = engine.run()
    if progress.outcome is not None:
        journal.seal(folder, log.events)
    return progress


def resume(folder: Path, world: World, *, by: str, watch: Watch = _silent, write: Write = append_json) -> Progress:
    """Go on with a run from its journal, by the runbook it was started with; a run that has ended is left as it is.

    Raises as `execute` does.
    """
    about = stored_script(folder)
    start = started(folder)
    with holding(world.state, locks(about.runbook, about.library, start.parameters), run=folder.name):
        log = Journal(folder, run=folder.name, clock=world.clock, write=write)
        log.verify()
        if fold(log.events).outcome is None:
            watch(log.append(EventType.RUN_RESUMED, data={"by": by, "pid": os.getpid()}))
        return _run(Engine(about, log, world, folder=folder, watch=watch), log, folder)


def _bound(about: Script, start: Start) -> Start:
    parameters = bind(about.runbook, start.parameters)
    check_service(parameters["service"])
    return Start.read({**_data(start), "parameters": parameters})


def _data(start: Start) -> dict[str, Any]:
    return {**asdict(start), "alerts": list(start.alerts)}


def _create(state: Path, run: str, about: Script) -> Path:
    """The run's folder, with the runbooks as they are now: editing them later cannot break a run in flight."""
    folder = state / "runs" / run
    try:
        journal.make_private(folder)
        for name in about.library:
            replace_text(folder / _RUNBOOKS / f"{name}.yaml", loader.source(name))
    except OSError as exc:
        shutil.rmtree(folder, ignore_errors=True)  # a responder tries again every second
        raise JournalError(
            f"Cannot write the run's folder {folder} ({exc.strerror}). Nothing was changed.", hint="Make room first."
        ) from exc
    return folder


def stored_script(folder: Path) -> Script:
    """The runbook a run was started with, and those it may call. Raises ConfigError, JournalError."""
    library = loader.load_folder(folder / _RUNBOOKS)
    name = started(folder).runbook
    if name not in library:
        raise JournalError(f"The run's folder {folder} has lost its runbook {name}.", hint="It cannot be resumed.")
    return Script(library[name], library)


def started(folder: Path) -> Start:
    """What a run was started with. Raises JournalError for a journal that is empty or is not what was written."""
    start = fold(journal.trusted(folder)).start
    if start is None:
        raise JournalError(f"The run {folder.name} was never started: its journal is empty.", hint="Nothing was changed by it.")
    return start


def folders(state: Path) -> tuple[Path, ...]:
    """The folders of all runs that were started, oldest first."""
    return tuple(sorted(path.parent for path in (state / "runs").glob(f"*/{journal.FILE}") if path.stat().st_size))


def find(state: Path, run: str) -> Path:
    """The folder of one run by its id, the beginning of it, or `latest`. Raises ConfigError."""
    known = folders(state)
    if run == "latest" and known:
        return known[-1]
    matching = [path for path in known if path.name == run] or [path for path in known if run and path.name.startswith(run)]
    if len(matching) != 1:
        few = "no run" if not matching else f"{len(matching)} runs"
        raise ConfigError(f"There is {few} `{run}` in {state / 'runs'}.", hint="`sage-obs runbook status` lists them.")
    return matching[0]


def automatic_rollbacks(state: Path, service: str) -> tuple[float, ...]:
    """When (Unix time) automatic runs meant to change this service, oldest first.

    A journal that cannot be relied on may hide a rollback, so it counts as one, at the time its file was last changed.
    """
    times: list[float] = []
    for folder in folders(state):
        try:
            times += _intents(folder, service)
        except JournalError:
            times.append((folder / journal.FILE).stat().st_mtime)
    return tuple(sorted(times))


def _intents(folder: Path, service: str) -> list[float]:
    events = journal.trusted(folder)
    start = fold(events).start
    if start is None or not start.automatic or start.parameters.get("service") != service:
        return []
    with journal.interpreting(str(folder / journal.FILE)):
        return [event.at for event in events if event.type is EventType.STEP_INTENT and _changes(event)]


def covering(state: Path, service: str, *, at: float) -> Path | None:
    """The automatic run that rolled this service back, verified it, and ended after the Unix time `at`; None if there is none."""
    for folder in reversed(folders(state)):
        with contextlib.suppress(JournalError):
            events = journal.trusted(folder)
            with journal.interpreting(folder.name):
                if events and events[-1].at >= at and _rolled_back(fold(events), service):
                    return folder
    return None


def _rolled_back(progress: Progress, service: str) -> bool:
    start = progress.start
    ours = start is not None and start.automatic and start.parameters.get("service") == service
    return ours and progress.outcome is Outcome.OK and any(_changes(event) for event in progress.intended.values())


def _changes(event: Event) -> bool:
    return bool(event.data["effect"] != Effect.NONE)


def unfinished(state: Path, *, say: Callable[[str], None] = lambda _: None) -> tuple[Path, ...]:
    """The automatic runs that were begun and have not ended, oldest first; one whose journal cannot be relied on is left out, and said."""
    return tuple(folder for folder in folders(state) if _resumable(folder, say))


def _resumable(folder: Path, say: Callable[[str], None]) -> bool:
    try:
        progress = fold(journal.trusted(folder))
    except JournalError as exc:
        say(f"{folder.name} is left out: {exc}")
        return False
    return progress.start is not None and progress.start.automatic and progress.outcome is None


def of_alert(state: Path, key: str) -> Path | None:
    """The run that answers the alert group with this key, None if none was started."""
    for folder in reversed(folders(state)):
        with contextlib.suppress(JournalError):
            start = fold(journal.trusted(folder)[:1]).start
            if start is not None and start.alert_key == key:
                return folder
    return None
