"""A run on the command line: who approves it, what is shown of it, and the exit code it ends with."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import click

from sage_obs.errors import ExitCode

if TYPE_CHECKING:
    from sage_obs.runbooks.journal import Event
    from sage_obs.runbooks.progress import Progress
    from sage_obs.runbooks.records import Decision

_COLOURS: Final = {"pass": "green", "fail": "red", "REFUSES": "red", "unknown": "yellow", "allows": "green", "doing": "cyan"}


def guarded(run: Callable[[], Progress]) -> Progress:
    """Run it; on Ctrl-C say how to go on, and let it through."""
    try:
        return run()
    except KeyboardInterrupt:
        click.echo("\nStopped where it was. `sage-obs runbook resume latest` goes on from there.", err=True)
        raise


def exit_code(progress: Progress) -> int:
    """The exit code of a command whose run stands here."""
    if progress.waiting:
        return ExitCode.WAITING_FOR_APPROVAL
    return progress.outcome.exit_code if progress.outcome else ExitCode.RESUMABLE


def person() -> str:
    """Who runs this command, for the journal."""
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "a person"


def approver(*, yes: bool, ask: bool) -> Callable[[Decision], bool | None]:
    """Approves with --yes, asks on a terminal, and is nobody otherwise."""

    def approve(decision: Decision) -> bool | None:
        if yes:
            return True
        if not ask or not sys.stdin.isatty():
            return None
        return _confirm(decision)

    return approve


def _confirm(decision: Decision) -> bool:
    from sage_obs.runbooks import report

    for line in report.decision(decision):
        click.echo(coloured(line))
    return click.confirm("Go back?", default=False)


def printer(*, as_json: bool) -> Callable[[Event], None]:
    """Prints each event of a run: a line for people, or the event as JSON."""
    from sage_obs.runbooks import report

    def show(event: Event) -> None:
        text = json.dumps(event.line(), sort_keys=True) if as_json else coloured(report.line(event))
        if text:
            click.echo(text)

    return show


def coloured(line: str) -> str:
    """A line with its verdict in colour; click leaves colours out where the output is no terminal."""
    words = line.split(maxsplit=2)
    found = next((word for word in words[:2] if word in _COLOURS), None)
    if found is None or os.environ.get("NO_COLOR"):
        return line
    return line.replace(found, click.style(found, fg=_COLOURS[found]), 1)
