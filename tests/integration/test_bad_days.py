"""What is wrong around the layer stays around it: the program goes on, ends in time, and what is lost is counted."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from sage_obs.conventions import LLM_CALLS
from tests.support.otlp import dead_backend, receiver, serving

pytestmark = [pytest.mark.system, pytest.mark.timeout(120)]

SPANS = """\
import sys, time, urllib.request
import sage_obs

handle = sage_obs.instrument("work", metrics_host="127.0.0.1", metrics_port=0, sampling_rate=1.0, log_output="/dev/null")

@sage_obs.agent("step")
def step():
    pass

for _ in range(20):
    step()
if "lost" in sys.argv:
    sage_obs.flush(timeout=10)
    page = urllib.request.urlopen(f"http://127.0.0.1:{handle.metrics_port}/metrics").read().decode()
    assert "sage_obs_spans_dropped_total 20.0" in page, page
    assert 'sage_obs_export_failures_total{signal="traces"} 1.0' in page, page
print(f"done {time.time()}", file=sys.stderr, flush=True)
"""


def _seconds(tmp_path: Path, source: str, *arguments: str, stdout: int = subprocess.DEVNULL, **environ: str) -> float:
    """Run the program, which must not complain; the seconds from its last line to its end."""
    (tmp_path / "work.py").write_text(source)
    command = [sys.executable, "-W", "error", str(tmp_path / "work.py"), *arguments]
    done = subprocess.run(command, env=environ, stdout=stdout, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    ended = time.time()
    said, _, at = done.stderr.rpartition("done ")
    assert (done.returncode, said) == (0, ""), done.stderr
    return ended - float(at)


def _dribble(answer: BaseHTTPRequestHandler) -> None:
    for byte in b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n":
        answer.wfile.write(bytes([byte]))
        time.sleep(1)


def _endless(answer: BaseHTTPRequestHandler) -> None:
    answer.wfile.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
    while True:
        answer.wfile.write(b"400\r\n" + b"x" * 1024 + b"\r\n")
        time.sleep(0.001)


def _raw(data: bytes) -> Callable[[BaseHTTPRequestHandler], None]:
    def write(answer: BaseHTTPRequestHandler) -> None:
        answer.wfile.write(data)

    return write


NEVER = {
    "slow": _dribble,
    "endless": _endless,
    "noise": _raw(b"\x00\xff" * 100),
    "long header": _raw(b"HTTP/1.1 200 OK\r\nX: " + b"a" * 99_999),
}
REFUSING = {
    "500": _raw(b"HTTP/1.1 500 Oops\r\ncontent-length: 0\r\n\r\n"),
    "429 for a day": _raw(b"HTTP/1.1 429 Slow\r\nretry-after: 86400\r\ncontent-length: 0\r\n\r\n"),
    "503 for a day": _raw(b"HTTP/1.1 503 Busy\r\nretry-after: 86400\r\ncontent-length: 0\r\n\r\n"),
    "a web page": _raw(b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 18\r\n\r\n<html>hello</html>"),
    "a redirect loop": _raw(b"HTTP/1.1 307 Round\r\nlocation: /v1/traces\r\ncontent-length: 0\r\n\r\n"),
    "closing in the middle": _raw(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\nabc"),
}


@contextmanager
def _answering(answer: Callable[[BaseHTTPRequestHandler], None]) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.close_connection = True
            try:
                answer(self)
            except OSError:
                return

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
            """Say nothing."""

    with serving(Handler) as url:
        yield url


@pytest.mark.parametrize("kind", NEVER)
def test_a_backend_that_never_comes_to_an_end_holds_nobody_up(tmp_path: Path, kind: str) -> None:
    """One byte a second, a body without an end or no HTTP at all: the process ends within two seconds of its work."""
    with _answering(NEVER[kind]) as url:
        assert _seconds(tmp_path, SPANS, SAGE_TRACING_ENDPOINT=url) < 2.0


@pytest.mark.parametrize("kind", REFUSING)
def test_what_a_backend_refuses_is_counted(tmp_path: Path, kind: str) -> None:
    """Every span of a batch that was refused or cut off is one on /metrics, and nobody waits as long as it asks for."""
    with _answering(REFUSING[kind]) as url:
        assert _seconds(tmp_path, SPANS, "lost", SAGE_TRACING_ENDPOINT=url) < 2.0


PUSHES = """\
import sys, time, urllib.request
import sage_obs

handle = sage_obs.instrument("work", metrics_host="127.0.0.1", metrics_port=0, log_output="/dev/null")
assert not sage_obs.flush(timeout=10)
page = urllib.request.urlopen(f"http://127.0.0.1:{handle.metrics_port}/metrics").read().decode()
assert 'sage_obs_export_failures_total{signal="metrics"} 1.0' in page, page
print(f"done {time.time()}", file=sys.stderr, flush=True)
"""


@pytest.mark.parametrize("kind", REFUSING)
def test_a_push_that_a_backend_refuses_is_counted(tmp_path: Path, kind: str) -> None:
    """Metrics are posted as spans are: what answers like this has taken nothing."""
    with _answering(REFUSING[kind]) as url:
        assert _seconds(tmp_path, PUSHES, SAGE_METRICS_ENDPOINT=url) < 2.0


CLOCK = """\
import logging, sys, time, urllib.request
import sage_obs

wall, wall_ns, step = time.time, time.time_ns, float(sys.argv[1])
handle = sage_obs.instrument("work", metrics_host="127.0.0.1", metrics_port=0, sampling_rate=1.0, log_output=sys.argv[2])

@sage_obs.agent("step")
def work():
    with sage_obs.tool("search"), sage_obs.llm_call("openai", "gpt-4o") as call:
        time.time, time.time_ns = lambda: wall() + step, lambda: wall_ns() + int(step * 1e9)
        call.first_token()
    logging.getLogger("work").info("stepped")

work()
assert sage_obs.flush(timeout=10)
page = urllib.request.urlopen(f"http://127.0.0.1:{handle.metrics_port}/metrics").read().decode()
sums = [float(line.rpartition(" ")[2]) for line in page.splitlines() if "_seconds_sum{" in line or "_seconds_sum " in line]
assert len(sums) > 4 and all(0.0 <= one < 60.0 for one in sums), page
time.time, time.time_ns = wall, wall_ns
print(f"done {time.time()}", file=sys.stderr, flush=True)
"""


@pytest.mark.parametrize("step", [3600, -3600])
def test_a_clock_that_is_set_during_a_request_changes_no_duration(tmp_path: Path, step: int) -> None:
    """The wall's clock goes an hour forth or back: spans, histograms and pushes have no hour in them, and a line has the time it now is."""
    with receiver() as backend:
        began, log, url = time.time(), str(tmp_path / "log"), backend.url
        assert _seconds(tmp_path, CLOCK, str(step), log, SAGE_TRACING_ENDPOINT=url, SAGE_METRICS_ENDPOINT=url) < 2.0
        assert len(backend.wait(3)) == 3
        assert all(0 <= span.end_time_unix_nano - span.start_time_unix_nano < 60e9 for span in backend.spans)
        points = [push.point(LLM_CALLS.name) for push in backend.pushes]
        assert points
        assert all(point is not None and point.start_time_unix_nano <= point.time_unix_nano for point in points)
    [line] = [line for line in map(json.loads, (tmp_path / "log").read_bytes().splitlines()) if line["message"] == "stepped"]
    assert 0 <= datetime.fromisoformat(line["timestamp"]).timestamp() - began - step < 60


CLOSED = """\
import asyncio, sys, time, urllib.request
import sage_obs

handle = sage_obs.instrument("work", metrics_host="127.0.0.1", metrics_port=0, log_output="/dev/null")

async def check():
    return True

sage_obs.health.register("db", check, timeout=1.0)

@sage_obs.agent("answer")
async def answer():
    for _ in range(3):
        yield "word"
        await asyncio.sleep(0)

@sage_obs.agent("hang")
async def hang():
    with sage_obs.tool("search"):
        await asyncio.Event().wait()

def get(path):
    try:
        return urllib.request.urlopen(f"http://127.0.0.1:{handle.metrics_port}{path}", timeout=5).read().decode()
    except urllib.error.HTTPError as error:
        return error.read().decode()

async def half():
    items = answer()
    await anext(items)
    hanging = asyncio.ensure_future(hang())
    await asyncio.sleep(0.01)
    return items, hanging

for _ in range(2):
    loop = asyncio.new_event_loop()
    items, hanging = loop.run_until_complete(half())
    loop.close()
    assert "db" in get("/health/ready")
    hanging._log_destroy_pending = False  # which asyncio would complain of itself
    hanging.get_coro().close()
    del items, hanging

async def whole():
    return [item async for item in answer()]

assert len(asyncio.run(whole())) == 3
page = get("/metrics")
assert 'sage_agent_requests_total{agent_id="agent-001",operation="answer",outcome="success",protocol="call"} 1.0' in page, page
assert 'sage_agent_requests_total{agent_id="agent-001",operation="hang",outcome="cancelled",protocol="call"} 2.0' in page, page
assert "sage_obs_internal_errors_total{" not in page, page
print(f"done {time.time()}", file=sys.stderr, flush=True)
"""


def test_an_event_loop_that_is_closed_with_work_on_it_breaks_nothing(tmp_path: Path) -> None:
    """Agents that were on it count as cancelled, probes answer, and the next loop is measured as the first."""
    assert _seconds(tmp_path, CLOSED) < 2.0


DAEMONS = """\
import logging, sys, threading, time
import sage_obs

sage_obs.instrument("work", metrics_host="127.0.0.1", metrics_port=0, sampling_rate=1.0, log_output=sys.argv[1])
began = threading.Barrier(9)

@sage_obs.agent("step")
def step():
    with sage_obs.tool("search"), sage_obs.llm_call("openai", "gpt-4o") as call:
        call.usage(input=1)
    logging.getLogger("work").info("step")

def work():
    step()
    began.wait()
    while True:
        step()
        time.sleep(0.001)

for _ in range(8):
    threading.Thread(target=work, daemon=True).start()
began.wait()
print(f"done {time.time()}", file=sys.stderr, flush=True)
"""


@pytest.mark.parametrize("backend", ["refused", "blackhole"])
def test_threads_that_go_on_while_the_process_ends_hold_it_up_no_longer(tmp_path: Path, backend: str) -> None:
    """Daemon threads that never stop making spans and lines, with nobody who takes the spans: the end comes in time, and without a word."""
    with dead_backend(backend) as url:
        log = tmp_path / "log"
        assert _seconds(tmp_path, DAEMONS, str(log), SAGE_TRACING_ENDPOINT=url, SAGE_METRICS_ENDPOINT=url) < 2.0
    assert sum(json.loads(line)["message"] == "step" for line in log.read_bytes().splitlines()) >= 8


LINES = """\
import logging, sys, time, urllib.request
import sage_obs

handle = sage_obs.instrument("work", metrics_host="127.0.0.1", metrics_port=0)
for number in range(100):
    logging.getLogger("work").info("line %d", number)
    logging.getLogger("work").error("line %d", number)
sage_obs.flush(timeout=5)
page = urllib.request.urlopen(f"http://127.0.0.1:{handle.metrics_port}/metrics").read().decode()
assert "sage_obs_logs_dropped_total 200.0" in page, page
print(f"done {time.time()}", file=sys.stderr, flush=True)
"""


@pytest.mark.parametrize("output", ["a full disk", "a reader that has gone"])
def test_lines_that_nobody_takes_are_counted(tmp_path: Path, output: str) -> None:
    """A disk without room and a pipe without a reader lose every line, and nothing but lines."""
    if output == "a full disk":
        assert _seconds(tmp_path, LINES, SAGE_LOG_OUTPUT="/dev/full") < 2.0
        return
    reader = subprocess.Popen([sys.executable, "-c", ""], stdin=subprocess.PIPE)
    assert reader.stdin is not None
    reader.wait()
    with reader.stdin as pipe:
        assert _seconds(tmp_path, LINES, stdout=pipe.fileno()) < 2.0


NO_ROOM = """\
import os, resource, signal, sys, time, urllib.request
import sage_obs

handle = sage_obs.instrument("work", metrics_host="127.0.0.1", metrics_port=0, log_output="/dev/null")
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))

@sage_obs.agent("step")
def step():
    pass

if (pid := os.fork()) == 0:
    step()
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
step()
page = urllib.request.urlopen(f"http://127.0.0.1:{handle.metrics_port}/metrics").read().decode()
assert 'sage_agent_requests_total{agent_id="agent-001",operation="step",outcome="success",protocol="call"} 1.0' in page, page
assert 'sage_obs_internal_errors_total{component="metrics"}' in page, page
print(f"done {time.time()}", file=sys.stderr, flush=True)
"""


def test_a_process_without_room_for_shared_metrics_serves_its_own(tmp_path: Path) -> None:
    """Where the files of several processes cannot be made, parent and child go on, and the loss is an error on /metrics."""
    assert _seconds(tmp_path, NO_ROOM) < 2.0


HOSTILE = """\
import json, logging, sys, time
import sage_obs

sage_obs.instrument("work", metrics_host="127.0.0.1", metrics_port=0, log_output=sys.argv[1], traces_endpoint="http://127.0.0.1:9")
log = logging.getLogger("work")

class Raising:
    def __repr__(self):
        raise ValueError("no")
    __str__ = __bool__ = __hash__ = __format__ = __len__ = __iter__ = __eq__ = __repr__

class Recursing:
    def __repr__(self):
        return repr(self)

class Long:
    def __repr__(self):
        return "x" * 10_000_000

class Logging:
    def __repr__(self):
        log.info("from inside")
        return "logged"

class BadError(Exception):
    def __str__(self):
        raise ValueError("no")

class Dict(dict):
    def items(self):
        raise ValueError("no")
    __iter__ = keys = items

endless = []
endless.append(endless)
deep = {}
for _ in range(3000):
    deep = {"deep": deep}
values = [Raising(), Recursing(), Long(), Logging(), Dict(a=1), endless, deep, "\\ud800\\x00\\n\\"", b"\\xff", 10**400, {Raising: 1}]

@sage_obs.agent("step")
def step(value):
    return value

for value in values:
    log.info("said %s", value, extra={"value": value})
    log.error(value)
    step(value)
    with sage_obs.context(tenant=value, conversation_id=value), sage_obs.tool(value), sage_obs.llm_call(value, value) as call:
        call.usage(input=value, output=1)
        log.info("within")
try:
    raise BadError
except BadError:
    log.exception("failed")

class Again(logging.Handler):
    def emit(self, record):
        if record.getMessage() != "again":
            log.info("again")

logging.getLogger().addHandler(Again())
log.info("outer")
assert sage_obs.flush(timeout=5) or True
print(f"done {time.time()}", file=sys.stderr, flush=True)
"""


def test_values_that_are_hostile_break_nothing(tmp_path: Path) -> None:
    """Values that raise, recurse, log, never end or are no Unicode, wherever a caller can put one: every line is there, and is JSON."""
    assert _seconds(tmp_path, HOSTILE, str(tmp_path / "log")) < 2.0
    lines = [json.loads(line) for line in (tmp_path / "log").read_bytes().splitlines()]
    messages = [line["message"] for line in lines if line["logger"] == "work"]
    assert messages.count("within") == 11
    assert messages[messages.index("outer") + 1] == "again"
    assert max(len(json.dumps(line)) for line in lines) < 600_000


MANY = """\
import sys, time, tracemalloc, urllib.request
import sage_obs

handle = sage_obs.instrument("work", metrics_host="127.0.0.1", metrics_port=0, log_output="/dev/null", label_budget=50)

def work(names):
    for number in names:
        with sage_obs.llm_call("p", f"model-{number}"), sage_obs.tool(f"tool-{number}"):
            pass

tracemalloc.start()
work(range(3000))
before = tracemalloc.get_traced_memory()[0]  # what is bounded is full by now
work(range(3000, 13_000))
grown = tracemalloc.get_traced_memory()[0] - before
page = urllib.request.urlopen(f"http://127.0.0.1:{handle.metrics_port}/metrics").read().decode()
assert grown < 100_000, grown
assert page.count("sage_llm_api_calls_total{") <= 51 * 10, page
assert "sage_obs_label_overflows_total" in page
print(f"done {time.time()}", file=sys.stderr, flush=True)
"""


def test_names_that_never_come_again_fill_neither_memory_nor_page(tmp_path: Path) -> None:
    """Ten thousand models and tools beyond the label budget cost no memory and no series."""
    assert _seconds(tmp_path, MANY) < 2.0
