"""What driver and supervisor tell each other: the driver writes `desired.json`, the supervisor `status.json`, each replaced whole."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sage_obs.errors import PlatformError
from sage_obs.files import replace_text
from sage_obs.platforms.base import Instance


@dataclass(frozen=True, slots=True)
class Desired:
    """The release that shall run. Every request has a number of its own, so that asking again is something new to try."""

    version: str
    digest: str
    request: int
    at: float
    by: str


@dataclass(frozen=True, slots=True)
class Status:
    """What the supervisor did and sees: the last request it has settled, the instances, its heartbeat (Unix time)."""

    pid: int
    heartbeat: float
    settled: int
    detail: str
    instances: tuple[Instance, ...]


def write_desired(root: Path, desired: Desired) -> None:
    """Publish a request. Raises OSError."""
    replace_text(root / "desired.json", json.dumps(asdict(desired), indent=2, sort_keys=True) + "\n")


def read_desired(root: Path) -> Desired | None:
    """The request in force, None before the first. Raises PlatformError when it cannot be read."""
    data = _read(root / "desired.json")
    try:
        return None if data is None else Desired(**data)
    except TypeError as exc:
        raise _unreadable(root / "desired.json") from exc


def write_status(root: Path, status: Status) -> None:
    """Publish what runs. Raises OSError."""
    replace_text(root / "status.json", json.dumps(asdict(status), indent=2, sort_keys=True) + "\n")


def read_status(root: Path) -> Status | None:
    """The last status a supervisor left, None if none ever ran. Raises PlatformError when it cannot be read."""
    data = _read(root / "status.json")
    try:
        return None if data is None else Status(**{**data, "instances": tuple(Instance(**one) for one in data["instances"])})
    except (TypeError, KeyError) as exc:
        raise _unreadable(root / "status.json") from exc


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as exc:
        raise _unreadable(path) from exc


def _unreadable(path: Path) -> PlatformError:
    return PlatformError(f"The platform's record {path} cannot be read.", hint="Remove it and start `sage-obs up` again.")
