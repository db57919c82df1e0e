"""Spans to an OTLP/HTTP endpoint, with every loss counted and every wait bounded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final, Protocol
from urllib.parse import urlsplit

from opentelemetry.context import _SUPPRESS_INSTRUMENTATION_KEY, Context, attach, detach, set_value
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor

from sage_obs.background import Batcher
from sage_obs.conventions import EXPORT_FAILURES, SPANS_DROPPED
from sage_obs.metrics.active import internal_error
from sage_obs.metrics.store import Store
from sage_obs.tracing import otlp
from sage_obs.tracing.post import Answer
from sage_obs.tracing.readable import facts_of, resource_of, scope_of
from sage_obs.tracing.spans import Recorded, bulk
from sage_obs.tracing.tail import Waiting

_CAPACITY: Final = 2048
_BATCH: Final = 512
_DELAY_SECONDS: Final = 1.0
_TRACES_PATH: Final = "/v1/traces"
_SDK_BYTES: Final = 2000
"""What a span of the SDK is taken for while it waits, beside its texts."""
_SCOPE: Final = "sage_obs"
_Group = tuple[bytes, bytes]


def traces_url(endpoint: str, *, base: bool = False) -> str:
    """Where spans are posted: an endpoint without a path, or one that is the `base` of all signals, gets the protocol's `/v1/traces`."""
    bare = urlsplit(endpoint).path in {"", "/"}
    return endpoint.rstrip("/") + _TRACES_PATH if bare or base else endpoint


class Poster(Protocol):
    """Where exports go."""

    def post(self, body: bytes) -> Answer:
        """Post one."""

    def hurry(self) -> None:
        """Try nothing again from now on."""

    def restart_after_fork(self) -> None:
        """Be usable in a forked child."""

    def close(self) -> None:
        """Post no more."""


class ExportProcessor(SpanProcessor):
    """Queues spans, the layer's own and the SDK's, and exports them in batches from a thread of its own."""

    def __init__(self, endpoint: Poster, store: Store, resource: Mapping[str, object], *, tail: bool = False) -> None:
        self._endpoint = endpoint
        self._failures = store.cell(EXPORT_FAILURES, "traces")
        self._dropped = store.cell(SPANS_DROPPED)
        self._own: _Group = otlp.resource(resource), otlp.scope(_SCOPE)
        self._batcher: Batcher[Recorded | ReadableSpan] = Batcher(
            self._export, name="sage-obs-spans", capacity=_CAPACITY, batch=_BATCH, delay=_DELAY_SECONDS, on_drop=self._dropped.add
        )

        self.waiting: Waiting[Recorded | ReadableSpan] | None = Waiting(self._batcher.put, self._dropped.add) if tail else None

    def finished(self, span: Recorded) -> None:
        """Queue a finished span of the layer's own."""
        self._batcher.put(span)

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Nothing happens until a span ends."""

    def on_end(self, span: ReadableSpan) -> None:
        """Queue a finished span of the SDK; one of a trace whose fate is open waits for that."""
        context = span.context
        if context is None or not context.trace_flags.sampled:
            return
        if self.waiting is None:
            self._batcher.put(span)
        else:
            size = _SDK_BYTES + bulk((span.attributes or {}).values()) + sum(bulk((one.attributes or {}).values()) for one in span.events)
            self.waiting.route(f"{context.trace_id:032x}", span, size)

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        """Export what is queued, waiting at most so many milliseconds."""
        return self._batcher.flush(timeout_millis / 1000)

    def close(self, timeout: float) -> bool:
        """Export what is queued and end, within `timeout` seconds; whether all of it went out."""
        self._endpoint.hurry()
        done = self._batcher.close(timeout)
        self._endpoint.close()
        return done

    def restart_after_fork(self) -> None:
        """Begin anew in a forked child; what waited for the fate of its trace waits in the parent."""
        self._endpoint.restart_after_fork()
        self._batcher.restart_after_fork()
        if self.waiting is not None:
            self.waiting.clear()

    def _export(self, batch: Sequence[Recorded | ReadableSpan]) -> None:
        unobserved = attach(set_value(_SUPPRESS_INSTRUMENTATION_KEY, True))
        try:
            answer = self._posted(batch)
        finally:
            detach(unobserved)
        if not answer.taken:
            self._failures.add()
        if lost := answer.rejected if answer.taken else len(batch):
            self._dropped.add(min(lost, len(batch)))

    def _posted(self, batch: Sequence[Recorded | ReadableSpan]) -> Answer:
        try:
            body, untold = self._body(batch)
            answer = self._endpoint.post(body)
            return replace(answer, rejected=answer.rejected + untold)
        except Exception as exc:  # noqa: BLE001 - whatever is wrong with an export, its spans are lost and counted
            return Answer(taken=False, why=type(exc).__name__)

    def _body(self, batch: Sequence[Recorded | ReadableSpan]) -> tuple[bytes, int]:
        """The message, and how many spans are not in it: one whose author gave it a time that is no number must not cost the others."""
        try:
            return otlp.request(self._grouped(batch)), 0
        except Exception as exc:  # noqa: BLE001 - what is on a span is anybody's
            internal_error("traces", exc)
        sound = [one for one in batch if self._can_be_told(one)]
        return otlp.request(self._grouped(sound)), len(batch) - len(sound)

    def _can_be_told(self, span: Recorded | ReadableSpan) -> bool:
        try:
            otlp.request(self._grouped([span]))
        except Exception:  # noqa: BLE001 - as said
            return False
        return True

    def _grouped(self, batch: Sequence[Recorded | ReadableSpan]) -> list[tuple[bytes, bytes, list[otlp.Facts]]]:
        """The spans by who made them."""
        groups: dict[_Group, list[otlp.Facts]] = {}
        own = [span.facts() for span in batch if isinstance(span, Recorded)]
        if own:
            groups[self._own] = own
        for span in batch:
            if isinstance(span, ReadableSpan):
                group = resource_of(span.resource), scope_of(span.instrumentation_scope)
                groups.setdefault(group, []).append(facts_of(span))
        return [(*group, spans) for group, spans in groups.items()]
