"""Ctrl-C and SIGTERM, kept until the work has come to a point where it can be left."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

import click

from sage_obs.errors import ExitCode


class StopRequest:
    """Whether somebody asked this process to stop.

    A handler that raised would do so between any two instructions: an exception inside `Popen.poll` leaves its lock taken, and the
    child can never be waited for again. So the signal is only remembered, and raised where the work looks for it.
    """

    def __init__(self) -> None:
        self._asked = False

    def ask(self, *_: object) -> None:
        """Remember it; fit to be a signal handler."""
        self._asked = True

    def check(self) -> None:
        """Raises KeyboardInterrupt once a stop was asked for."""
        if self._asked:
            raise KeyboardInterrupt


@contextmanager
def stopped_by_signals(code: ExitCode) -> Iterator[StopRequest]:
    """Turn Ctrl-C and SIGTERM into an orderly end: what is inside is left at its next `check`, and the command exits with `code`.

    While it is being left, further signals change nothing.
    """
    request = StopRequest()
    before = {number: signal.signal(number, request.ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield request
    except KeyboardInterrupt:
        click.echo("Stopped.", err=True)
        raise click.exceptions.Exit(code) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
