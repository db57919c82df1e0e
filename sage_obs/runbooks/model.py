"""A runbook as typed data. Reading and changing are different kinds of step; every step has a timeout."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from sage_obs.errors import ConfigError, ExitCode


class Kind(enum.StrEnum):
    """What a step does."""

    CHECK = "check"
    DECIDE = "decide"
    APPROVE = "approve"
    EVIDENCE = "evidence"
    CALL = "call"
    ACTION = "action"
    WAIT = "wait"
    RECORD = "record"
    POSTMORTEM = "postmortem"


READING: Final = frozenset({Kind.CHECK, Kind.DECIDE})
"""Kinds that look and change nothing at all; a dry run executes these."""


class Effect(enum.StrEnum):
    """Whether a step changes the service, and whether that can be undone."""

    NONE = "none"
    REVERSIBLE = "reversible"


class Next(enum.StrEnum):
    """Where a run goes after a step's verdict: on, to a good end, or to an end that names what went wrong."""

    CONTINUE = "continue"
    FINISH = "finish"
    STOP = "stop"
    ESCALATE = "escalate"


class Outcome(enum.StrEnum):
    """How a run ended; each has the exit code of the same name."""

    OK = "ok"
    FAILED = "failed"
    REFUSED = "refused"
    WAITING_FOR_APPROVAL = "waiting_for_approval"
    VERIFICATION_FAILED = "verification_failed"
    INCONCLUSIVE = "inconclusive"

    @property
    def exit_code(self) -> ExitCode:
        """The exit code of a command that ends so."""
        return ExitCode[self.name]


@dataclass(frozen=True, slots=True)
class Step:
    """One step. `use` names what it does within its kind; `timeout` is in seconds; the three `on_` say what each verdict leads to."""

    id: str
    kind: Kind
    title: str
    why: str
    use: str
    timeout: float
    triggers: tuple[str, ...] = ()
    effect: Effect = Effect.NONE
    on_pass: Next = Next.CONTINUE
    on_fail: Next = Next.STOP
    on_unknown: Next = Next.STOP


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter; a value outside `choices`, where there are any, is refused."""

    name: str
    default: str
    help: str
    choices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Allowance:
    """At most `runs` automatic rollbacks within `seconds`."""

    runs: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Limits:
    """`deadline` is the longest a run may take between start or resumption and its last step, in seconds."""

    deadline: float
    automatic: tuple[Allowance, ...]


@dataclass(frozen=True, slots=True)
class Runbook:
    """A runbook. `closing` steps run at the end whatever happened; `locks` are templates over the parameters."""

    name: str
    title: str
    owner: str
    summary: str
    alerts: tuple[str, ...]
    parameters: tuple[Parameter, ...]
    locks: tuple[str, ...]
    limits: Limits
    steps: tuple[Step, ...]
    closing: tuple[Step, ...]


def bind(runbook: Runbook, given: Mapping[str, str]) -> dict[str, str]:
    """Every parameter's value. Raises ConfigError for one that is unknown or not among its choices."""
    known = {one.name: one for one in runbook.parameters}
    for name, value in given.items():
        if name not in known:
            raise ConfigError(f"Runbook {runbook.name} has no parameter `{name}`.", hint=f"It has: {', '.join(known)}.")
        if known[name].choices and value not in known[name].choices:
            raise ConfigError(f"Parameter `{name}` cannot be `{value}`.", hint=f"It can be: {', '.join(known[name].choices)}.")
    return {name: given.get(name, one.default) for name, one in known.items()}


def flatten(runbook: Runbook, library: Mapping[str, Runbook], *, prefix: str = "") -> tuple[Step, ...]:
    """The steps in the order they run, those of a called runbook in place of the call and with its id in front of theirs."""
    steps: list[Step] = []
    for step in runbook.steps:
        if step.kind is Kind.CALL:
            steps += flatten(library[step.use], library, prefix=f"{prefix}{step.id}.")
        else:
            steps.append(replace(step, id=f"{prefix}{step.id}"))
    return tuple(steps)


def locks(runbook: Runbook, library: Mapping[str, Runbook], values: Mapping[str, str]) -> tuple[str, ...]:
    """The names of the resources this runbook and those it calls need, sorted, so that two runs never wait for each other."""
    called = [library[step.use] for step in runbook.steps if step.kind is Kind.CALL]
    names = {_fill(lock, values) for one in (runbook, *called) for lock in one.locks}
    return tuple(sorted(names))


def _fill(template: str, values: Mapping[str, str]) -> str:
    for name, value in values.items():
        template = template.replace(f"{{{{{name}}}}}", value)
    return template
