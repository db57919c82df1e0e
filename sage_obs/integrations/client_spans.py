"""The spans that OpenTelemetry's instrumentors make of calls to databases, as the layer wants them.

An instrumentor is given a provider that stands before the layer's own. It lets no span through that nobody would see, keeps values,
messages of exceptions and answers out of those it does, and makes one span of a statement that goes through two libraries. It asks for
the layer's provider when a span begins: what an instrumentor has wrapped, such as a pool's connections, lives longer than the layer.
"""

# ruff: noqa: FBT001, FBT002 - the signatures are those of OpenTelemetry's API

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import INVALID_SPAN, Link, Span, SpanContext, SpanKind, Status, StatusCode
from opentelemetry.util.types import Attributes, AttributeValue

from sage_obs.privacy.redaction import redact_text
from sage_obs.privacy.statements import without_values
from sage_obs.tracing.active import tracing

_STATEMENTS: Final = ("db.statement", "db.query.text", "db.operation", "db.operation.name", "db.query.summary")
_SYSTEMS: Final = ("db.system.name", "db.system")
_KEPT: Final = ("db.", "error.", "net.", "network.", "server.")
_PARAMETERS: Final = ("db.statement.parameters", "db.query.parameter", "db.operation.parameter")
_LONGEST_NAME: Final = 128

_above: Final[ContextVar[Span | None]] = ContextVar("sage_obs_statement_parent", default=None)
"""The parent of a statement's span that is open in a library which passes the statement on to another."""


class ClientSpan(Span):
    """A span of the SDK. Of an error it keeps the type; what stands in statements is settled in the end, when their system is known."""

    def __init__(self, span: Span, attributes: Attributes, *, covers: bool) -> None:
        self._span = span
        self._covers = covers
        self._statements: dict[str, str] = {}
        self._system = ""
        self.set_attributes(attributes or {})

    @property
    def name(self) -> str:
        """Its name, which instrumentors ask for."""
        return str(getattr(self._span, "name", ""))

    def get_span_context(self) -> SpanContext:
        """Its ids."""
        return self._span.get_span_context()

    def is_recording(self) -> bool:
        """Whether it has not ended."""
        return self._span.is_recording()

    def set_attributes(self, attributes: Mapping[str, AttributeValue]) -> None:
        """Set what may be."""
        for key, value in attributes.items():
            self.set_attribute(key, value)

    def set_attribute(self, key: str, value: AttributeValue) -> None:
        """Set it if it says where a call goes or what kind it is, not if it says with which values or what came back."""
        if not key.startswith(_KEPT) or key.startswith(_PARAMETERS):
            return
        if key in _STATEMENTS:
            self._statements[key] = str(value)
            return
        if key in _SYSTEMS:
            self._system = str(value)
        self._span.set_attribute(key, redact_text(value) if isinstance(value, str) else value)

    def add_event(self, name: str, attributes: Attributes = None, timestamp: int | None = None) -> None:
        """Left out: nobody knows what is in it."""

    def add_link(self, context: SpanContext, attributes: Attributes = None) -> None:
        """Left out for the same reason."""

    def record_exception(
        self, exception: BaseException, attributes: Attributes = None, timestamp: int | None = None, escaped: bool = False
    ) -> None:
        """Keep its type: databases put values of rows into messages."""
        del attributes, timestamp, escaped
        self._span.set_attribute("error.type", type(exception).__qualname__)

    def set_status(self, status: Status | StatusCode, description: str | None = None) -> None:
        """Keep the code, and the type of the exception that is being handled."""
        del description
        code = status.status_code if isinstance(status, Status) else status
        if code is StatusCode.ERROR and (error := sys.exc_info()[1]) is not None:
            self.record_exception(error)
        self._span.set_status(Status(code))

    def update_name(self, name: str) -> None:
        """Name it anew."""
        self._span.update_name(_named(name))

    def end(self, end_time: int | None = None) -> None:
        """Finish it."""
        if self._covers:
            _above.set(None)
        for key, statement in self._statements.items():
            self._span.set_attribute(key, without_values(statement, self._system))
        self._statements = {}
        self._span.end(end_time)


class ClientSpans(trace.TracerProvider):
    """The provider an instrumentor is given; it makes spans while it is `on`.

    One of a library that passes statements on `covers` them: one that `yields` makes none of a statement that is covered.
    """

    def __init__(self, *, covers: bool = False, yields: bool = False) -> None:
        self.on = False
        self.covers = covers
        self.yields = yields

    def get_tracer(
        self,
        instrumenting_module_name: str,
        instrumenting_library_version: str | None = None,
        schema_url: str | None = None,
        attributes: Attributes = None,
    ) -> trace.Tracer:
        """A tracer before the layer's own of this name."""
        return _Tracer(self, (instrumenting_module_name, instrumenting_library_version, schema_url, attributes))

    def provider(self) -> trace.TracerProvider | None:
        """The layer's provider, None where a span that begins here would be seen by nobody or comes from above already."""
        found: trace.TracerProvider | None = getattr(tracing().spans, "provider", None) if self.on else None
        if found is None:
            return None
        around = trace.get_current_span()
        if self.yields and _above.get() is around:
            return None
        ids = around.get_span_context()
        return None if ids.is_valid and not ids.trace_flags.sampled else found


class _Tracer(trace.Tracer):
    """Starts the spans of one instrumentor."""

    def __init__(self, spans: ClientSpans, names: tuple[Any, ...]) -> None:
        self._spans = spans
        self._names = names
        self._of: tuple[trace.TracerProvider, trace.Tracer] | None = None

    def start_span(  # noqa: PLR0917 - the API's
        self,
        name: str,
        context: Context | None = None,
        kind: SpanKind = SpanKind.INTERNAL,
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,
        start_time: int | None = None,
        record_exception: bool = True,
        set_status_on_exception: bool = True,
    ) -> Span:
        """A span that is not made current; one that records nothing where none is wanted."""
        del links, record_exception, set_status_on_exception
        span = self._start(name, context, kind, attributes, start_time, covers=self._spans.covers)
        if self._spans.covers:
            _above.set(trace.get_current_span() if span.is_recording() else None)
        return span

    def _start(
        self, name: str, context: Context | None, kind: SpanKind, attributes: Attributes, start_time: int | None, *, covers: bool
    ) -> Span:
        if (provider := self._spans.provider()) is None:
            return INVALID_SPAN
        if self._of is None or self._of[0] is not provider:
            self._of = provider, provider.get_tracer(*self._names)
        span = self._of[1].start_span(_named(name), context, kind, start_time=start_time)
        return ClientSpan(span, attributes, covers=covers) if span.is_recording() else INVALID_SPAN

    @contextmanager
    def start_as_current_span(  # type: ignore[override]  # noqa: PLR0913, PLR0917 - the API's, but for decorating functions
        self,
        name: str,
        context: Context | None = None,
        kind: SpanKind = SpanKind.INTERNAL,
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,
        start_time: int | None = None,
        record_exception: bool = True,
        set_status_on_exception: bool = True,
        end_on_exit: bool = True,
    ) -> Iterator[Span]:
        """A span that is the current one within the block; where none is wanted, the one around stays."""
        del links, record_exception, set_status_on_exception, end_on_exit
        span = self._start(name, context, kind, attributes, start_time, covers=False)
        if not span.is_recording():
            yield span
            return
        before = otel_context.get_current()
        otel_context.attach(trace.set_span_in_context(span, before))
        try:
            yield span
        except Exception:
            span.set_status(StatusCode.ERROR)
            raise
        finally:
            otel_context.attach(before)
            span.end()


def _named(name: str) -> str:
    """A name an instrumentor makes of the first word of a statement, after which a string may follow without a blank."""
    return without_values(name[:_LONGEST_NAME], "")
