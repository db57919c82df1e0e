"""What driver and supervisor tell each other: the driver writes `desired.json`, the supervisor `status.json`, each replaced whole."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

from sage_obs.errors import PlatformError
from sage_obs.files import replace_text
from sage_obs.platforms.base import Instance

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Desired:
    """The release that shall run. Every request has an id of its own, so that asking again is something new to try.

    `rollback` says that it was asked for because what runs is bad, so what runs is not given long to finish.
    """

    version: str
    digest: str
    request: str
    at: float
    by: str
    rollback: bool


@dataclass(frozen=True, slots=True)
class Status:
    """What the supervisor did and sees.

    `settled` is the request it has dealt with last, `detail` why that did not end as asked; `heartbeat` is Unix time, 0 once it has
    ended. `instances` holds every child that may still answer.
    """

    pid: int
    heartbeat: float
    settled: str
    detail: str
    instances: tuple[Instance, ...]


def write_desired(root: Path, desired: Desired) -> None:
    """Publish a request. Raises OSError."""
    _write(root / "desired.json", desired)


def read_desired(root: Path) -> Desired | None:
    """The request in force, None before the first. Raises PlatformError when it cannot be read."""
    path = root / "desired.json"
    data = _read(path)
    return None if data is None else _checked(Desired, data, path)


def write_status(root: Path, status: Status) -> None:
    """Publish what runs. Raises OSError."""
    _write(root / "status.json", status)


def read_status(root: Path) -> Status | None:
    """The last status a supervisor left, None if none ever ran. Raises PlatformError when it cannot be read."""
    path = root / "status.json"
    data = _read(path)
    if data is None:
        return None
    listed = data.get("instances")
    instances = tuple(_checked(Instance, one, path) for one in listed) if isinstance(listed, list) else ()
    return _checked(Status, {**data, "instances": instances}, path)


def _write(path: Path, record: Desired | Status) -> None:
    replace_text(path, json.dumps(asdict(record), indent=2, sort_keys=True) + "\n")


def _read(path: Path) -> dict[str, Any] | None:
    try:
        data = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as exc:
        raise _unreadable(path) from exc
    if not isinstance(data, dict):
        raise _unreadable(path)
    return data


_KINDS: Mapping[str, tuple[type, ...]] = {
    "str": (str,),
    "int": (int,),
    "float": (int, float),
    "bool": (bool,),
    "tuple[Instance, ...]": (tuple,),
}


def _checked(kind: type[T], data: object, path: Path) -> T:
    """`data` as a record of this kind, each value of its declared type; what an older version did not write has its default."""
    if not isinstance(data, dict):
        raise _unreadable(path)
    data = {field.name: field.default for field in fields(kind) if field.default is not MISSING} | data  # type: ignore[arg-type]
    wrong = [field.name for field in fields(kind) if not isinstance(data.get(field.name), _KINDS[str(field.type)])]  # type: ignore[arg-type]
    if wrong:
        raise _unreadable(path)
    return kind(**{field.name: data[field.name] for field in fields(kind)})  # type: ignore[arg-type]


def _unreadable(path: Path) -> PlatformError:
    return PlatformError(
        f"The platform's record {path} cannot be read.", hint="Remove it; `sage-obs release deploy VERSION` then says anew what shall run."
    )
