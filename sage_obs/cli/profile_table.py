"""A profile as a table on a terminal."""

from __future__ import annotations

import click

from sage_obs.cli.output import table
from sage_obs.profiling.profile import Profile
from sage_obs.profiling.report import shown, top

_ROWS = 25


def print_profile(profile: Profile) -> None:
    """The functions with the most on stdout; where the profile is from, on stderr."""
    for comment in profile.comments:
        click.echo(comment, err=True)
    click.echo(total(profile))
    header, *lines = rows(profile, most=_ROWS)
    click.secho(header, bold=True)
    for line in lines:
        click.echo(line)


def total(profile: Profile) -> str:
    """What is shared out, and how much of it there is."""
    kind = profile.kinds[profile.position()]
    return f"{kind.type}: {shown(profile.total(), kind.unit)}"


def rows(profile: Profile, *, most: int) -> list[str]:
    """A line for each of the functions with the most, under the header."""
    found = [
        (one.own, f"{one.own_share:.1%}", one.all, f"{one.all_share:.1%}", printable(one.function), printable(one.file))
        for one in top(profile, most=most)
    ]
    return table(("own", "", "with calls", "", "function", "file"), found)


def printable(text: str) -> str:
    """A name from somebody else's process, without what a terminal would obey."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)
