"""`sage-obs run` with the programs people run."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from sage_obs.processes import Process, spawn, stop
from tests.support.otlp import receiver
from tests.support.ports import free_port

BIN = Path(sys.executable).parent
ENVIRON = {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", "SAGE_METRICS_HOST": "127.0.0.1", "SAGE_METRICS_PORT": "0"}
APP = """\
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

async def hello(request):
    from sage_obs.lifecycle import running
    import os
    status = {name: str(one) for name, one in running().status().items()}
    return JSONResponse({"port": running().metrics_port, "pid": os.getpid(), "ops": status["ops"]})

app = Starlette(routes=[Route("/hello", hello)])
"""
ASGI = {
    "module": ["python", "-m", "uvicorn", "service:app", "--port", "{port}"],
    "script": ["uvicorn", "service:app", "--port", "{port}"],
    "workers": ["uvicorn", "service:app", "--port", "{port}", "--workers", "2"],
    "granian": ["granian", "--interface", "asgi", "service:app", "--port", "{port}", "--workers", "1"],
    "reload": ["uvicorn", "service:app", "--port", "{port}", "--reload"],
    "hypercorn": ["hypercorn", "service:app", "-b", "127.0.0.1:{port}"],
}


def _run(folder: Path, *command: str, environ: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [BIN / "sage-obs", "run", *command],
        cwd=folder,
        env=ENVIRON | (environ or {}),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@contextmanager
def _serving(folder: Path, command: list[str], **environ: str) -> Iterator[tuple[Process, httpx.Client]]:
    (folder / "service.py").write_text(APP)
    port = free_port()
    words = [str(BIN / "sage-obs"), "run", "--service", "shop", "--", *(word.format(port=port) for word in command)]
    process = spawn("service", words, log=folder / "log", environment={**ENVIRON, **environ}, cwd=folder)
    try:
        with httpx.Client(trust_env=False, base_url=f"http://127.0.0.1:{port}") as client:
            yield process, client
    finally:
        stop([process], grace=10)


def _wait_for(process: Process, ready: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + 40
    while time.monotonic() < deadline:
        assert process.exit_code is None, process.tail(30)
        try:
            if found := ready():
                return found
        except httpx.TransportError:
            pass
        time.sleep(0.05)
    raise AssertionError(process.tail(30))


@pytest.mark.parametrize("kind", sorted(ASGI))
def test_an_asgi_service_is_measured_where_it_works(tmp_path: Path, kind: str) -> None:
    """Under uvicorn, with workers and a reloader too, the process that serves has metrics of its requests; supervisors have no port."""
    with _serving(tmp_path, ASGI[kind]) as (process, client):
        said = _wait_for(process, lambda: client.get("/hello")).json()
        assert said["port"] is not None, said
        metrics = httpx.get(f"http://127.0.0.1:{said['port']}/metrics", trust_env=False).text
        assert 'operation="GET /hello",outcome="success"' in metrics
        assert 'service="shop"' in metrics
        assert (said["pid"] == process.pid) is (kind in {"module", "script"})


FLASK = """\
import os
from flask import Flask

app = Flask(__name__)

@app.get("/hello")
def hello():
    from sage_obs.lifecycle import running
    return {"port": running().metrics_port, "pid": os.getpid()}
"""


@pytest.mark.parametrize("preload", [(), ("--preload",)], ids=["plain", "preload"])
def test_the_workers_of_gunicorn_are_measured(tmp_path: Path, preload: tuple[str, ...]) -> None:
    """A forked worker starts the layer, whether the application was loaded in the master or in itself."""
    (tmp_path / "shop.py").write_text(FLASK)
    with _serving(tmp_path, ["gunicorn", "shop:app", "-w", "2", "-b", "127.0.0.1:{port}", *preload]) as (process, client):
        said = _wait_for(process, lambda: client.get("/hello")).json()
        assert said["pid"] != process.pid
        assert 'sage_agent_requests_total{agent_id="agent-001",operation="GET /hello",outcome="success"' in (
            httpx.get(f"http://127.0.0.1:{said['port']}/metrics", trust_env=False).text
        )


ENDED = """\
import os
from flask import Flask
import sage_obs
from sage_obs.lifecycle import running

app = Flask(__name__)

@app.get("/hello")
def hello():
    sage_obs.uninstrument()
    reader, writer = os.pipe()
    if os.fork() == 0:
        os.write(writer, b"on" if running() else b"off")
        os._exit(0)
    os.wait()
    return {"child": os.read(reader, 9).decode()}
"""


def test_the_children_of_a_worker_that_ended_the_layer_have_none(tmp_path: Path) -> None:
    """A worker that called `uninstrument()` stays without, and so does what it forks."""
    (tmp_path / "shop.py").write_text(ENDED)
    with _serving(tmp_path, ["gunicorn", "shop:app", "-w", "1", "-b", "127.0.0.1:{port}"]) as (process, client):
        assert _wait_for(process, lambda: client.get("/hello")).json() == {"child": "off"}


@pytest.mark.parametrize("kind", ["uvicorn", "granian"])
def test_workers_that_want_one_port_are_seen_as_one(tmp_path: Path, kind: str) -> None:
    """With a fixed port one worker has it, and shows what all of them have counted."""
    port = free_port()
    granian = ["granian", "--interface", "asgi", "service:app", "--port", "{port}", "--workers", "2"]
    with _serving(tmp_path, ASGI["workers"] if kind == "uvicorn" else granian, SAGE_METRICS_PORT=str(port)) as (process, client):
        _wait_for(process, lambda: client.get("/hello"))
        pids: list[int] = []

        def both() -> bool:
            pids.append(httpx.get(f"{client.base_url}/hello", trust_env=False).json()["pid"])
            return len(set(pids)) == 2

        _wait_for(process, both)
        answered = len(pids) + 1
        _wait_for(process, lambda: _counted(httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False).text) == answered)
        assert httpx.get(f"http://127.0.0.1:{port}/health/live", trust_env=False).status_code == 200


def _counted(page: str) -> float:
    """How many requests a scrape shows."""
    lines = re.findall(r'^sage_agent_requests_total\{.*operation="GET /hello",outcome="success".*\} (.*)$', page, re.MULTILINE)
    return sum(map(float, lines))


def test_spans_go_where_the_option_says(tmp_path: Path) -> None:
    """The endpoint and the service's name given on the command line reach the receiver, and what the program exits with is kept."""
    (tmp_path / "app.py").write_text("import sage_obs, sys\nsage_obs.agent('step')(lambda: None)()\nsys.exit(int(sys.argv[1]))\n")
    with receiver() as traces:
        command = ["--service", "shop", "--traces-endpoint", traces.url, "--sampling-rate", "1", "--", "python", "app.py", "9"]
        done = _run(tmp_path, *command)
        assert done.returncode == 9, done.stderr
        assert len(traces.wait(1)) == 1
    assert traces.resource["service.name"] == "shop"


def test_pytest_runs_as_ever(tmp_path: Path) -> None:
    """Tests pass, and the layer runs while they do."""
    (tmp_path / "test_it.py").write_text(
        "def test_it():\n    from sage_obs.lifecycle import running\n    assert running().status()['metrics'].on\n"
    )
    done = _run(tmp_path, "pytest", "-q", "-p", "no:cacheprovider")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout


@pytest.mark.parametrize("ending", ["", "raise RuntimeError('mine')"], ids=["well", "raising"])
def test_the_users_own_sitecustomize_runs(tmp_path: Path, ending: str) -> None:
    """It runs before the layer, under its own name, and what it raises is told and does not keep the layer out."""
    (tmp_path / "sitecustomize.py").write_text(f"import sys\nsys.mine = __name__\n{ending}\n")
    program = "import sys; from sage_obs.lifecycle import running; print(sys.mine, running() is not None)"
    if not ending:
        program += "; import sitecustomize; print(sitecustomize.__file__)"
    done = _run(tmp_path, "python", "-c", program, environ={"PYTHONPATH": str(tmp_path)})
    assert done.stdout.split() == ["sitecustomize", "True", *([] if ending else [str(tmp_path / "sitecustomize.py")])], done.stderr
    assert ("RuntimeError: mine" in done.stderr) is bool(ending)


CHILDREN = """\
import json, multiprocessing, subprocess, sys
from sage_obs.lifecycle import running

def child():
    return {name: str(one) for name, one in running().status().items()}

if __name__ == "__main__":
    helper = "import json, logging; logging.getLogger('helper').warning('hear me'); print(json.dumps({'answer': 42}))"
    done = subprocess.run([sys.executable, "-c", helper], capture_output=True, text=True, check=True)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        status = pool.apply(child)
    ops = status["ops"]
    print(json.dumps({"port": running().metrics_port, "helper": json.loads(done.stdout), "said": json.loads(done.stderr), "ops": ops}))
"""


def test_children_are_instrumented_and_stay_out_of_the_way(tmp_path: Path) -> None:
    """A helper's stdout is its answer, its lines go to stderr; a pool's worker is instrumented and does not complain about the port."""
    (tmp_path / "app.py").write_text(CHILDREN)
    port = free_port()
    done = _run(tmp_path, "--metrics-port", str(port), "python", "app.py")
    assert done.returncode == 0, done.stderr
    [line] = done.stdout.splitlines()
    said = json.loads(line)
    assert said["port"] == port
    assert said["helper"] == {"answer": 42}
    assert said["said"]["message"] == "hear me"
    assert said["ops"].startswith("off:")


def test_a_child_of_another_environment_runs_without_the_layer(tmp_path: Path) -> None:
    """An interpreter that cannot import sage_obs starts as ever."""
    bare = tmp_path / "bare"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", bare], check=True)
    done = _run(tmp_path, str(bare / "bin/python"), "-c", "print('fine')")
    assert (done.returncode, done.stdout, done.stderr) == (0, "fine\n", "")


def test_an_unknown_program_is_a_shells_127(tmp_path: Path) -> None:
    """The command line says so without a traceback."""
    done = _run(tmp_path, "no-such-program")
    assert done.returncode == 127
    assert done.stderr.startswith("Error: There is no program `no-such-program` on PATH.")


def test_the_how_to_is_true(tmp_path: Path) -> None:
    """Each of its lines runs a program that is measured, and the last one finds nothing wrong."""
    (tmp_path / "app.py").write_text("from sage_obs.lifecycle import running\nassert running().status()['metrics'].on\n")
    page = (Path(__file__).parents[2] / "docs/how-to/instrument-without-code.md").read_text()
    lines = re.findall(r"^```sh\n(.*?)\n```", page, re.MULTILINE | re.DOTALL)
    assert len(lines) == 3
    for line in lines:
        done = subprocess.run(["sh", "-c", line], cwd=tmp_path, env=ENVIRON, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
    assert done.stdout == "Nothing found.\n"
