"""What may stand behind the question mark, read as Go's net/http/pprof reads it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qs

from sage_obs.profiling.sampler import HZ, MOST_HZ

DEFAULT_SECONDS: Final = 30
MOST_SECONDS: Final = 120
FORMATS: Final = ("pprof", "collapsed", "speedscope", "flamegraph")
_LONGEST: Final = 2048
_FIELDS: Final = 32


class BadParameterError(ValueError):
    """A parameter that cannot be used; the message says which, and what may stand there."""


@dataclass(frozen=True, slots=True)
class Parameters:
    """`seconds` is None where none were asked for; `debug` is Go's level of text, 0 for none."""

    seconds: int | None
    debug: int
    hz: int
    mode: str
    collect: bool
    thread: str
    task: str
    format: str
    pid: int | None


def parse(query: str, *, lenient: bool) -> Parameters:
    """The parameters; where `lenient`, as for the profile of the processor, bad seconds are the default's. Raises BadParameterError."""
    if len(query) > _LONGEST:
        raise BadParameterError(f"the query is longer than {_LONGEST} characters")
    try:
        given = {name: values[0] for name, values in parse_qs(query, keep_blank_values=True, max_num_fields=_FIELDS).items()}
    except ValueError as exc:
        raise BadParameterError("the query cannot be read") from exc
    debug = _whole(given, "debug", 0, 0, 2)
    seconds = _lenient(given) if lenient else _strict(given, debug)
    return Parameters(
        seconds=seconds,
        debug=debug,
        hz=_whole(given, "hz", HZ, 1, MOST_HZ),
        mode=_choice(given, "mode", ("cpu", "wall")),
        collect=given.get("gc", "0") not in {"", "0"},
        thread=given.get("thread", ""),
        task=given.get("task", ""),
        format=_choice(given, "format", FORMATS),
        pid=_whole(given, "pid", 0, 1, 1 << 31) or None,
    )


def _number(text: str) -> int | None:
    digits = text.removeprefix("+")
    return int(digits) if digits.isascii() and digits.isdecimal() and len(digits) < 19 else None  # noqa: PLR2004 - 64 bits, as in Go


def _lenient(given: Mapping[str, str]) -> int:
    return min(_number(given.get("seconds", "")) or DEFAULT_SECONDS, MOST_SECONDS)


def _strict(given: Mapping[str, str], debug: int) -> int | None:
    if not given.get("seconds"):
        return None
    seconds = _number(given["seconds"])
    if not seconds:
        raise BadParameterError('invalid value for "seconds" - must be a positive integer')
    if debug:
        raise BadParameterError("seconds and debug params are incompatible")
    return min(seconds, MOST_SECONDS)


def _whole(given: Mapping[str, str], name: str, default: int, low: int, high: int) -> int:
    """A level of debug that is no number is none, as in Go; of ours, what is wrong is said."""
    if not (text := given.get(name, "")):
        return default
    number = _number(text)
    if name == "debug":
        return min(number or 0, high)
    if number is None or not low <= number <= high:
        raise BadParameterError(f'invalid value for "{name}" - must be a whole number from {low} to {high}')
    return number


def _choice(given: Mapping[str, str], name: str, choices: tuple[str, ...]) -> str:
    text = given.get(name, "") or choices[0]
    if text not in choices:
        raise BadParameterError(f'invalid value for "{name}" - must be one of {", ".join(choices)}')
    return text
