"""`sage-obs profile top` on a terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import suppress

from sage_obs.cli.profile_table import printable, rows, total
from sage_obs.cli.screen import Screen
from sage_obs.errors import UnavailableError
from sage_obs.profiling.profile import Profile

_AWAY_SECONDS = 1.0
_HEAD = 4
"""Lines above the functions."""


def watch(look: Callable[[], Profile], *, title: str, looks: int, pause: float) -> None:
    """Look again and again, `pause` seconds after each look, until Ctrl+C, or for so many `looks`.

    A service that has answered once may be away for a while, as one is that is deployed; raises UnavailableError for one that has not.
    """
    with suppress(KeyboardInterrupt), Screen() as screen:
        lines: list[str] = []
        for _ in range(looks or sys.maxsize):
            rest = pause
            try:
                profile, words = look(), "Ctrl+C ends it"
                lines = [total(profile), *rows(profile, most=screen.height - _HEAD)]
            except UnavailableError as exc:
                if not lines:
                    raise
                words = f"no answer: {exc.message}"
                rest = max(pause, _AWAY_SECONDS)
            screen.show([f"{time.strftime('%H:%M:%S')} {title}; {printable(words)}", "", *lines])
            time.sleep(rest)
