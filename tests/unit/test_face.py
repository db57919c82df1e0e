"""What an application can say that only it knows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import sage_obs
from sage_obs import testing
from sage_obs.conventions import BREAKER_STATE, LLM_RETRIES


def test_a_series_of_the_conventions_is_written_wherever_it_stands_now() -> None:
    """Before instrument() nobody reads it, afterwards it counts from zero."""
    sage_obs.series(LLM_RETRIES, "p", "rate_limited").add(5)
    with testing.capture() as captured:
        sage_obs.series(LLM_RETRIES, "p", "rate_limited").add()
        sage_obs.series(BREAKER_STATE, "t").set(0.5)
    assert captured.value("sage_llm_retries_total", provider="p") == 1.0
    assert captured.value("sage_agent_breaker_state", target="t") == 0.5


def test_a_series_with_the_wrong_labels_is_an_error() -> None:
    """The labels are the metric's, all of them."""
    with pytest.raises(ValueError, match="sage_llm_retries_total"):
        sage_obs.series(LLM_RETRIES, "p")


async def _served(work: Callable[[], None]) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:  # noqa: ARG001 - the interface
        work()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b""}

    async def send(event: Any) -> None:
        """Nobody listens."""

    await sage_obs.instrument_app(app)({"type": "http", "method": "GET", "path": "/", "headers": []}, receive, send)


@pytest.mark.parametrize(("waits", "least", "most"), [(True, 0.0, 0.2), (False, 0.2, 9.0)])
def test_what_is_waited_for_is_no_overhead(*, waits: bool, least: float, most: float) -> None:
    """The same pause is overhead where nobody says that it is waiting."""
    import asyncio
    import contextlib
    import time

    def work() -> None:
        with sage_obs.waiting() if waits else contextlib.nullcontext():
            time.sleep(0.2)

    with testing.capture() as captured:
        asyncio.run(_served(work))
    assert least <= captured.value("sage_agent_request_overhead_seconds_sum") < most


def test_the_sampling_rate_is_changed_while_a_process_runs() -> None:
    """From then on, until tracing is set up anew; what is no share of anything is refused."""
    with testing.capture():
        assert sage_obs.sampling(0.25) == sage_obs.sampling() == 0.25
        with pytest.raises(ValueError, match="from 0 to 1"):
            sage_obs.sampling(1.5)
        assert sage_obs.sampling() == 0.25
