"""The seam between runbooks and whatever measures: one Protocol, and typed values for what it returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from sage_obs.slo.triggers import Measurement, Trigger


@dataclass(frozen=True, slots=True)
class ErrorShare:
    """How large a share of all failed requests, from 0 to 1, had this `error_type`."""

    error_type: str
    share: float


@dataclass(frozen=True, slots=True)
class ProviderFailures:
    """How large a share of a provider's calls, from 0 to 1, failed with this `error_type`, and how many calls that rests on."""

    provider: str
    error_type: str
    share: float
    calls: float


@dataclass(frozen=True, slots=True)
class Facts:
    """What an assessment needs beside the triggers. `requests_per_second` is None where nothing was measured."""

    requests_per_second: float | None
    errors: tuple[ErrorShare, ...]
    providers: tuple[ProviderFailures, ...]


NO_FACTS = Facts(None, (), ())
"""What is known where nothing was measured."""


class Signals(Protocol):
    """A source of measurements. `at` is a Unix time; None means now. A source without a past knows nothing `at` an earlier time."""

    @property
    def name(self) -> str:
        """What people are told the numbers come from."""

    def measure(self, trigger: Trigger, *, version: str, at: float | None = None) -> Measurement:
        """What the trigger looks at, for one release. Raises UnavailableError."""

    def versions(self, *, at: float | None = None) -> tuple[str, ...]:
        """The releases that are seen, the one that started last first. Raises UnavailableError."""

    def facts(self, *, at: float | None = None) -> Facts:
        """Traffic and failures of all releases together. Raises UnavailableError."""

    def snapshot(self, *, seconds: float) -> str:
        """The measurements of the last `seconds` as JSON text, to be kept as evidence. Raises UnavailableError."""


def shares(failures: dict[str, float]) -> tuple[ErrorShare, ...]:
    """Failures by error type as shares of their sum, the largest first; those that did not occur are left out."""
    total = sum(failures.values())
    found = [ErrorShare(name, count / total) for name, count in failures.items() if count > 0]
    return tuple(sorted(found, key=lambda one: (-one.share, one.error_type)))


def provider_failures(errors: dict[tuple[str, str], float], calls: dict[str, float]) -> tuple[ProviderFailures, ...]:
    """Failed calls by provider and error type over all calls by provider, the largest share first."""
    found = [
        ProviderFailures(provider, kind, min(1.0, count / calls[provider]), calls[provider])
        for (provider, kind), count in errors.items()
        if count > 0 and calls.get(provider, 0.0) > 0
    ]
    return tuple(sorted(found, key=lambda one: (-one.share, one.provider, one.error_type)))
