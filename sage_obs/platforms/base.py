"""The seam between runbooks and platforms.

A driver asks for a state (`deploy`, `roll_back`) and reads the state back (`describe`); it never believes a command's exit code.
Asking twice for the same state is harmless, which is what lets an interrupted run be resumed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Release:
    """A version of a service as the platform can run it. `digest` identifies its content, whatever it is called.

    `deployed_at` is the Unix time it was last made the desired release, None if never.
    """

    version: str
    digest: str
    deployed_at: float | None = None


@dataclass(frozen=True, slots=True)
class Instance:
    """One running copy: what it runs and where it answers. `ready` is what the platform's own health gate last saw.

    One that is `draining` was told to end and may still be answering what it had begun. `profiles_url` is where it would serve
    profiles, "" where nobody knows.
    """

    name: str
    version: str
    digest: str
    pid: int
    url: str
    ops_url: str
    ready: bool
    log: str
    started_at: float
    draining: bool = False
    profiles_url: str = ""


@dataclass(frozen=True, slots=True)
class PlatformState:
    """What a platform wants and what it runs.

    `converged` is true when every instance runs the desired release and is ready; `in_progress` while the platform is still getting
    there; `detail` says in words why it is not converged.
    """

    service: str
    desired: Release | None
    instances: tuple[Instance, ...]
    converged: bool
    in_progress: bool
    detail: str


class Platform(Protocol):
    """A platform driver for one service."""

    @property
    def name(self) -> str:
        """The driver's name: `local`, `swarm`, `kubernetes`."""

    @property
    def service(self) -> str:
        """The service this driver acts on."""

    def describe(self) -> PlatformState:
        """The desired and the running state, read now. Raises PlatformError when it cannot be read."""

    def releases(self) -> tuple[Release, ...]:
        """Usable releases, the most recently deployed first, never-deployed ones last."""

    def release(self, version: str) -> Release:
        """One release, verified to be intact. Raises PlatformError when it is missing or corrupt."""

    def command(self, target: Release) -> tuple[str, ...]:
        """The command line a person would type to make `target` the desired release."""

    def deploy(self, target: Release, *, by: str) -> None:
        """Make `target` the desired release. Returns once the platform has accepted it. `by` is written into the history."""

    def roll_back(self, target: Release, *, by: str) -> None:
        """The same as `deploy`, recorded as a rollback; never means "the previous one", always names its target."""
