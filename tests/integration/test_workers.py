from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from sage_obs.conventions import LLM_CALL_DURATION, LLM_CALLS, LLM_TOKENS, REQUESTS
from sage_obs.metrics.folder import base
from tests.support.ports import free_port
from tests.support.workers import Service, get, kill, scraping, serving, total, wait_until

SOURCE = """\
import os
import sys
import time

from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

import sage_obs

sage_obs.instrument("many", version="1.2.3")


async def hit(request):
    with sage_obs.llm_call("p", "m") as call:
        call.usage(input=3, output=2)
    time.sleep(0.005)  # the other worker answers meanwhile
    return PlainTextResponse(str(os.getpid()))


app = Starlette(routes=[Route("/hit", hit)])

if __name__ == "__main__" and "granian" in sys.argv:
    from granian import Granian

    port = int(os.environ["PORT"])
    Granian("service:app", interface="asgi", workers=2, port=port, respawn_failed_workers=True, respawn_interval=0.1).serve()
elif __name__ == "__main__":
    import uvicorn

    uvicorn.run("service:app", port=int(os.environ["PORT"]), workers=2)
"""
GUNICORN = ("-m", "gunicorn", "service:app", "-w", "2", "-k", "asgi", "-b", "127.0.0.1:{port}")
SERVERS = {
    "gunicorn": GUNICORN,
    "gunicorn with preload": (*GUNICORN, "--preload"),
    "uvicorn": ("-m", "uvicorn", "service:app", "--workers", "2", "--port", "{port}"),
    "uvicorn in the program": ("service.py",),
    "granian": (
        *("-m", "granian", "service:app", "--interface", "asgi", "--workers", "2", "--port", "{port}"),
        *("--respawn-failed-workers", "--respawn-interval", "0.1"),
    ),
    "granian in the program": ("service.py", "granian"),
}
HYPERCORN = {str(workers): ("-m", "hypercorn", "service:app", "-w", str(workers), "-b", "127.0.0.1:{port}") for workers in (1, 2)}
TRIO = (*HYPERCORN["1"], "-k", "trio")


def _both_workers(service: Service) -> tuple[set[int], int]:
    """Requests, two at a time, until two workers have answered; who they are, and how many requests it took."""
    answers: list[int] = []

    def seen() -> bool:
        callers = [threading.Thread(target=lambda: answers.append(service.hit())) for _ in range(2)]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()
        return len(set(answers)) > 1

    wait_until(seen)
    return set(answers), len(answers)


def _leftovers(pid: int) -> list[Path]:
    return list(base().glob(f"{pid}-*"))


@pytest.mark.parametrize("server", SERVERS)
def test_workers_that_are_killed_take_nothing_along(tmp_path: Path, server: str) -> None:
    """While workers die and come back every scrape shows all of them; nothing goes backwards, and the sums are what was answered."""
    with serving(tmp_path, SERVERS[server], SOURCE) as service:
        pids, answered = _both_workers(service)
        with scraping(service.metrics_port) as scraper:
            for _ in range(2):
                for pid in sorted(pids):
                    kill(pid)
                    pids, count = _both_workers(service)
                    answered += count
            wait_until(lambda: total(scraper.last, LLM_CALLS.name, outcome="success") == answered)
        found = service.scrape()
        assert total(found, LLM_CALLS.name) == answered
        assert total(found, f"{LLM_CALL_DURATION.name}_count") == answered
        assert total(found, LLM_TOKENS.name, type="input") == 3 * answered
        assert answered - 5 <= total(found, REQUESTS.name, operation="GET /hit", outcome="success") <= answered
        assert total(found, "sage_build_info", version="1.2.3") == 1
        assert total(found, "process_open_fds") > 0
        assert total(found, "sage_obs_internal_errors_total") == 0
        assert {value for (name, _), value in found.items() if name == "sage_obs_component_up"} == {1.0}
        wait_until(lambda: get(service.metrics_port, "/health/startup") is not None)
        wait_until(lambda: total(service.scrape(), "sage_agent_health_status", probe="startup", check="overall") == 1)
        assert scraper.longest < 10
        assert len(list(_leftovers(service.process.pid)[0].glob("*.cells"))) <= 3, "the dead leave no files"
    if "preload" in server or "program" in server:
        assert not _leftovers(service.process.pid), "who made the folder has removed it"


@pytest.mark.parametrize("command", [*HYPERCORN.values(), TRIO], ids=["one", "two", "trio"])
def test_the_workers_of_hypercorn_are_counted_together(tmp_path: Path, command: tuple[str, ...]) -> None:
    """One worker or two, on asyncio's loop or trio's: what they answered is on one page, and startup is complete."""
    with serving(tmp_path, command, SOURCE) as service:
        answered = _both_workers(service)[1] if "2" in command else len({service.hit()})
        with scraping(service.metrics_port):
            wait_until(lambda: total(service.scrape(), LLM_CALLS.name, outcome="success") == answered)
            wait_until(lambda: total(service.scrape(), REQUESTS.name, operation="GET /hit", outcome="success") == answered)
        assert get(service.metrics_port, "/health/startup") is not None
        assert total(service.scrape(), "sage_obs_internal_errors_total") == 0


def test_requests_that_come_at_once_are_all_counted(tmp_path: Path) -> None:
    """Under load from several callers, a killed worker costs at most the requests it had not answered."""
    with serving(tmp_path, SERVERS["gunicorn"], SOURCE) as service:
        pids, before = _both_workers(service)
        answered, failed = [0] * 4, [0] * 4

        def call(index: int) -> None:
            for _ in range(150):
                if get(service.port, "/hit") is None:
                    failed[index] += 1
                else:
                    answered[index] += 1

        callers = [threading.Thread(target=call, args=(index,)) for index in range(4)]
        with scraping(service.metrics_port):
            for caller in callers:
                caller.start()
            kill(min(pids))
            for caller in callers:
                caller.join()
            _, after = _both_workers(service)
        counted = total(service.scrape(), LLM_CALLS.name)
        least = before + sum(answered) + after
        assert least <= counted <= least + sum(failed)
        assert sum(answered) > 0


def test_a_reload_keeps_what_was_counted(tmp_path: Path) -> None:
    """Uvicorn's reloader starts another process for each change, which goes on where the last one was."""
    command = ("-m", "uvicorn", "service:app", "--reload", "--port", "{port}")
    with serving(tmp_path, command, SOURCE) as service:
        first = service.hit()
        answers = [first]

        def reloaded() -> bool:
            (tmp_path / "next").write_text(f"{SOURCE}\n# changed {len(answers)}\n")
            (tmp_path / "next").replace(tmp_path / "service.py")  # time and again: a change before uvicorn's first look is missed
            answers.append(service.hit())
            return answers[-1] != first

        with scraping(service.metrics_port):
            wait_until(reloaded)
            wait_until(lambda: total(service.scrape(), LLM_CALLS.name) == len(answers))


PROGRAM = """\
import multiprocessing, os, sys, threading, time, urllib.request, warnings
import sage_obs

warnings.simplefilter("ignore", DeprecationWarning)
handle = sage_obs.instrument("parent", metrics_host="127.0.0.1", metrics_port=int(os.environ["PORT"]), log_output="/dev/null")

def count(number, ending=None):
    for _ in range(number):
        with sage_obs.llm_call("p", "m"):
            pass
    if ending is not None:
        os._exit(ending)

def page():
    return urllib.request.urlopen(f"http://127.0.0.1:{os.environ['PORT']}/metrics").read().decode()

def counted():
    return sum(float(line.split()[-1]) for line in page().splitlines() if line.startswith("sage_llm_api_calls_total"))

def folder():
    from sage_obs.metrics.folder import Folder
    from sage_obs.metrics.member import here
    return Folder.of(here(), int(os.environ["PORT"])).path
"""


def _run(tmp_path: Path, source: str) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM + source)
    environ = {**os.environ, "PORT": str(free_port())}
    done = subprocess.run([sys.executable, str(program)], env=environ, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout.splitlines()[-1:]) == (0, ["done"]), done.stderr


def test_fifty_children_that_end_at_once_are_all_counted_and_leave_no_files(tmp_path: Path) -> None:
    """What a forked child that ends in `os._exit` has counted is on its parent's page; files and archive stay as small as for one."""
    _run(
        tmp_path,
        """
count(5)
sizes = []
for number in range(50):
    if not (pid := os.fork()):
        count(2, ending=0)
    os.waitpid(pid, 0)
    if number % 10 == 9:
        assert counted() == 5 + 2 * (number + 1), (number, counted())
        assert len(list(folder().iterdir())) <= 5, list(folder().iterdir())
        sizes.append((folder() / "archive.json").stat().st_size)
assert max(sizes) - min(sizes) < 50, sizes
where = folder()
assert where.stat().st_mode & 0o077 == 0
sage_obs.uninstrument()
assert not where.exists()
print("done")
""",
    )


def test_a_forked_child_counts_from_zero_beside_its_parent(tmp_path: Path) -> None:
    """Both count at once, nothing twice; a gauge of the child's is there while it lives; files and threads are not the parent's."""
    _run(
        tmp_path,
        """
from sage_obs.conventions import REQUESTS_IN_FLIGHT
from sage_obs.metrics import active

def in_flight():
    return [float(line.split()[-1]) for line in page().splitlines() if line.startswith("sage_agent_requests_in_flight{")]

open_requests = active.store().cell(REQUESTS_IN_FLIGHT, "agent-001")
open_requests.add(1)
count(5)
read, write = os.pipe()
back, there = os.pipe()
if not (pid := os.fork()):
    count(3)
    open_requests.add(1)
    assert handle.metrics_port is None and handle.status()["ops"].on, handle.status()
    os.write(write, b"x")
    os.read(back, 1)
    os._exit(0)
count(1)
os.read(read, 1)
assert counted() == 9, counted()
assert in_flight() == [2], in_flight()
assert "sage_build_info{" in page()
told = [line for line in page().splitlines() if line.startswith(("sage_release_timestamp_seconds{", "sage_obs_component_up{"))]
assert told and all(float(line.split()[-1]) > 0 for line in told), told
os.write(there, b"x")
os.waitpid(pid, 0)
assert counted() == 9, counted()
assert in_flight() == [1], in_flight()
print("done")
""",
    )


def test_a_forked_child_that_finds_no_room_counts_for_itself(tmp_path: Path) -> None:
    """Its work goes on, its own registry has its counts and the error, and its parent's page is as it was."""
    _run(
        tmp_path,
        """
from prometheus_client import REGISTRY
from sage_obs.metrics import sharing

def refuse(*_):
    raise OSError(28, "No space left on device")

def own(name):
    return sum(one.value for family in REGISTRY.collect() for one in family.samples if one.name == name)

count(2)
if not (pid := os.fork()):
    count(1, ending=0)
os.waitpid(pid, 0)
sharing.CellFile = refuse
if not (pid := os.fork()):
    count(3)
    assert own("sage_llm_api_calls_total") == 3, own("sage_llm_api_calls_total")
    assert own("sage_obs_internal_errors_total") == 1, own("sage_obs_internal_errors_total")
    os._exit(0)
_, status = os.waitpid(pid, 0)
assert status == 0, status
assert counted() == 3, counted()
assert "sage_obs_internal_errors_total{" not in page()
print("done")
""",
    )


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_children_of_multiprocessing_are_counted_however_they_start(tmp_path: Path, method: str) -> None:
    """A program that instruments itself when it is imported has its pool on its page, whether children are forked or spawned."""
    _run(
        tmp_path,
        f"""
if __name__ == "__main__":
    count(2)
    context = multiprocessing.get_context("{method}")
    children = [context.Process(target=count, args=(3,)), context.Process(target=count, args=(4, 0))]
    for one in children:
        one.start()
    for one in children:
        one.join()
    deadline = time.monotonic() + 20
    while counted() != 9 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert counted() == 9, counted()
    print("done")
""",
    )


ALONE = (
    SOURCE.partition("app = ")[0]
    + """
import time

sage_obs.health.register("db", lambda: os.environ.get("BROKEN") is None)
sage_obs.health.started()
for _ in range(4):
    with sage_obs.llm_call("p", "m"):
        pass
time.sleep(60)
"""
)


def test_processes_find_each_other_in_the_folder_that_is_set(tmp_path: Path) -> None:
    """Processes without a server around them share a page by the setting, on which health is the worst; one killed, the next answers."""
    port = free_port()
    environ = {"SAGE_MULTIPROCESS_DIR": str(tmp_path / "shared"), "SAGE_METRICS_PORT": str(port)}
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    with serving(tmp_path / "one", ("service.py",), ALONE, **environ) as first:
        wait_until(lambda: get(port, "/health/ready") is not None)
        with serving(tmp_path / "two", ("service.py",), ALONE, **environ, BROKEN="yes"):
            service = Service(first.process, 0, port)
            wait_until(lambda: total(service.scrape(), LLM_CALLS.name) == 8)
            wait_until(lambda: total(service.scrape(), "sage_agent_health_status", check="db") == 0)
            wait_until(lambda: total(service.scrape(), "sage_agent_health_status", check="overall", probe="readiness") == 0)
            with scraping(port):
                kill(first.process.pid)
                wait_until(lambda: total(service.scrape(), LLM_CALLS.name) == 8)
