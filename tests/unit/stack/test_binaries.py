"""Fetching the servers can be left at any time, and leaves nothing half-done."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from sage_obs.errors import UnavailableError
from sage_obs.stack import binaries


class LeftError(Exception):
    """Somebody asked to stop."""


def _after(seconds: float) -> Callable[[], None]:
    deadline = time.monotonic() + seconds

    def check() -> None:
        if time.monotonic() >= deadline:
            raise LeftError

    return check


def _apt(folder: Path, script: str) -> Path:
    folder.mkdir()
    for tool in ("apt-get", "dpkg"):
        (folder / tool).write_text(f"#!/bin/sh\n{script}\n")
        (folder / tool).chmod(0o755)
    return folder


def test_a_download_is_left_when_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command that downloads is ended, and nothing of it stays in the folder."""
    monkeypatch.setenv("PATH", str(_apt(tmp_path / "path", f"echo $$ > {tmp_path}/pid; exec /bin/sleep 600")))
    with pytest.raises(LeftError):
        binaries.find("prometheus", state=tmp_path / "state", check=_after(0.5))
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)
    assert [path.name for path in (tmp_path / "state/bin").iterdir()] == [".lock"]


def test_waiting_for_another_that_fetches_is_left_when_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who waits for the lock of the folder need not wait for its holder."""
    monkeypatch.setenv("PATH", str(_apt(tmp_path / "path", "exit 1")))
    (tmp_path / "bin").mkdir()
    with (tmp_path / "bin/.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(LeftError):
            binaries.find("prometheus", state=tmp_path, check=_after(0.3))


def test_a_failed_download_says_what_apt_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last line of the tool's own words stands in the error, which says what to do."""
    monkeypatch.setenv("PATH", str(_apt(tmp_path / "path", "echo 'E: no network' >&2; exit 100")))
    with pytest.raises(UnavailableError, match=r"Cannot get prometheus: `apt-get .* failed: E: no network") as caught:
        binaries.find("prometheus", state=tmp_path)
    assert "Install Prometheus" in str(caught.value)


def test_a_download_that_never_ends_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is a limit, and the error names it."""
    monkeypatch.setattr(binaries, "_DOWNLOAD_TIMEOUT", 0.3)
    monkeypatch.setenv("PATH", str(_apt(tmp_path / "path", "exec /bin/sleep 600")))
    with pytest.raises(UnavailableError, match="no answer within"):
        binaries.find("prometheus", state=tmp_path)
