"""Which release to go back to: by proof, not by "the previous one"."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sage_obs.errors import PlatformError
from sage_obs.platforms.base import Platform, Release
from sage_obs.platforms.ledger import Ledger, Standing

LAST_KNOWN_GOOD: Final = "last-known-good"
"""The value of a runbook's `to` that asks for the release most recently deployed of those proven good."""


@dataclass(frozen=True, slots=True)
class Choice:
    """The target and what the ledger says of it, or None; `reason` says why it, `damaged` which better ones are unusable and why."""

    target: Release | None
    standing: Standing
    reason: str
    damaged: tuple[str, ...] = ()


def choose(platform: Platform, ledger: Ledger, *, current: Release, to: str) -> Choice:
    """The release to go back to. Only intact releases are chosen. Raises PlatformError where the records cannot be read."""
    return _last_known_good(platform, ledger, current) if to == LAST_KNOWN_GOOD else _named(platform, ledger, to)


def _named(platform: Platform, ledger: Ledger, version: str) -> Choice:
    try:
        target = platform.release(version)
    except PlatformError as exc:
        return Choice(None, Standing.UNPROVEN, f"{version} was asked for", (exc.message,))
    return Choice(target, ledger.standing(target.digest), f"{version} was asked for")


def _last_known_good(platform: Platform, ledger: Ledger, current: Release) -> Choice:
    usable = {one.version: one for one in platform.releases()}
    judged = {entry.digest: entry for entry in ledger.entries()}
    good = [entry for entry in reversed(judged.values()) if entry.standing is Standing.GOOD and entry.digest != current.digest]
    damaged: list[str] = []
    intact: list[Release] = []
    for entry in good:
        try:
            release = platform.release(entry.version)
        except PlatformError as exc:
            damaged.append(exc.message)
            continue
        if release.digest == entry.digest:
            intact.append(usable.get(release.version, release))
    if not intact:
        return Choice(None, Standing.UNPROVEN, "no other release is proven good", tuple(damaged))
    target = max(intact, key=lambda one: one.deployed_at or 0.0)
    reason = f"{target.version} is the last release proven good: {judged[target.digest].reason}"
    return Choice(target, Standing.GOOD, reason, tuple(damaged))
