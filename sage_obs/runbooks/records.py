"""What steps find out and decide, as values that go into the journal and come back from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sage_obs.conventions import Severity
from sage_obs.platforms.base import Release
from sage_obs.signals.base import ErrorShare, Facts, ProviderFailures
from sage_obs.slo.triggers import Measurement, Trigger, Verdict


@dataclass(frozen=True, slots=True)
class Finding:
    """One trigger measured for one release: the verdict, the value in the threshold's unit and the samples it rests on."""

    trigger: str
    version: str
    verdict: Verdict
    value: float | None
    samples: float | None
    threshold: float

    @classmethod
    def of(cls, trigger: Trigger, version: str, measurement: Measurement) -> Finding:
        """Judge a measurement."""
        verdict = trigger.judge(measurement)
        return cls(trigger.slug, version, verdict, measurement.value, measurement.samples, trigger.threshold)

    @classmethod
    def read(cls, data: Mapping[str, Any]) -> Finding:
        """From the journal."""
        return cls(**{**data, "verdict": Verdict(data["verdict"])})


def overall(findings: tuple[Finding, ...]) -> Verdict:
    """One failing trigger is a failure; otherwise one unknown, or none at all, is unknown."""
    verdicts = {one.verdict for one in findings}
    if Verdict.FAIL in verdicts:
        return Verdict.FAIL
    return Verdict.PASS if verdicts == {Verdict.PASS} else Verdict.UNKNOWN


@dataclass(frozen=True, slots=True)
class Attribution:
    """Whether the current release can be the cause: pass, fail (something else provably is) or unknown, and why."""

    verdict: Verdict
    reason: str

    @classmethod
    def read(cls, data: Mapping[str, Any]) -> Attribution:
        """From the journal."""
        return cls(Verdict(data["verdict"]), data["reason"])


@dataclass(frozen=True, slots=True)
class Assessment:
    """How bad it is, why, what is known of traffic and failures, and whether the release can be the cause."""

    severity: Severity | None
    reason: str
    facts: Facts
    attribution: Attribution

    @classmethod
    def read(cls, data: Mapping[str, Any]) -> Assessment:
        """From the journal."""
        facts = data["facts"]
        return cls(
            Severity(data["severity"]) if data["severity"] else None,
            data["reason"],
            Facts(
                facts["requests_per_second"],
                tuple(ErrorShare(**one) for one in facts["errors"]),
                tuple(ProviderFailures(**one) for one in facts["providers"]),
            ),
            Attribution.read(data["attribution"]),
        )


@dataclass(frozen=True, slots=True)
class Rail:
    """A safety rail's answer: `fail` refuses, `unknown` does not, and the sentence says why."""

    name: str
    verdict: Verdict
    reason: str

    @classmethod
    def read(cls, data: Mapping[str, Any]) -> Rail:
        """From the journal."""
        return cls(data["name"], Verdict(data["verdict"]), data["reason"])


@dataclass(frozen=True, slots=True)
class Decision:
    """Where to go back from and to, why there, the command a person would type, and what every rail says."""

    current: Release | None
    target: Release | None
    reason: str
    command: tuple[str, ...]
    rails: tuple[Rail, ...]

    @property
    def refusals(self) -> tuple[Rail, ...]:
        """The rails that refuse."""
        return tuple(rail for rail in self.rails if rail.verdict is Verdict.FAIL)

    @classmethod
    def read(cls, data: Mapping[str, Any]) -> Decision:
        """From the journal."""
        return cls(
            Release(**data["current"]) if data["current"] else None,
            Release(**data["target"]) if data["target"] else None,
            data["reason"],
            tuple(data["command"]),
            tuple(Rail.read(one) for one in data["rails"]),
        )


@dataclass(frozen=True, slots=True)
class Exhibit:
    """One item of evidence: the file in the run's `evidence` folder with its SHA-256, or the reason there is none."""

    name: str
    file: str
    sha256: str
    size: int
    error: str

    @classmethod
    def read(cls, data: Mapping[str, Any]) -> Exhibit:
        """From the journal."""
        return cls(**data)
