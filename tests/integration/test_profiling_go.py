"""Go's own tool with every profile there is: it fetches them itself, with a password, plainly and over TLS."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from sage_obs.processes import spawn, stop
from tests.support.ports import free_port
from tests.support.pprof import go_pprof
from tests.support.services import wait_until

pytestmark = pytest.mark.system

TOKEN = f"s3cret-{1 + 1}"
_SERVICE = """
import asyncio, os, sys, threading, time
import sage_obs
from sage_obs import loops
sage_obs.instrument(profiling=True, profiling_locks=True, libraries=[], metrics=False, health=False, logs=False, strict=True)
lock, kept = threading.Lock(), []

def hold():
    while True:
        with lock: time.sleep(0.02)

def contend():
    while True:
        with lock: kept.append(bytearray(1000))

async def wait_long(event):
    await event.wait()

def compute():
    end = time.thread_time() + 0.02
    while time.thread_time() < end: sum(range(500))

async def main():
    loops.seen_here()
    waits = asyncio.create_task(wait_long(asyncio.Event()), name="patient")
    print("ready", flush=True)
    while True:
        compute()
        time.sleep(0.1)
        await asyncio.sleep(0.05)

for target in (hold, contend):
    threading.Thread(target=target, daemon=True, name=target.__name__).start()
asyncio.run(main())
"""


class Row(NamedTuple):
    """What stands in a profile: its type, something in `-top`, what `-list` says of it, a tag's value."""

    kind: str
    top: str
    source: str = ""
    tag: str = ""


_PROFILES = {
    "profile?seconds=2": Row("cpu", "compute", "sum(range(500))", "MainThread"),
    "profile?seconds=2&mode=wall": Row("wall", "main", "time.sleep(0.1)", "MainThread"),
    "heap": Row("inuse_space", "builtins.dict", "No source information"),
    "allocs": Row("inuse_space", "builtins.dict", "No source information"),
    "heap?seconds=2": Row("inuse_space", "service.py", "kept.append(bytearray(1000))"),
    "goroutine": Row("goroutine", "wait_long", "await event.wait()", "patient"),
    "goroutine?seconds=1": Row("goroutine", ""),
    "block": Row("delay", "main", "time.sleep(0.1)"),
    "mutex": Row("delay", "contend", "with lock: kept.append", "threading.Lock"),
    "threadcreate": Row("threadcreate", "Thread", "self."),
}


@contextmanager
def _service(folder: Path, **environ: str) -> Iterator[str]:
    """A service with something of everything, and where its profiles are, with the password."""
    (folder / "service.py").write_text(_SERVICE)
    port = free_port()
    environment = {"SAGE_PROFILING_PORT": str(port), "SAGE_PROFILING_TOKEN": TOKEN, **environ}
    process = spawn("service", [sys.executable, str(folder / "service.py")], log=folder / "log", environment=environment)
    try:
        wait_until(lambda: "ready" in process.tail(20), says=lambda: process.tail(20))
        yield f"any:{TOKEN}@127.0.0.1:{port}/debug/pprof/"
    finally:
        stop([process], grace=2)


def _certificate(folder: Path) -> dict[str, str]:
    """The settings of a service that has one of its own."""
    certificate, key = str(folder / "cert.pem"), str(folder / "key.pem")
    make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", certificate, "-subj", "/CN=localhost"]
    subprocess.run(make, check=True, capture_output=True, timeout=60)
    return {"SAGE_PROFILING_CERTIFICATE": certificate, "SAGE_PROFILING_KEY": key}


def _fetched(address: str, folder: Path) -> dict[str, Path]:
    """Every profile as a file named `profile`, fetched by Go's tool, in a folder of its own."""

    def fetch(path: str) -> Path:
        home = folder / "".join(letter if letter.isalnum() else "-" for letter in path)
        home.mkdir()
        go_pprof("-proto", "-output", "profile", f"{address}{path}", home=home)
        return home

    heaps = [path for path in _PROFILES if path.startswith(("heap", "allocs"))]
    others = [path for path in _PROFILES if path not in heaps]
    with ThreadPoolExecutor(4) as pool:
        found = dict(zip(others, pool.map(fetch, others), strict=True))
    return {**found, **{path: fetch(path) for path in heaps}}  # one at a time, and after the others, which it slows down


def test_every_profile_opens_in_every_view(tmp_path: Path) -> None:
    """Go's tool fetches each with a password and shows functions, source, stacks, tags, the raw message, and what differs from itself."""
    with _service(tmp_path) as address:
        found = _fetched(f"http://{address}", tmp_path)
    with ThreadPoolExecutor(4) as pool:
        for _ in pool.map(lambda path: _opens(found[path], _PROFILES[path]), found):
            pass


def test_every_profile_is_fetched_over_tls(tmp_path: Path) -> None:
    """With a password as well."""
    with _service(tmp_path, **_certificate(tmp_path)) as address:
        found = _fetched(f"https+insecure://{address}", tmp_path)
    for path, home in found.items():
        assert f"Type: {_PROFILES[path].kind}" in go_pprof("-top", "profile", home=home)


def _opens(home: Path, row: Row) -> None:
    top = go_pprof("-top", "-cum", "profile", home=home)
    assert f"Type: {row.kind}" in top
    assert row.top in top
    if row.top:  # of a difference nobody knows what is in it
        assert row.source in go_pprof("-list", row.top, "profile", home=home)
    traces = go_pprof("-traces", "profile", home=home)
    assert row.top in traces
    assert row.tag in go_pprof("-tags", "profile", home=home)
    raw = go_pprof("-raw", "profile", home=home)
    assert "Mappings" in raw
    assert f"{row.kind}/" in raw
    same = go_pprof("-top", "-diff_base", "profile", "profile", home=home)
    assert "Showing nodes accounting for 0" in same
