"""The driver of the local platform: it asks through `desired.json` and believes only what the supervisor reports."""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Final

from sage_obs.errors import PlatformError
from sage_obs.files import append_json, read_json_lines
from sage_obs.platforms.base import PlatformState, Release
from sage_obs.platforms.local import releases
from sage_obs.platforms.local.records import Desired, Status, read_desired, read_status, write_desired

STALE_AFTER: Final = 5.0
"""Seconds without a heartbeat after which the supervisor counts as gone."""


class LocalPlatform:
    """Implements `sage_obs.platforms.base.Platform` over the folder `root`, which one supervisor serves."""

    name = "local"

    def __init__(self, root: Path, *, service: str, clock: Callable[[], float] = time.time) -> None:
        self._root = root
        self._clock = clock
        self.service = service

    def describe(self) -> PlatformState:
        """See `Platform.describe`."""
        desired, status = read_desired(self._root), read_status(self._root)
        wanted = Release(desired.version, desired.digest, desired.at) if desired else None
        detail = self._trouble(desired, status)
        return PlatformState(
            service=self.service,
            desired=wanted,
            instances=status.instances if status else (),
            converged=not detail,
            in_progress=bool(desired and status and not self._gone(status) and _busy(desired, status)),
            detail=detail,
        )

    def _gone(self, status: Status) -> bool:
        return self._clock() - status.heartbeat > STALE_AFTER

    def _trouble(self, desired: Desired | None, status: Status | None) -> str:
        """Why the platform is not converged, "" if it is."""
        if desired is None:
            return "no release was ever deployed"
        if status is None or self._gone(status):
            return "the supervisor is not running: start it with `sage-obs up`"
        if status.detail:
            return status.detail
        if status.settled != desired.request:
            return f"{desired.version} is being started"
        return _difference(desired, status)

    def releases(self) -> tuple[Release, ...]:
        """See `Platform.releases`. A corrupt folder is not usable and left out."""
        deployed = self._deployed()
        found = []
        for version in releases.versions(self._root):
            try:
                stored = releases.load(self._root, version)
            except PlatformError:
                continue
            found.append(Release(stored.version, stored.digest, deployed.get(version)))
        return tuple(sorted(found, key=lambda one: (-(one.deployed_at or 0.0), one.version)))

    def release(self, version: str) -> Release:
        """See `Platform.release`."""
        stored = releases.load(self._root, version)
        return Release(stored.version, stored.digest, self._deployed().get(version))

    def _deployed(self) -> dict[str, float]:
        """When each version was last made the desired one, as far as the history can be read: a rollback must not fail over a date."""
        try:
            lines = read_json_lines(self._root / "history.jsonl", strict=False)
        except OSError:
            return {}
        dated = ((line.get("version"), line.get("at")) for line in lines)
        return {version: float(at) for version, at in dated if isinstance(version, str) and isinstance(at, (int, float))}

    def command(self, target: Release) -> tuple[str, ...]:
        """See `Platform.command`."""
        return ("sage-obs", "release", "deploy", target.version, "--state", str(self._root.parent.parent))

    def deploy(self, target: Release, *, by: str) -> None:
        """See `Platform.deploy`."""
        self._request(target, by=by, rollback=False)

    def roll_back(self, target: Release, *, by: str) -> None:
        """See `Platform.roll_back`."""
        self._request(target, by=by, rollback=True)

    def _request(self, target: Release, *, by: str, rollback: bool) -> None:
        stored = releases.load(self._root, target.version)
        if stored.digest != target.digest:
            raise PlatformError(f"Release {target.version} is not the one that was meant: its digest differs.")
        status = read_status(self._root)
        if status is None or self._gone(status):
            raise PlatformError(
                "The local platform's supervisor is not running, so nothing was changed.", hint="Start it with `sage-obs up`."
            )
        desired = Desired(stored.version, stored.digest, uuid.uuid4().hex, self._clock(), by, rollback)
        try:
            write_desired(self._root, desired)
        except OSError as exc:
            raise PlatformError(f"Cannot record the request in {self._root}: {exc.strerror}. Nothing was changed.") from exc
        with contextlib.suppress(OSError):  # the request is in force; only its date would be missing
            append_json(self._root / "history.jsonl", asdict(desired))


def _busy(desired: Desired, status: Status) -> bool:
    return status.settled != desired.request or any(one.draining for one in status.instances)


def _difference(desired: Desired, status: Status) -> str:
    """What still differs from a request that has been dealt with, "" if nothing does."""
    others = [one.version for one in status.instances if one.draining]
    if others:
        return f"{', '.join(others)} is still draining"
    if not status.instances or any(one.digest != desired.digest for one in status.instances):
        return f"{desired.version} is not what runs"
    return "" if all(one.ready for one in status.instances) else f"{desired.version} is not ready"
