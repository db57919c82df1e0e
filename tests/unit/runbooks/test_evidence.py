from __future__ import annotations

import hashlib
import os
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from sage_obs.errors import PlatformError
from sage_obs.platforms.base import Instance, PlatformState
from sage_obs.privacy.redaction import MASK
from sage_obs.runbooks import evidence
from sage_obs.runbooks.evidence import ITEMS, capture
from sage_obs.runbooks.world import World
from tests.support.runbooks import GOOD, FakeSignals, Scene


class _Page(BaseHTTPRequestHandler):
    more = b""

    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/metrics" else 503)
        self.end_headers()
        self.wfile.write(f"path {self.path} token=abcdefgh12345\n".encode() + self.more)

    def log_message(self, *_: object) -> None:
        pass


class _LongPage(_Page):
    more = b"y" * 10**6


@contextmanager
def _serving(page: type[_Page] = _Page) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), page) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def _world(tmp_path: Path, url: str, *, pid: int | None = None) -> World:
    scene = Scene(tmp_path / "state")
    log = tmp_path / "agent.log"
    log.write_text("old\n" * 100_000 + "Authorization: Bearer abcdefgh12345\nlast line\n")
    instance = Instance("agent-1", "1.0.0", GOOD.digest, pid or os.getpid(), url, url, ready=True, log=str(log), started_at=0.0)
    state = PlatformState("sage-agent", GOOD, (instance,), converged=True, in_progress=False, detail="")
    scene.platform.describe = lambda: state  # type: ignore[method-assign]
    return scene.world


def test_everything_is_captured_with_its_digest(tmp_path: Path) -> None:
    """Metrics, health, log, stacks, profiles, platform, measurements: files of the owner's only, redacted, named by their SHA-256."""
    with _serving() as url:
        exhibits = capture(_world(tmp_path, url), ITEMS, tmp_path / "run/evidence", budget=20)
    profiles = [f"{kind} {what}" for kind in ("tasks", "cpu", "wall") for what in ("profile", "flame graph")]
    assert {one.name.split(" of ")[0]: one.error for one in exhibits} == dict.fromkeys(
        ["metrics", "health", "log tail", "stacks", *profiles, "platform state", "trigger measurements"], ""
    )
    assert stat.S_IMODE((tmp_path / "run/evidence").stat().st_mode) == 0o700
    for one in exhibits:
        path = tmp_path / "run" / one.file
        assert hashlib.sha256(path.read_bytes()).hexdigest() == one.sha256
        assert path.stat().st_size == one.size
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    folder = tmp_path / "run/evidence"
    assert (folder / "agent-1-log.txt").read_text().endswith(f"Authorization: {MASK}\nlast line\n")
    assert (folder / "agent-1-log.txt").stat().st_size < 300_000
    assert "503" in (folder / "agent-1-health.json").read_text()
    assert MASK in (folder / "agent-1-health.json").read_text()
    for name in ("stacks.txt", "wall.html", "tasks.html"):
        assert "test_everything_is_captured" in (folder / f"agent-1-{name}").read_text()


def test_what_cannot_be_had_is_recorded_and_stops_nothing(tmp_path: Path) -> None:
    """Each failure stands with its item; the others are captured."""
    exhibits = capture(_world(tmp_path, "http://127.0.0.1:1", pid=2**22 + 1), ITEMS, tmp_path / "evidence", budget=10)
    by_name = {one.name.split(" of ")[0]: one for one in exhibits}
    assert "ConnectError" in by_name["metrics"].error
    assert "py-spy could not read pid" in by_name["stacks"].error
    assert "is not there" in by_name["profiles"].error
    assert by_name["metrics"].sha256 == ""
    assert by_name["log tail"].error == ""
    assert by_name["platform state"].error == ""


class Hanging(FakeSignals):
    """A source of numbers that does not answer."""

    release = threading.Event()

    def snapshot(self, *, seconds: float) -> str:
        """See Signals."""
        del seconds
        self.release.wait(30)
        return "too late"


def test_the_time_box_holds(tmp_path: Path) -> None:
    """What is late is left out; the run goes on after the budget, whatever hangs."""
    slow = Hanging()
    began = time.monotonic()
    exhibits = capture(
        replace(_world(tmp_path, "http://127.0.0.1:1"), signals=slow), ("queries", "platform"), tmp_path / "evidence", budget=0.3
    )
    slow.release.set()
    assert time.monotonic() - began < 3
    assert {one.name: one.error for one in exhibits} == {"platform state": "", "trigger measurements": "not captured within 0.3 s"}


def test_the_time_box_holds_for_the_platform_too(tmp_path: Path) -> None:
    """A platform that does not say what runs is given up like any other source."""
    world, release = _world(tmp_path, "http://127.0.0.1:1"), threading.Event()
    world.platform.describe = lambda: release.wait(30)  # type: ignore[union-attr,method-assign]
    began = time.monotonic()
    with pytest.raises(PlatformError, match=r"within 0\.2 s"):
        capture(world, ("platform",), tmp_path / "evidence", budget=0.2)
    release.set()
    assert time.monotonic() - began < 2


def test_what_is_looked_through_for_secrets_is_cut_to_size_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long a log's lines, a probe's body or an error are."""
    seen: list[str] = []

    def note(text: str) -> str:
        seen.append(text)
        return ""

    def fail(*_: object) -> str:
        raise ValueError("z" * 10**6)

    monkeypatch.setattr(evidence, "redact_text", note)
    monkeypatch.setattr(evidence, "_stacks", fail)
    with _serving(_LongPage) as url:
        world = _world(tmp_path, url)
        (tmp_path / "agent.log").write_text("x" * 10**6 + "\nlast line\n")
        capture(world, ("health", "logs", "stacks"), tmp_path / "evidence", budget=10)
    assert len(seen) == 3
    assert max(len(line) for text in seen for line in text.split("\n")) < 17_000
    assert any(text.endswith("last line\n") for text in seen)
