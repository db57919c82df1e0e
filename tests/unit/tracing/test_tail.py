from __future__ import annotations

import threading

import pytest
from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor

from sage_obs.conventions import ErrorType, Outcome
from sage_obs.genai.requests import Recorder
from sage_obs.metrics.requests import RequestMetrics
from sage_obs.metrics.store import Store
from sage_obs.tracing.active import Tracing
from sage_obs.tracing.active import use as tracing_in_use
from sage_obs.tracing.context import Parent
from sage_obs.tracing.export import ExportProcessor
from sage_obs.tracing.otel import OwnProvider, switch_to
from sage_obs.tracing.own import OwnSpans
from sage_obs.tracing.post import Answer
from sage_obs.tracing.spans import Limits, Recorded
from sage_obs.tracing.tail import Policy, Waiting

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
POLICY = Policy(slow=5.0, expensive=0.5)


@pytest.mark.parametrize(
    ("outcome", "seconds", "cost", "kept"),
    [
        (Outcome.SUCCESS, 4.999, 0.499, False),
        (Outcome.SERVER_ERROR, 0.0, 0.0, True),
        (Outcome.CLIENT_ERROR, 0.0, 0.0, False),
        (Outcome.CANCELLED, 0.0, 0.0, False),
        (Outcome.SUCCESS, 5.0, 0.0, True),
        (Outcome.SUCCESS, 0.0, 0.5, True),
    ],
)
def test_what_is_worth_keeping(outcome: Outcome, seconds: float, cost: float, kept: bool) -> None:  # noqa: FBT001 - a table
    """Failures, and what reached the limits."""
    assert POLICY.keeps(outcome, seconds=seconds, cost=cost) is kept


def _waiting(**limits: int) -> tuple[Waiting[str], list[str], list[int]]:
    kept: list[str] = []
    dropped: list[int] = []
    return Waiting(kept.append, dropped.append, **limits), kept, dropped


def test_a_trace_goes_out_whole_or_not_at_all() -> None:
    """Spans that end after their request go the way of the others."""
    waiting, kept, dropped = _waiting()
    good, bad = waiting.open("good"), waiting.open("bad")
    for trace_, name in ((good, "g1"), (bad, "b1")):
        waiting.add(trace_, name, 10)
    waiting.route("bad", "b2", 10)
    waiting.settle(good, keep=False)
    waiting.settle(bad, keep=True)
    for trace_, name in ((good, "g3"), (bad, "b3")):
        waiting.add(trace_, name, 10)
    waiting.route("good", "g4", 10)
    waiting.route("bad", "b4", 10)
    waiting.route("sampled from the start", "other", 10)
    assert kept == ["b1", "b2", "b3", "b4", "other"]
    assert dropped == [], "what is not worth keeping is no loss"


def test_of_two_requests_in_one_trace_one_is_enough_to_keep_it() -> None:
    """A service that calls itself has two of them; the first to fail decides."""
    waiting, kept, _ = _waiting()
    first, second = waiting.open("t"), waiting.open("t")
    waiting.add(first, "1", 1)
    waiting.settle(first, keep=False)
    assert kept == []
    waiting.add(second, "2", 1)
    waiting.settle(second, keep=True)
    assert kept == ["1", "2"]


@pytest.mark.parametrize("limits", [{"spans": 3}, {"size": 35}], ids=["spans", "bytes"])
def test_what_waits_is_bounded_over_all_traces(limits: dict[str, int]) -> None:
    """The next span is lost and counted, and there is room again when a trace is settled."""
    waiting, kept, dropped = _waiting(**limits)
    first, second = waiting.open("a"), waiting.open("b")
    for number in range(5):
        waiting.add(first if number % 2 else second, f"{number}", 10)
    assert sum(dropped) == 2
    waiting.settle(first, keep=False)
    waiting.settle(second, keep=False)
    again = waiting.open("c")
    for number in range(3):
        waiting.add(again, f"c{number}", 10)
    waiting.settle(again, keep=True)
    assert kept == ["c0", "c1", "c2"]
    assert sum(dropped) == 2


def test_one_trace_does_not_take_all_the_room() -> None:
    """An agent that loops has its first spans kept, and the rest counted."""
    waiting, kept, dropped = _waiting()
    trace_ = waiting.open("t")
    for number in range(1000):
        waiting.add(trace_, str(number), 1)
    waiting.settle(trace_, keep=True)
    assert (len(kept), sum(dropped)) == (256, 744)


def test_requests_that_never_end_do_not_pile_up() -> None:
    """The oldest traces are given up, and what they held is counted."""
    waiting, kept, dropped = _waiting(traces=2)
    traces = [waiting.open(str(number)) for number in range(5)]
    for trace_ in traces:
        waiting.add(trace_, trace_.trace_id, 1)
    for trace_ in traces:
        waiting.settle(trace_, keep=True)
    assert kept == ["3", "4"]
    assert dropped == [0, 0, 0]


def test_nothing_is_lost_between_threads() -> None:
    """Spans end in one thread while their request ends in another."""
    waiting, kept, dropped = _waiting(spans=10**9, size=10**9)

    def work(name: str) -> None:
        for number in range(300):
            trace_ = waiting.open(f"{name}{number}")
            others = threading.Thread(target=waiting.add, args=(trace_, "x", 1))
            others.start()
            waiting.add(trace_, "y", 1)
            waiting.settle(trace_, keep=True)
            others.join()

    threads = [threading.Thread(target=work, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(kept), sum(dropped)) == (2400, 0)


class _Endpoint:
    def __init__(self) -> None:
        self.posts = 0

    def post(self, body: bytes) -> Answer:
        """Take it."""
        self.posts += len(body) > 0
        return Answer(taken=True)

    def hurry(self) -> None:
        """Nothing waits."""

    close = restart_after_fork = hurry


def _tracing() -> tuple[Tracing, OwnProvider, list[Recorded | ReadableSpan], ExportProcessor]:
    """Tail sampling over our own spans; what would be exported is kept."""
    exported: list[Recorded | ReadableSpan] = []
    provider = OwnProvider(Resource.create({}), ratio=0.0)
    processor = ExportProcessor(_Endpoint(), Store(), {}, tail=True)
    processor.waiting = Waiting(exported.append, lambda _: None)
    spans = OwnSpans(provider, exported.append, ratio=0.0, limits=Limits(), waiting=processor.waiting)
    return Tracing(ratio=0.0, propagate=True, spans=spans, tail=POLICY), provider, exported, processor


@pytest.mark.parametrize(("outcome", "kept"), [(Outcome.SERVER_ERROR, True), (Outcome.SUCCESS, False)])
def test_a_request_its_children_and_those_of_others_share_their_fate(
    outcome: Outcome,
    kept: bool,  # noqa: FBT001 - a table
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """All spans of a failed request are exported, of one that went well none; what it calls hears that it is not sampled."""
    tracing, provider, exported, processor = _tracing()
    monkeypatch.setattr("sage_obs.tracing.otel._switch.target", processor)
    provider.add_span_processor(_switch())
    request, server = tracing.begin(name="GET", request_id="r", parent=Parent(TRACE, SPAN, sampled=False))
    assert server is not None
    assert request.tentative
    assert tracing.outgoing() == f"00-{TRACE}-{request.span_id}-00"
    source = tracing.spans
    assert source is not None
    source.client(name="chat", attributes={}).end(name="chat", attributes={}, error_type="")
    with provider.get_tracer("theirs").start_as_current_span("theirs"):
        pass
    server.end(name="GET /x", attributes={}, error_type="")
    server.leave()
    assert exported == []
    assert tracing.settle(request, server, outcome, seconds=0.1) is kept
    assert {span.name for span in exported} == ({"chat", "theirs", "GET /x"} if kept else set())
    processor.close(1)
    switch_to(None)


def test_a_span_of_ours_under_one_of_the_sdk_waits_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    """Made while the fate is open or after that, it goes the way of its trace, and what is called hears that it is not sampled."""
    tracing, provider, exported, processor = _tracing()
    monkeypatch.setattr("sage_obs.tracing.otel._switch.target", processor)
    provider.add_span_processor(_switch())
    request, server = tracing.begin(name="GET", request_id="r", parent=None)
    source = tracing.spans
    assert server is not None
    assert source is not None
    with provider.get_tracer("theirs").start_as_current_span("theirs"):
        assert tracing.outgoing().endswith("-00")
        source.client(name="chat", attributes={}).end(name="chat", attributes={}, error_type="")
        tracing.settle(request, server, Outcome.SUCCESS, seconds=0.1)
        source.client(name="late", attributes={}).end(name="late", attributes={}, error_type="")
    server.end(name="GET", attributes={}, error_type="")
    server.leave()
    assert exported == []
    processor.close(1)
    switch_to(None)


def test_a_request_that_calls_without_end_keeps_its_own_span() -> None:
    """However many spans found no room, the one that says how it went is exported."""
    tracing, _, exported, processor = _tracing()
    tracing_in_use(tracing)
    invocation = Recorder(RequestMetrics(Store(), agent_id="a"), objective=1.0).begin(name="loop", local=True)
    source = tracing.spans
    assert source is not None
    for _ in range(300):
        source.client(name="chat", attributes={}).end(name="chat", attributes={}, error_type="")
    invocation.finish(operation="loop", protocol="call", outcome=Outcome.SERVER_ERROR, error_type=ErrorType.INTERNAL)
    invocation.leave()
    tracing_in_use(Tracing())
    assert [span.name for span in exported][-1] == "loop"
    assert len(exported) == 257
    processor.close(1)


def _switch() -> SpanProcessor:
    from sage_obs.tracing import otel

    return otel._switch


def test_a_sampled_request_is_not_tentative() -> None:
    """What the caller or the ratio has decided stays so."""
    tracing, _, exported, processor = _tracing()
    request, server = tracing.begin(name="GET", request_id="r", parent=Parent(TRACE, SPAN, sampled=True))
    assert server is not None
    assert (request.sampled, request.tentative) == (True, False)
    server.end(name="GET /x", attributes={}, error_type="")
    server.leave()
    assert len(exported) == 1
    assert not trace.get_current_span().get_span_context().is_valid
    processor.close(1)
