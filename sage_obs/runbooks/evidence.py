"""Evidence before mutation: everything at once, within a time box, and what could not be had is said so.

Each item is collected by a thread of its own and written by the run itself, so a collector that is late can change nothing.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

from sage_obs.conventions import HEALTH_PATHS, METRICS_PATH
from sage_obs.errors import UnavailableError
from sage_obs.platforms.base import Instance
from sage_obs.runbooks.journal import make_private
from sage_obs.runbooks.records import Exhibit
from sage_obs.runbooks.redact import redact
from sage_obs.runbooks.world import World

ITEMS: Final = ("metrics", "health", "logs", "stacks", "platform", "queries")
"""What can be captured."""
FOLDER: Final = "evidence"
_TAIL_BYTES: Final = 256 * 1024
_LIMIT_BYTES: Final = 16 * 1024 * 1024


@dataclass(slots=True)
class _Task:
    """One item: the file it becomes, how to get it, and what came of it."""

    name: str
    file: str
    collect: Callable[[], str]
    text: str | None = None
    error: str = ""
    done: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        try:
            self.text = self.collect()
        except Exception as exc:  # noqa: BLE001 - whatever keeps one item from being captured is recorded with it
            self.error = f"{type(exc).__name__}: {exc}"
        finally:
            self.done.set()


def capture(world: World, items: Sequence[str], folder: Path, *, budget: float) -> tuple[Exhibit, ...]:
    """Capture `items` into `folder` within `budget` seconds. Raises OSError when the folder cannot be written at all."""
    make_private(folder)
    deadline = time.monotonic() + budget
    tasks = list(_tasks(world, items, budget))
    for task in tasks:
        threading.Thread(target=task.run, name=f"evidence {task.name}", daemon=True).start()
    for task in tasks:
        task.done.wait(max(0.0, deadline - time.monotonic()))
    return tuple(_exhibit(task, folder, budget) for task in tasks)


def _exhibit(task: _Task, folder: Path, budget: float) -> Exhibit:
    if not task.done.is_set():
        return Exhibit(task.name, "", "", 0, f"not captured within {budget:g} s")
    if task.text is None:
        return Exhibit(task.name, "", "", 0, redact(task.error))
    data = task.text.encode(errors="replace")[:_LIMIT_BYTES]
    try:
        _write(folder / task.file, data)
    except OSError as exc:
        return Exhibit(task.name, "", "", 0, f"cannot be written: {exc.strerror}")
    return Exhibit(task.name, f"{FOLDER}/{task.file}", hashlib.sha256(data).hexdigest(), len(data), "")


def _write(path: Path, data: bytes) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())


def _tasks(world: World, items: Sequence[str], budget: float) -> Iterator[_Task]:
    described = world.describe()
    for instance in described.instances if described else ():
        yield from _instance_tasks(instance, items, budget)
    if "platform" in items and described:
        text = json.dumps(asdict(described), indent=2, sort_keys=True) + "\n"
        yield _Task("platform state", "platform.json", lambda: text)
    if "queries" in items:
        yield _Task("trigger measurements", "queries.json", lambda: world.signals.snapshot(seconds=world.windows.rate * 3))


def _instance_tasks(one: Instance, items: Sequence[str], budget: float) -> Iterator[_Task]:
    if "metrics" in items:
        yield _Task(f"metrics of {one.name}", f"{one.name}-metrics.txt", lambda: _get(one.ops_url + METRICS_PATH, budget))
    if "health" in items:
        yield _Task(f"health of {one.name}", f"{one.name}-health.json", lambda: _health(one.ops_url, budget))
    if "logs" in items:
        yield _Task(f"log tail of {one.name}", f"{one.name}-log.txt", lambda: redact(_tail(Path(one.log))))
    if "stacks" in items:
        yield _Task(f"stacks of {one.name}", f"{one.name}-stacks.txt", lambda: redact(_stacks(one.pid, budget)))


def _get(url: str, timeout: float) -> str:
    import httpx

    with httpx.Client(timeout=timeout, trust_env=False) as client:
        return client.get(url).text


def _health(base: str, timeout: float) -> str:
    """Status and body of every probe; an unhealthy answer is the evidence, not an error."""
    import httpx

    with httpx.Client(timeout=timeout, trust_env=False) as client:
        answers = {path: client.get(base + path) for path in HEALTH_PATHS}
    bodies = {path: {"status": answer.status_code, "body": redact(answer.text)} for path, answer in answers.items()}
    return json.dumps(bodies, indent=2, sort_keys=True) + "\n"


def _tail(path: Path) -> str:
    with path.open("rb") as stream:
        size = stream.seek(0, os.SEEK_END)
        stream.seek(max(0, size - _TAIL_BYTES))
        data = stream.read(_TAIL_BYTES)
    return data.decode(errors="replace")


def _stacks(pid: int, timeout: float) -> str:
    """What every thread of a process is doing, by py-spy, which asks nothing of the process itself."""
    beside = Path(sys.executable).parent / "py-spy"
    binary = str(beside) if beside.exists() else shutil.which("py-spy")
    if binary is None:
        raise UnavailableError("py-spy is not installed.", hint="pip install py-spy")
    result = subprocess.run([binary, "dump", "--pid", str(pid)], capture_output=True, text=True, timeout=timeout, check=False)
    if result.returncode != 0:
        raise UnavailableError(f"py-spy could not read pid {pid}: {result.stderr.strip() or 'no reason given'}")
    return result.stdout
