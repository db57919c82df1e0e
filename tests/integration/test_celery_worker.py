"""A real worker over a real Redis, in each of its pools, and what a scraper and a reader of its log see of it."""

from __future__ import annotations

import gc
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import celery
import pytest
from celery import Celery

import sage_obs
from sage_obs.conventions import ERRORS, LLM_CALLS, REQUEST_DURATION, REQUEST_OVERHEAD, REQUESTS, REQUESTS_IN_FLIGHT
from tests.support.databases import redis_server
from tests.support.otlp import Receiver, receiver
from tests.support.workers import Service, get, scraping, serving, total, wait_until

Start = Callable[..., sage_obs.Handle]
pytestmark = pytest.mark.filterwarnings("ignore")
"""Sockets that the sending side leaves to the garbage collector are its own business."""
SOURCE = """\
import logging
import os
import sys
import time

import celery.signals
from celery import Celery
from celery.exceptions import Ignore, Reject
from celery.utils.log import get_task_logger

import sage_obs

sage_obs.instrument("worker", sampling_rate=1.0)
app = Celery("shop", broker=os.environ["BROKER"], backend=os.environ["BROKER"])
app.conf.update(worker_lost_wait=0.2, task_default_queue=os.environ["QUEUE"], broker_connection_retry_on_startup=True)
log = get_task_logger("shop")


@app.task(name="add")
def add(x, y):
    log.info("adding %s", x)
    logging.getLogger("plain").info("still adding %s", x)
    print("printed")
    return x + y


@app.task(name="pid")
def pid():
    log.info("working")
    with sage_obs.llm_call("p", "m"):
        return os.getpid()


@app.task(name="outer")
def outer():
    add.apply(args=(10, 2))
    return add.delay(20, 2).id


@app.task(name="again", bind=True, max_retries=2, default_retry_delay=0)
def again(self):
    if self.request.retries < 2:
        raise self.retry(exc=ConnectionError("gone") if self.request.retries else None)


@app.task(name="refuse", acks_late=True)
def refuse():
    raise Reject("no", requeue=False)


@app.task(name="ignore")
def ignore():
    raise Ignore()


@app.task(name="end")
def end(how):
    if how == "fail":
        raise ValueError("fail")
    if how == "os._exit":
        os._exit(3)
    if how == "sys.exit":
        sys.exit(3)
    if how == "kill":
        os.kill(os.getpid(), 9)
    time.sleep(60)
"""


@dataclass(frozen=True, slots=True)
class Worker:
    """A worker and an application that sends it tasks."""

    service: Service
    app: Celery
    folder: Path

    def send(self, name: str, *args: Any, **options: Any) -> Any:
        """Send a task."""
        return self.app.send_task(name, args, **options)

    def run(self, name: str, *args: Any, **options: Any) -> Any:
        """Send a task and wait for what it returns."""
        return self.send(name, *args, **options).get(timeout=30)

    def count(self, **labels: str) -> float:
        """Tasks counted so far with these labels."""
        return total(self.service.scrape(), REQUESTS.name, protocol="celery", **labels)

    def reaches(self, wanted: float, **labels: str) -> None:
        """Wait for a count."""
        wait_until(lambda: self.count(**labels) == wanted)

    def lines(self) -> list[dict[str, Any]]:
        """What it has logged so far."""
        return [json.loads(line) for line in (self.folder / "lines").read_text().splitlines()]

    def access(self) -> list[dict[str, Any]]:
        """Its access lines so far."""
        return [line for line in self.lines() if line["logger"] == "sage_obs.access"]


def wait_for(found: Callable[[], list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """What is found, once it is."""
    wait_until(lambda: bool(found()))
    return found()


@pytest.fixture(scope="module")
def broker() -> Iterator[str]:
    """The Redis of these tests."""
    with redis_server() as url:
        yield url
        gc.collect()  # a result that is dropped later asks for its server, for ever in older versions


@contextmanager
def working(
    folder: Path, broker: str, *options: str, source: str = SOURCE, runner: tuple[str, ...] = (), **environ: str
) -> Iterator[Worker]:
    """A worker with these options, which is ready."""
    queue = folder.name
    command = (*runner, "-m", "celery", "-A", "service", "worker", "-l", "info", "--without-gossip", "--without-mingle", *options)
    with serving(folder, command, source, BROKER=broker, QUEUE=queue, **environ) as service:
        app = Celery("caller", broker=broker, backend=broker)
        app.conf.task_default_queue = queue
        yield Worker(service, app, folder)
        app.close()


@pytest.fixture(scope="module")
def spans() -> Iterator[Receiver]:
    """Where the worker of most tests sends its spans."""
    with receiver() as received:
        yield received


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory, broker: str, spans: Receiver) -> Iterator[Worker]:
    """A worker with a prefork pool of two."""
    folder = tmp_path_factory.mktemp("prefork")
    with working(folder, broker, "--concurrency", "2", OTEL_EXPORTER_OTLP_ENDPOINT=spans.url) as found:
        yield found


def test_a_task_goes_on_with_the_trace_of_whoever_sent_it(instrument: Start, worker: Worker, spans: Receiver) -> None:
    """What it does, logs and sends on belongs to the sender's trace, under the task's own id; a task inside a task counts with it."""
    instrument(sampling_rate=1.0)
    ids = []

    @sage_obs.agent("sender")
    def sender() -> str:
        ids.append(sage_obs.current())
        sent = worker.send("outer")
        ids.append(sent.id)
        return str(sent.get(timeout=30))

    inner = sender()
    worker.reaches(1, operation="outer", outcome="success")
    worker.reaches(1, operation="add", outcome="success")
    wait_until(lambda: sum(line.get("trace_id") == ids[0].trace_id for line in worker.lines()) == 9)
    lines = [line for line in worker.lines() if line.get("trace_id") == ids[0].trace_id]
    said = {(line["request_id"], line["message"].partition("[")[0]) for line in lines if line["logger"] != "celery.app.trace"}
    assert said == {
        *((ids[1], message) for message in ("adding 10", "still adding 10", "TASK outer SUCCESS")),
        *((inner, message) for message in ("adding 20", "still adding 20", "TASK add SUCCESS")),
    }
    wait_until(lambda: {span.name for span in spans.spans} >= {"outer", "add"})  # beside those of the broker's Redis
    found = {span.name: span for span in spans.spans}
    assert found["outer"].parent_span_id.hex() == ids[0].span_id
    assert found["add"].trace_id.hex() == ids[0].trace_id
    assert found["add"].parent_span_id == found["outer"].span_id


ENDS: dict[str, tuple[str, str, str, dict[str, Any]]] = {
    "fail": ("ValueError", "server_error", "internal", {}),
    "soft": ("SoftTimeLimitExceeded", "server_error", "timeout", {"soft_time_limit": 0.5}),
    "hard": ("TimeLimitExceeded", "server_error", "timeout", {"time_limit": 0.5}),
    "os._exit": ("WorkerLostError", "server_error", "internal", {}),
    "kill": ("WorkerLostError", "server_error", "internal", {}),
    **({"sys.exit": ("WorkerLostError", "server_error", "internal", {})} if celery.VERSION >= (5, 7) else {}),
    "expired": ("TaskRevokedError", "cancelled", "cancelled", {"expires": -1}),
}
"""What its sender sees, and what is counted. Before 5.7 nobody ever hears of a task that exits."""


@pytest.mark.parametrize("how", ENDS)
def test_a_task_that_fails_is_counted_once_wherever_it_ends(worker: Worker, how: str) -> None:
    """An exception, a time limit and a lost process are failures of their kinds; what was never run is none. Each has one access line."""
    raised, outcome, error_type, options = ENDS[how]
    before, errors = worker.count(), total(worker.service.scrape(), ERRORS.name, error_type=error_type)
    with scraping(worker.service.metrics_port):
        sent = worker.send("end", how, **options)
        assert type(sent.get(timeout=30, propagate=False)).__name__ == raised
        worker.reaches(before + 1)
    page = worker.service.scrape()
    assert total(page, ERRORS.name, error_type=error_type) == errors + 1
    wait_until(lambda: total(worker.service.scrape(), REQUESTS_IN_FLIGHT.name) == 0)
    assert total(page, "sage_obs_internal_errors_total") == 0
    (line,) = wait_for(lambda: [line for line in worker.access() if line["request_id"] == sent.id])
    assert (line["operation"], line["outcome"], line["error_type"]) == ("end", outcome, error_type)


def test_a_task_that_is_terminated_was_cancelled(worker: Worker) -> None:
    """Its process dies for it; the time it took is counted, and it is no failure of the service."""
    before = worker.count(outcome="cancelled")
    sent = worker.send("end", "soft")
    wait_until(lambda: total(worker.service.scrape(), REQUESTS_IN_FLIGHT.name) == 1)
    sent.revoke(terminate=True)
    worker.reaches(before + 1, outcome="cancelled")
    (line,) = wait_for(lambda: [line for line in worker.access() if line["request_id"] == sent.id])
    assert (line["outcome"], line["error_type"]) == ("cancelled", "cancelled")
    assert line["duration_ms"] > 0


STATES = {"again": {"cancelled": 2, "success": 1}, "refuse": {"rejected": 1}, "ignore": {"success": 1}}


@pytest.mark.parametrize("name", STATES)
def test_what_celery_calls_no_failure_is_none(worker: Worker, name: str) -> None:
    """Of a retried task the last run counts, the others were called off; a rejection and an ignored state are what they say."""
    worker.send(name)
    worker.reaches(sum(STATES[name].values()), operation=name)
    assert {outcome: worker.count(operation=name, outcome=outcome) for outcome in STATES[name]} == STATES[name]
    page = worker.service.scrape()
    assert total(page, f"{REQUEST_DURATION.name}_count", operation=name) == sum(STATES[name].values())
    assert total(page, f"{REQUEST_OVERHEAD.name}_count", operation=name) == sum(STATES[name].values())


def test_children_that_end_after_each_task_take_nothing_along(tmp_path: Path, broker: str) -> None:
    """One port shows what every child has counted, nothing goes backwards, and each child's last lines are there, once."""
    with working(tmp_path, broker, "--concurrency", "2", "--max-tasks-per-child", "1") as worker:
        with scraping(worker.service.metrics_port) as scraper:
            sent = [worker.send("pid") for _ in range(12)]
            pids = [one.get(timeout=30) for one in sent]
            worker.reaches(12, operation="pid", outcome="success")
        assert len(set(pids)) == 12
        assert total(worker.service.scrape(), LLM_CALLS.name) == 12
        assert scraper.longest < 5
        wait_until(lambda: len(worker.access()) == 12)
        counted = Counter(line["message"].partition("[")[0] for line in worker.lines())
        assert (counted["working"], counted["TASK pid SUCCESS"], counted["Task pid"]) == (12, 12, 24)
        assert get(worker.service.metrics_port, "/health/startup") is not None
    assert "working" not in (tmp_path / "log").read_text()


@pytest.mark.parametrize("pool", ["threads", "solo"])
def test_pools_without_children_count_the_same(tmp_path: Path, broker: str, pool: str) -> None:
    """Each task is one request with its own ids, whichever thread runs it, and printed text stays where it was."""
    with working(tmp_path, broker, "--pool", pool, "--concurrency", "2") as worker:
        sent = [worker.send("add", number, 1) for number in range(8)]
        assert [one.get(timeout=30) for one in sent] == list(range(1, 9))
        with pytest.raises(ValueError, match="fail"):
            worker.run("end", "fail")
        worker.reaches(8, operation="add", outcome="success")
        worker.reaches(1, operation="end", outcome="server_error")
        wait_until(lambda: len(worker.access()) == 9)
        said = {line["message"]: line["request_id"] for line in worker.lines() if line["logger"] == "shop"}
        assert said == {f"adding {number}": one.id for number, one in enumerate(sent)}
        assert (tmp_path / "log").read_text().count("printed") == 8


def test_a_child_that_instruments_itself_is_seen_beside_the_others(tmp_path: Path, broker: str) -> None:
    """A program that calls `instrument()` in celery's hook for new children has them on one page, their lines as ours."""
    with working(tmp_path, broker, "--concurrency", "2", source=PLAIN + LATE) as worker:
        pids: set[int] = set()
        sent = 0
        while len(pids) < 2:
            pids |= {one.get(timeout=30) for one in [worker.send("pid") for _ in range(4)]}
            sent += 4
        worker.reaches(sent, operation="pid", outcome="success")
        wait_until(lambda: len(worker.access()) == sent)
        assert Counter(line["message"] for line in worker.lines())["working"] == sent


def test_a_program_that_does_not_know_the_layer_is_measured_by_the_command(tmp_path: Path, broker: str) -> None:
    """`sage-obs run` with a worker: children that come and go are on one page, and their lines are ours, each once."""
    runner = ("-m", "sage_obs", "run", "--", sys.executable)
    options = ("--concurrency", "2", "--max-tasks-per-child", "2")
    with working(tmp_path, broker, *options, source=PLAIN, runner=runner) as worker:
        with scraping(worker.service.metrics_port):
            pids = [one.get(timeout=30) for one in [worker.send("pid") for _ in range(6)]]
            worker.reaches(6, operation="pid", outcome="success")
        assert len(set(pids)) >= 3
        wait_until(lambda: len(worker.access()) == 6)
        assert Counter(line["message"] for line in worker.lines())["working"] == 6
        assert get(worker.service.metrics_port, "/health/startup") is not None
    assert "working" not in (tmp_path / "log").read_text()


PLAIN = SOURCE.replace('sage_obs.instrument("worker", sampling_rate=1.0)\n', "")
LATE = """

@celery.signals.worker_process_init.connect
def begin(**_):
    sage_obs.instrument("worker")
"""
