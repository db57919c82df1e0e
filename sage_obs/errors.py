"""The errors a user of sage-obs can meet.

Each message says what happened, where, why, and what to do next; the exit code is what a command ends with.
"""

from __future__ import annotations

import enum
from typing import ClassVar


class ExitCode(enum.IntEnum):
    """Exit codes shared by every command; a runbook's outcome maps onto them one to one."""

    OK = 0
    FAILED = 1
    USAGE = 2
    REFUSED = 3
    WAITING_FOR_APPROVAL = 4
    LOCK_HELD = 5
    VERIFICATION_FAILED = 6
    INCONCLUSIVE = 7
    RESUMABLE = 75
    INTERRUPTED = 130


class ShellCode(enum.IntEnum):
    """What a shell ends with where it cannot run a program, and so does a command of ours that is to become one."""

    CANNOT_RUN = 126
    NOT_FOUND = 127


class SageObsError(Exception):
    """Something the user can act on: the message is a sentence, `hint` the next thing to type or change."""

    exit_code: ClassVar[ExitCode | ShellCode] = ExitCode.FAILED

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".strip()


class ConfigError(SageObsError):
    """A setting is unknown, unreadable or out of range."""

    exit_code = ExitCode.USAGE


class UnavailableError(SageObsError):
    """Something outside could not be reached or gave no usable answer: Prometheus, a target, a binary, a port."""


class PlatformError(SageObsError):
    """The platform refused, or a release on it cannot be used."""


class RefusedError(SageObsError):
    """A safety rail refused to change anything."""

    exit_code = ExitCode.REFUSED


class LockHeldError(SageObsError):
    """Another run holds the resource."""

    exit_code = ExitCode.LOCK_HELD


class DriftError(SageObsError):
    """Rendered files differ from what would be rendered now, or would be overwritten."""


class ProgramNotFoundError(SageObsError):
    """The program to run does not exist; its exit code is a shell's."""

    exit_code = ShellCode.NOT_FOUND


class ProgramUnusableError(SageObsError):
    """The program to run is there and cannot be run as it was asked for; its exit code is a shell's."""

    exit_code = ShellCode.CANNOT_RUN


class JournalError(SageObsError):
    """A journal cannot be written, or what it holds is not what was written."""
