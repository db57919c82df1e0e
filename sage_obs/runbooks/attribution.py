"""Can the current release be the cause? Only what can be shown counts.

A failing trigger is explained without the release where one of these is a measured fact:

- another release already failed it just before this one was deployed;
- another release that runs beside this one fails it now;
- it counts failed requests, and a model provider already failed the same way, over the same share, before this release was deployed.

If every failing trigger is explained so, a rollback is not the fix. That a provider fails *now* proves nothing: a release can send
requests that any provider refuses.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from sage_obs.conventions import ErrorType
from sage_obs.platforms.base import Release
from sage_obs.runbooks.records import Attribution, Finding
from sage_obs.runbooks.words import clock, finding, quantity
from sage_obs.runbooks.world import World
from sage_obs.signals.base import Facts, ProviderFailures
from sage_obs.slo.triggers import CUSTOMER_IMPACT, ERROR_RATE, Verdict

_UPSTREAM: Final = frozenset({ErrorType.RATE_LIMITED, ErrorType.SERVER_ERROR, ErrorType.UNAVAILABLE, ErrorType.TIMEOUT})
_COUNTS_FAILURES: Final = frozenset({ERROR_RATE.slug, CUSTOMER_IMPACT.slug})


def attribute(world: World, current: Release | None, findings: tuple[Finding, ...]) -> Attribution:
    """Read the past and the neighbours of the current release and decide. Raises UnavailableError."""
    failing = tuple(dict.fromkeys(one.trigger for one in findings if one.verdict is Verdict.FAIL))
    if not failing:
        return Attribution(Verdict.UNKNOWN, "no trigger fails, so there is nothing to explain")
    if current is None or current.deployed_at is None:
        return Attribution(Verdict.UNKNOWN, "it is not known when the current release was deployed")
    at = current.deployed_at
    before = world.measure(failing, _others(world.signals.versions(at=at), current), at=at)
    beside = world.measure(failing, _others(world.signals.versions(), current))
    explained = {
        **_provider(failing, world.signals.facts(at=at), world.signals.facts(), at),
        **_failing(beside, "{version}, which runs beside it, fails too: {finding}"),
        **_failing(before, f"it began before the release: at {clock(at)} {{version}} had {{finding}}"),
    }
    return conclude(failing, explained, before)


def _others(versions: tuple[str, ...], current: Release) -> tuple[str, ...]:
    return tuple(version for version in versions if version != current.version)


def _failing(findings: tuple[Finding, ...], template: str) -> dict[str, str]:
    return {one.trigger: template.format(version=one.version, finding=finding(one)) for one in findings if one.verdict is Verdict.FAIL}


def _provider(failing: tuple[str, ...], before: Facts, now: Facts, at: float) -> dict[str, str]:
    same = {(one.provider, one.error_type) for one in now.providers if _is_outage(one)}
    reasons = [
        f"the provider {one.provider} already failed {quantity(one.share, 'ratio')} of its calls ({one.error_type}) at {clock(at)}"
        for one in before.providers
        if _is_outage(one) and (one.provider, one.error_type) in same
    ]
    return {slug: reasons[0] for slug in failing if reasons and slug in _COUNTS_FAILURES}


def _is_outage(one: ProviderFailures) -> bool:
    return one.error_type in _UPSTREAM and one.share > ERROR_RATE.threshold and one.calls >= ERROR_RATE.min_samples


def conclude(failing: tuple[str, ...], explained: Mapping[str, str], before: tuple[Finding, ...]) -> Attribution:
    """The verdict from which failing triggers are explained without the release and what was measured before it."""
    left = [slug for slug in failing if slug not in explained]
    if not left:
        return Attribution(Verdict.FAIL, "; ".join(dict.fromkeys(explained[slug] for slug in failing)))
    known = {one.trigger for one in before if one.verdict is Verdict.PASS}
    passed = [slug for slug in left if slug in known]
    if passed:
        return Attribution(Verdict.PASS, f"{', '.join(passed)} passed just before the release was deployed")
    return Attribution(Verdict.UNKNOWN, f"nothing is known of {', '.join(left)} before the release was deployed")
