"""Where a stack keeps its files, and the note a running stack leaves for other commands.

Everything lives under one state folder (`.sage-obs/` unless told otherwise):
`stack.json`, `platform/`, `prometheus/`, `alertmanager/`, `runs/`, `locks/`, `logs/`, `bin/`.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from sage_obs.files import replace_text

DEFAULT_STATE: Final = Path(".sage-obs")
_NOTE: Final = "stack.json"


@dataclass(frozen=True, slots=True)
class StackNote:
    """A running stack: its supervisor's pid, the profile of its rules and its addresses ("" where a part is not running)."""

    pid: int
    profile: str
    prometheus_url: str
    alertmanager_url: str
    responder_url: str
    agent_url: str

    def write(self, state: Path) -> None:
        """Leave the note. Raises OSError."""
        replace_text(state / _NOTE, json.dumps(asdict(self), indent=2, sort_keys=True) + "\n")


def read_note(state: Path) -> StackNote | None:
    """The note of the stack that runs on this state folder, None where there is none or its supervisor is gone."""
    try:
        note = StackNote(**json.loads((state / _NOTE).read_text()))
        os.kill(note.pid, 0)
    except (OSError, ValueError, TypeError):
        return None
    return note


def remove_note(state: Path) -> None:
    """Take the note away when the stack stops."""
    (state / _NOTE).unlink(missing_ok=True)
