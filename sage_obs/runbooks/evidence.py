"""Evidence before mutation: everything at once, within a time box, and what could not be had is said so.

Each item is collected by a thread of its own and written by the run itself, so a collector that is late can change nothing. The time
box holds against whatever waits; against what computes without letting other threads run it holds because every item is cut to size
before anything is done with it.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from sage_obs.conventions import HEALTH_PATHS, METRICS_PATH
from sage_obs.errors import PlatformError, UnavailableError
from sage_obs.platforms.base import Instance, PlatformState
from sage_obs.privacy.redaction import redact_text
from sage_obs.runbooks.journal import make_private
from sage_obs.runbooks.records import Exhibit
from sage_obs.runbooks.world import World

if TYPE_CHECKING:
    import httpx

ITEMS: Final = ("metrics", "health", "logs", "stacks", "profiles", "platform", "queries")
"""What can be captured."""
FOLDER: Final = "evidence"
_TAIL_BYTES: Final = 256 * 1024
_LIMIT_BYTES: Final = 4 * 1024 * 1024
_PROFILED: Final = 5
"""Most seconds over which profiles are taken; of a short budget it is a quarter, as what is measured has to be fetched and drawn, too."""
_LINE: Final = 16 * 1024
"""Characters of a line that are kept: what is longer is no text for people, and slow to look through for secrets."""


@dataclass(frozen=True, slots=True)
class _Part:
    """A file that an item becomes, or the reason why there is none."""

    name: str
    file: str
    data: bytes = b""
    error: str = ""


@dataclass(slots=True)
class _Task:
    """One item: its name, how to get it, and what came of it."""

    name: str
    collect: Callable[[], tuple[_Part, ...]]
    parts: tuple[_Part, ...] = ()
    error: str = ""
    done: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        try:
            self.parts = self.collect()
        except Exception as exc:  # noqa: BLE001 - whatever keeps one item from being captured is recorded with it
            self.error = redact_text(_cut(f"{type(exc).__name__}: {exc}"))
        finally:
            self.done.set()


def capture(world: World, items: Sequence[str], folder: Path, *, budget: float) -> tuple[Exhibit, ...]:
    """Capture `items` into `folder` within `budget` seconds.

    Raises OSError when the folder cannot be written at all, PlatformError when the platform does not say what runs.
    """
    make_private(folder)
    deadline = time.monotonic() + budget
    tasks = list(_tasks(world, _described(world, budget), items, budget))
    for task in tasks:
        threading.Thread(target=task.run, name=f"evidence {task.name}", daemon=True).start()
    for task in tasks:
        task.done.wait(max(0.0, deadline - time.monotonic()))
    return tuple(exhibit for task in tasks for exhibit in _exhibits(task, folder, budget))


def _described(world: World, budget: float) -> PlatformState | None:
    answer: Future[PlatformState | None] = Future()

    def ask() -> None:
        try:
            answer.set_result(world.describe())
        except Exception as exc:  # noqa: BLE001 - raised again where it is waited for
            answer.set_exception(exc)

    threading.Thread(target=ask, name="evidence platform", daemon=True).start()
    try:
        return answer.result(budget)
    except TimeoutError as exc:
        raise PlatformError(f"The platform did not say within {budget:g} s what runs.") from exc


def _cut(text: str) -> str:
    """At most 256 Ki characters, in lines of at most 16 Ki."""
    return "\n".join(line if len(line) <= _LINE else f"{line[:_LINE]}… (cut)" for line in text[:_TAIL_BYTES].split("\n"))


def _exhibits(task: _Task, folder: Path, budget: float) -> Iterator[Exhibit]:
    late = "" if task.done.is_set() else f"not captured within {budget:g} s"
    if error := late or task.error:
        yield Exhibit(task.name, "", "", 0, error)
        return
    for part in task.parts:
        yield _exhibit(part, folder)


def _exhibit(part: _Part, folder: Path) -> Exhibit:
    if part.error:
        return Exhibit(part.name, "", "", 0, part.error)
    try:
        _write(folder / part.file, part.data)
    except OSError as exc:
        return Exhibit(part.name, "", "", 0, f"cannot be written: {exc.strerror}")
    return Exhibit(part.name, f"{FOLDER}/{part.file}", hashlib.sha256(part.data).hexdigest(), len(part.data), "")


def _write(path: Path, data: bytes) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())


def _tasks(world: World, described: PlatformState | None, items: Sequence[str], budget: float) -> Iterator[_Task]:
    for instance in described.instances if described else ():
        yield from _instance_tasks(instance, items, budget)
    if "platform" in items and described:
        text = json.dumps(asdict(described), indent=2, sort_keys=True) + "\n"
        yield _text("platform state", "platform.json", lambda: text)
    if "queries" in items:
        yield _text("trigger measurements", "queries.json", lambda: world.signals.snapshot(seconds=world.windows.rate * 3))


def _text(name: str, file: str, collect: Callable[[], str]) -> _Task:
    """One file of text, without secrets."""
    return _Task(name, lambda: (_Part(name, file, redact_text(collect()).encode(errors="replace")[:_LIMIT_BYTES]),))


def _instance_tasks(one: Instance, items: Sequence[str], budget: float) -> Iterator[_Task]:
    if "metrics" in items:
        yield _text(f"metrics of {one.name}", f"{one.name}-metrics.txt", lambda: _get(one.ops_url + METRICS_PATH, budget))
    if "health" in items:
        yield _text(f"health of {one.name}", f"{one.name}-health.json", lambda: _health(one.ops_url, budget))
    if "logs" in items:
        yield _text(f"log tail of {one.name}", f"{one.name}-log.txt", lambda: _cut(_tail(Path(one.log))))
    if "stacks" in items:
        yield _text(f"stacks of {one.name}", f"{one.name}-stacks.txt", lambda: _cut(_stacks(one.pid, budget)))
    if "profiles" in items:
        yield _Task(f"profiles of {one.name}", lambda: tuple(_profiles(one, budget)))


def _get(url: str, timeout: float) -> str:
    import httpx

    with httpx.Client(timeout=timeout, trust_env=False) as client:
        return _read(client, url, timeout)[1]


def _health(base: str, timeout: float) -> str:
    """Status and body of every probe; an unhealthy answer is the evidence, not an error."""
    import httpx

    with httpx.Client(timeout=timeout, trust_env=False) as client:
        answers = {path: _read(client, base + path, timeout) for path in HEALTH_PATHS}
    bodies = {path: {"status": status, "body": _cut(text)} for path, (status, text) in answers.items()}
    return json.dumps(bodies, indent=2, sort_keys=True) + "\n"


def _read(client: httpx.Client, url: str, timeout: float) -> tuple[int, str]:
    """Status and text of what comes within `timeout` seconds, for later nobody waits, and 4 MiB."""
    body, deadline = bytearray(), time.monotonic() + timeout
    with client.stream("GET", url) as response:
        for part in response.iter_bytes():
            body += part
            if len(body) >= _LIMIT_BYTES or time.monotonic() >= deadline:
                break
    return response.status_code, body[:_LIMIT_BYTES].decode(errors="replace")


def _tail(path: Path) -> str:
    with path.open("rb") as stream:
        size = stream.seek(0, os.SEEK_END)
        stream.seek(max(0, size - _TAIL_BYTES))
        data = stream.read(_TAIL_BYTES)
    return data.decode(errors="replace")


def _profiles(one: Instance, budget: float) -> Iterator[_Part]:
    """Every profile with its flame graph, by a process of its own, which is ended when the time is over.

    They hold names of code and no values, so nothing is looked for in them that would be a secret.
    """
    if not one.profiles_url and not _is_there(one.pid):
        raise UnavailableError(f"process {one.pid} is not there")
    seconds = max(1, min(_PROFILED, int(budget / 4)))
    asked = ["--pid", str(one.pid), *(["--url", one.profiles_url] if one.profiles_url else [])]
    with tempfile.TemporaryDirectory(prefix="sage-obs-evidence-") as folder:
        command = [sys.executable, "-m", "sage_obs", "profile", "capture", folder, "--json", "--force", "--seconds", str(seconds), *asked]
        done = subprocess.run(command, capture_output=True, text=True, timeout=budget, check=False)
        found = [json.loads(line) for line in done.stdout.splitlines()]
        if not found:
            raise UnavailableError(f"no profile could be taken: {done.stderr.strip() or 'no reason given'}")
        for each in found:
            name = f"{each['kind']} profile of {one.name}"
            if each["error"]:
                yield _Part(name, "", error=redact_text(_cut(each["error"])))
            for path in map(Path, each["files"]):
                words = name.replace("profile", "flame graph") if path.suffix == ".html" else name
                yield _whole(words, f"{one.name}-{path.name}", path.read_bytes())


def _is_there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's
        return True
    return True


def _whole(name: str, file: str, data: bytes) -> _Part:
    """A file of which a part is worth nothing."""
    if len(data) > _LIMIT_BYTES:
        return _Part(name, "", error=f"larger than {_LIMIT_BYTES >> 20} MiB")
    return _Part(name, file, data)


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
