from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sage_obs.conventions import REQUEST_DURATION, REQUEST_OVERHEAD, Outcome
from sage_obs.genai.requests import Recorder
from sage_obs.metrics.requests import RequestMetrics
from sage_obs.metrics.store import Store

WAITS = st.lists(st.tuples(st.integers(0, 100), st.integers(0, 100)).map(sorted), max_size=8)
"""(begin, end) of waits for models and tools: nested, side by side and overlapping, as concurrent calls are. In sixteenths of a second."""


@given(waits=WAITS, total=st.integers(100, 150))
def test_overhead_and_waiting_are_the_whole_request(waits: list[list[int]], total: int) -> None:
    """However waits lie over each other, the overhead is what none of them covers, and both together are the time the request took."""
    now = [0.0]
    store = Store(budget=10, objectives=((REQUEST_OVERHEAD, (0.1, 0.4)),))
    invocation = Recorder(RequestMetrics(store, agent_id="a1"), objective=0.1, clock=lambda: now[0]).begin(name="x")
    invocation.request._clock = lambda: now[0]
    events = sorted([(begin, True) for begin, _ in waits] + [(end, False) for _, end in waits], key=lambda one: (one[0], not one[1]))
    for at, begins in events:
        now[0] = at / 16
        waiting = invocation.request.waiting
        waiting.begin() if begins else waiting.end()
    now[0] = total / 16
    waited = invocation.request.waited()
    invocation.finish(operation="x", protocol="http", outcome=Outcome.SUCCESS, error_type=None)
    invocation.leave()
    covered = len({sixteenth for begin, end in waits for sixteenth in range(begin, end)})
    assert waited == covered / 16
    overhead = store.histogram(REQUEST_OVERHEAD, "a1", "x").sum
    assert overhead + waited == store.histogram(REQUEST_DURATION, "a1", "x", "http").sum == total / 16
