"""Tasks without a worker: what is sent, and what runs at once where it is asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from celery import Celery, signals

import sage_obs
from sage_obs.conventions import REQUESTS
from tests.support.metrics import value

Start = Callable[..., sage_obs.Handle]


@pytest.fixture
def app() -> Celery:
    """An application whose broker is in memory."""
    made = Celery("shop", broker="memory://", backend="cache+memory://", set_as_current=False)

    @made.task(name="double", shared=False)  # type: ignore[untyped-decorator]
    def double(number: int) -> int:
        if number < 0:
            raise ValueError(number)
        return 2 * number

    return made


def _sent(app: Celery, **options: Any) -> dict[str, Any]:
    """The headers of a task that is sent."""
    app.tasks["double"].apply_async((1,), **options)
    with app.connection_for_read() as connection:
        message = connection.default_channel.basic_get("celery", no_ack=True)
    return dict(message.headers)


def test_a_task_takes_the_trace_of_its_sender_along(instrument: Start, app: Celery) -> None:
    """Inside a request it is the request's; one that is there stays; outside there is none."""
    instrument(libraries=["celery"], sampling_rate=1.0)

    @sage_obs.agent("sender")
    def sender() -> None:
        ids = sage_obs.current()
        assert _sent(app)["traceparent"] == f"00-{ids.trace_id}-{ids.span_id}-01"
        assert _sent(app, headers={"traceparent": "mine"})["traceparent"] == "mine"

    sender()
    assert "traceparent" not in _sent(app)
    assert value(REQUESTS) == 1


def test_an_eager_task_is_part_of_the_request_it_is_called_in(instrument: Start, app: Celery) -> None:
    """Outside a request it is one itself, and counted by how it ended."""
    instrument(libraries=["celery"])
    app.conf.task_always_eager = True

    @sage_obs.agent("caller")
    def caller() -> int:
        return int(app.tasks["double"].delay(2).get())

    assert caller() == 4
    assert value(REQUESTS, operation="caller") == value(REQUESTS) == 1
    app.tasks["double"].delay(2)
    app.tasks["double"].apply((-1,))
    assert value(REQUESTS, operation="double", protocol="celery", outcome="success") == 1
    assert value(REQUESTS, operation="double", outcome="server_error") == 1
    assert sage_obs.current().request_id == ""
    sage_obs.uninstrument()
    assert app.tasks["double"].delay(3).get() == 6


def test_nothing_listens_after_uninstrument(instrument: Start) -> None:
    """Every signal has the receivers it had."""
    every = [one for one in vars(signals).values() if isinstance(one, type(signals.task_prerun))]
    before = [list(one.receivers) for one in every]
    instrument(libraries=["celery"], log_output="/dev/null")
    assert sum(len(one.receivers) for one in every) == sum(map(len, before)) + 9
    sage_obs.uninstrument()
    assert [list(one.receivers) for one in every] == before
