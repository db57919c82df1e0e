"""A terminal's other screen: what is drawn there is gone when it is left, and what was there before is back."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Self

import click

_ENTER = "\x1b[?1049h\x1b[?25l\x1b[?7l"  # the other screen, without a cursor, long lines cut
_LEAVE = "\x1b[?7h\x1b[?25h\x1b[?1049l"
_HOME, _END_OF_LINE, _END_OF_SCREEN = "\x1b[H", "\x1b[K", "\x1b[J"
_USUAL = 24


class Screen:
    """The other screen for the length of a `with` block."""

    def __enter__(self) -> Self:
        """Go there."""
        click.echo(_ENTER, nl=False)
        return self

    def __exit__(self, *args: object) -> None:
        """Come back."""
        click.echo(_LEAVE, nl=False)

    @property
    def height(self) -> int:
        """Lines there are now: somebody may have made the window larger, and some terminals say that they have none."""
        try:
            return os.get_terminal_size(sys.stdout.fileno()).lines or _USUAL
        except OSError:
            return _USUAL

    def show(self, lines: Sequence[str]) -> None:
        """Draw these over what is there, in one piece, as many as there is room for."""
        shown = [f"{line}{_END_OF_LINE}" for line in lines[: self.height]]
        click.echo(_HOME + "\r\n".join(shown) + _END_OF_SCREEN, nl=False)
