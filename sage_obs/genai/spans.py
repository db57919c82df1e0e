"""Spans of the agent's own doing, inside the process."""

from __future__ import annotations

from sage_obs.metrics.active import internal_error
from sage_obs.semconv import CONVERSATION
from sage_obs.tracing.active import OpenSpan, tracing
from sage_obs.tracing.ambient import CONVERSATION_ID, TENANT, ambient
from sage_obs.tracing.context import request_var


def open_internal(name: str, attributes: dict[str, str], *, attach: bool) -> OpenSpan | None:
    """An internal span under the current one; None where nobody receives spans or the request around is not sampled.

    Attached it is the current span until it is left. Its user must leave it before anything else runs in this context.
    """
    try:
        spans, request = tracing().spans, request_var.get()
        if spans is None or (request is not None and not request.sampled):
            return None
        return spans.internal(name=name, attributes={**attributes, **_identity()}, attach=attach)
    except Exception as exc:  # noqa: BLE001 - the telemetry must not break the call
        internal_error("genai", exc)
        return None


def _identity() -> dict[str, str]:
    around = ambient()
    names = {CONVERSATION_ID: CONVERSATION, TENANT: "sage.tenant"}
    return {names[key]: around[key] for key in names if key in around}
