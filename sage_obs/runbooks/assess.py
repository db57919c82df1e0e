"""How bad it is, computed from what was measured."""

from __future__ import annotations

from sage_obs.conventions import Severity
from sage_obs.runbooks.records import Finding
from sage_obs.runbooks.words import finding, quantity
from sage_obs.slo.triggers import CUSTOMER_IMPACT, ERROR_OBJECTIVE, ERROR_RATE, HEALTH, Verdict


def severity(findings: tuple[Finding, ...]) -> tuple[Severity | None, str]:
    """The severity and the reason; None where nothing is wrong, or nothing is known to be.

    P1: people are hurt, that is requests fail, frustrate, or find no instance. P2: another trigger fails. P3: no trigger fails, but
    the objective for errors is missed.
    """
    failing = {one.trigger: one for one in findings if one.verdict is Verdict.FAIL}
    hurting = next((failing[slug] for slug in (CUSTOMER_IMPACT.slug, ERROR_RATE.slug) if slug in failing), None)
    down = failing.get(HEALTH.slug)
    if hurting is None and down is not None and (down.value or 0.0) >= 1.0:
        hurting = down
    if hurting is not None:
        return Severity.P1, f"customers are hurt: {finding(hurting)}"
    if failing:
        return Severity.P2, f"a trigger fails, though customers are not measurably hurt: {finding(next(iter(failing.values())))}"
    missed = next((one for one in findings if one.trigger == ERROR_RATE.slug and (one.value or 0.0) > ERROR_OBJECTIVE), None)
    if missed is not None and missed.verdict is Verdict.PASS:
        objective = quantity(ERROR_OBJECTIVE, "ratio")
        return Severity.P3, f"no trigger fails, but {quantity(missed.value, 'ratio')} of requests do; the objective is {objective}"
    return None, "no trigger fails" if all(one.verdict is Verdict.PASS for one in findings) else "too little is known to say"
