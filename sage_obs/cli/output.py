"""Tables and lines: coloured on a terminal, plain in a pipe."""

from __future__ import annotations

from collections.abc import Sequence

import click


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print left-aligned columns on stdout; the header is bold where the output is a terminal."""
    for number, text in enumerate(table(header, rows)):
        click.secho(text, bold=number == 0)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of left-aligned columns, the header first."""
    widths = [max(len(line[column]) for line in (header, *rows)) for column in range(len(header))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in (header, *rows)]
