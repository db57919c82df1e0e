"""Replicas behind nginx, restarted one by one under load."""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx

from sage_obs.processes import Process, stop
from tests.support.agents import BODY, start_agent, wait_for_line
from tests.support.nginx import nginx
from tests.support.ports import free_port


@contextmanager
def _load(url: str) -> Iterator[Counter[str]]:
    """Eight callers that ask one message after the other; how it went, by name."""
    results: Counter[str] = Counter()
    over = threading.Event()

    async def call(client: httpx.AsyncClient) -> None:
        while not over.is_set():
            try:
                answer = await client.post(f"{url}/v1/messages", json=BODY)
                results[str(answer.status_code)] += 1
            except httpx.TransportError as exc:
                results[type(exc).__name__] += 1

    async def run() -> None:
        async with httpx.AsyncClient(timeout=20) as client:
            await asyncio.gather(*(call(client) for _ in range(8)))

    thread = threading.Thread(target=lambda: asyncio.run(run()))
    thread.start()
    try:
        yield results
    finally:
        over.set()
        thread.join(30)


def _replica(folder: Path, name: str, port: int) -> Process:
    environ = {"SAGE_SERVER_PORT": str(port), "SAGE_LLM_SCRIPTED_LATENCY": "20ms", "SAGE_STORAGE_PATH": str(folder / "state.db")}
    process = start_agent(folder, name=name, environ=environ)
    wait_for_line(process, "agent listening")
    return process


def _until_more(results: Counter[str], count: int) -> None:
    deadline = time.monotonic() + 20
    seen = results["200"]
    while results["200"] < seen + count:
        assert time.monotonic() < deadline, results
        time.sleep(0.02)


def test_replicas_are_restarted_one_by_one_without_a_failed_request(tmp_path: Path) -> None:
    """Each of three is drained and started anew while nginx passes requests on; every request is answered with 200."""
    ports = [free_port() for _ in range(3)]
    with ExitStack() as stack:
        replicas = [_replica(tmp_path, f"first-{number}", port) for number, port in enumerate(ports)]
        stack.callback(lambda: stop(replicas, grace=5.0))
        url = stack.enter_context(nginx(*(f"http://127.0.0.1:{port}" for port in ports)))
        with _load(url) as results:
            _until_more(results, 50)
            for number, port in enumerate(ports):
                replicas[number].signal(signal.SIGTERM)
                assert replicas[number].popen.wait(15) == 0
                _until_more(results, 20)
                replicas[number] = _replica(tmp_path, f"second-{number}", port)
                _until_more(results, 50)
    assert set(results) == {"200"}
