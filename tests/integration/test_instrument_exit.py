from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.otlp import dead_backend, receiver

pytestmark = [pytest.mark.system, pytest.mark.timeout(180)]
"""Two seconds are measured here, which tests that run beside these would take their part of."""

WORK = """\
import logging, os, sys, time
import sage_obs

sage_obs.instrument("work", metrics_host="127.0.0.1", metrics_port=0, sampling_rate=1.0)

@sage_obs.agent("step")
def step(number):
    with sage_obs.llm_call("p", "m"):
        logging.getLogger("work").info("step %d", number)

for number in range(20):
    step(number)
if "wait" in sys.argv:
    time.sleep(1.3)
print(f"done {time.time()}", file=sys.stderr, flush=True)
"""


def _run(tmp_path: Path, endpoint: str, *arguments: str, source: str = WORK) -> tuple[float, subprocess.CompletedProcess[str]]:
    """Run the program; the seconds from its last line to its end, and what it wrote."""
    (tmp_path / "work.py").write_text(source)
    command = [sys.executable, "-W", "error", str(tmp_path / "work.py"), *arguments]
    done = subprocess.run(command, env={"SAGE_TRACING_ENDPOINT": endpoint}, capture_output=True, text=True, timeout=30, check=False)
    ended = time.time()
    assert done.returncode == 0, done.stderr
    return ended - float(done.stderr.rpartition("done ")[2]), done


@pytest.mark.parametrize("argument", ["at once", "wait"])
@pytest.mark.parametrize("kind", ["refused", "blackhole"])
def test_the_process_ends_within_two_seconds_of_its_work(tmp_path: Path, kind: str, argument: str) -> None:
    """With a backend that refuses, or takes and never answers, exit is bounded, whether an export is under way or still to come."""
    with dead_backend(kind) as url:
        seconds, done = _run(tmp_path, url, argument)
    assert seconds < 2.0
    steps = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["message"] for line in steps if line["logger"] == "work"] == [f"step {number}" for number in range(20)]


def test_a_living_backend_gets_everything_before_the_process_ends(tmp_path: Path) -> None:
    """The spans of a program that ends right after its work are not lost."""
    with receiver() as traces:
        seconds, _ = _run(tmp_path, traces.url)
        assert len(traces.wait(40)) == 40
    assert seconds < 2.0
    names = [span.name for span in traces.spans]
    assert (names.count("invoke_agent step"), names.count("chat m")) == (20, 20)


FORK = """\
import logging, os, sys, threading, time, urllib.request, warnings
import sage_obs

warnings.simplefilter("ignore", DeprecationWarning)
handle = sage_obs.instrument("parent", metrics_host="127.0.0.1", metrics_port=0, sampling_rate=1.0)
logging.getLogger("work").info("before")

@sage_obs.agent("step")
def step(name):
    logging.getLogger("work").info(name)

pid = os.fork()
if pid == 0:
    step("in the child")
    assert handle.metrics_port is None, handle.status()
    assert sage_obs.flush(timeout=5)
    assert not [one for one in threading.enumerate() if one.name == "sage-obs-ops"]
    sys.exit(0)
_, status = os.waitpid(pid, 0)
assert status == 0, status
step("in the parent")
assert b"sage_build_info" in urllib.request.urlopen(f"http://127.0.0.1:{handle.metrics_port}/metrics").read()
print(f"done {time.time()}", file=sys.stderr, flush=True)
"""


def test_a_forked_child_reports_and_leaves_the_port_to_its_parent(tmp_path: Path) -> None:
    """Both write their lines once and export their spans; only the parent serves."""
    with receiver() as traces:
        _, done = _run(tmp_path, traces.url, source=FORK)
        assert len(traces.wait(2)) == 2
    messages = [json.loads(line)["message"] for line in done.stdout.splitlines()]
    assert sorted(message for message in messages if "in the" in message or message == "before") == [
        "before",
        "in the child",
        "in the parent",
    ]


CHILDREN = """\
import logging, multiprocessing, os, sys, time
import sage_obs

log = logging.getLogger("work")
sage_obs.instrument("parent", metrics_host="127.0.0.1", metrics_port=0)

def child(number):
    log.info("info %d", number)
    log.error("error %d", number)
    if number % 2:
        os._exit(0)
    log.info("last %d", number)

context = multiprocessing.get_context("fork")
children = [context.Process(target=child, args=(number,)) for number in range(20)]
for one in children:
    one.start()
for one in children:
    one.join()
    assert one.exitcode == 0, one.exitcode
print(f"done {time.time()}", file=sys.stderr, flush=True)
"""


def test_forked_children_of_multiprocessing_lose_no_lines(tmp_path: Path) -> None:
    """Errors are out before the child may end at once; what ends as multiprocessing does leaves its last line too."""
    _, done = _run(tmp_path, "", source=CHILDREN)
    messages = [json.loads(line)["message"] for line in done.stdout.splitlines() if '"work"' in line]
    expected = [f"{kind} {number}" for kind in ("info", "error") for number in range(20)]
    assert sorted(messages) == sorted([*expected, *(f"last {number}" for number in range(0, 20, 2))])


def test_importing_the_package_does_nothing(tmp_path: Path) -> None:
    """`import sage_obs` starts no thread, opens no file or socket, reads no setting, and loads no other package."""
    source = """\
import os, sys, threading
before = set(sys.modules)
files = set(os.listdir("/proc/self/fd"))
class Environ(dict):
    def get(self, *key): raise AssertionError(key)
    __getitem__ = get
real, os.environ = os.environ, Environ()
import sage_obs
os.environ = real
assert threading.active_count() == 1
assert set(os.listdir("/proc/self/fd")) == files
new = {name.partition(".")[0] for name in set(sys.modules) - before} - set(sys.stdlib_module_names)
assert new == {"sage_obs"}, new
assert not {name for name in sys.modules if name.startswith("sage_obs.")}
print("done 0", file=sys.stderr)
"""
    _run(tmp_path, "", source=source)


def test_scrapes_get_through_while_the_loop_is_busy(tmp_path: Path) -> None:
    """With an event loop that never rests, /metrics and probes answer well within a probe's timeout."""
    source = """\
import asyncio, http.client, socket, sys, threading, time
import sage_obs
handle = sage_obs.instrument("busy", metrics_host="127.0.0.1", metrics_port=0, log_output="/dev/null")
slowest = []

def probe(path):
    for _ in range(10):
        began = time.monotonic()
        connection = http.client.HTTPConnection("127.0.0.1", handle.metrics_port, timeout=10)
        connection.request("GET", path)
        assert connection.getresponse().read()
        connection.close()
        slowest.append(time.monotonic() - began)

async def spin(stop):
    left, right = socket.socketpair()
    left.setblocking(False); right.setblocking(False)
    loop = asyncio.get_running_loop()
    while not stop.done():
        await loop.sock_sendall(left, b"x")
        await loop.sock_recv(right, 1)
        sum(range(1000))
        await asyncio.sleep(0)

async def main():
    loop = asyncio.get_running_loop()
    await spin(asyncio.gather(*[loop.run_in_executor(None, probe, path) for path in ("/metrics", "/health/live", "/health/ready")]))

asyncio.run(main())
assert len(slowest) == 30
assert max(slowest) < 1.0, sorted(slowest)
print(f"done {time.time()}", file=sys.stderr, flush=True)
"""
    _run(tmp_path, "", source=source)
