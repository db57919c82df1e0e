"""Every profile at once, from sources that answer, that do not, and that have nothing to say."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from sage_obs.errors import ConfigError, UnavailableError
from sage_obs.profiling import capture, fetch, pprof
from sage_obs.profiling.profile import Frame, Kind, Profile, Sample

FOUND = Profile((Kind("cpu", "nanoseconds"),), (Sample((Frame("f"),), (7,)),), "cpu")
URL = "http://127.0.0.1:6060"


class _Sources:
    """Takes the place of what fetches; notes what was asked for, and which were asked for at one time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, silent: tuple[str, ...] = (), empty: tuple[str, ...] = ()) -> None:
        self.asked: list[tuple[str, str, int | None]] = []
        self._silent, self._empty, self._lock = silent, empty, threading.Lock()
        monkeypatch.setattr(fetch, "from_url", lambda url, kind, **more: self._answer(url, kind, more["seconds"]))
        monkeypatch.setattr(fetch, "from_process", lambda _, kind, **more: self._outside(kind, more))

    def _answer(self, place: str, kind: str, seconds: int | None) -> Profile:
        with self._lock:
            self.asked.append((place, kind, seconds))
        if place in self._silent or kind in self._silent:
            raise UnavailableError(f"no {kind}")
        return Profile(FOUND.kinds) if kind in self._empty else FOUND

    def _outside(self, kind: str, more: dict[str, Any]) -> Profile:
        assert more["stop"] is False, "a service that runs is not to be stopped"
        return self._answer("outside", kind, more["seconds"])


def test_each_kind_is_a_file_and_a_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tasks come first, memory last, as taking it would be seen in the others; what is empty is no file; one that fails stops none."""
    sources = _Sources(monkeypatch, silent=("wall",), empty=("block",))
    found = {one.kind: one for one in capture.capture(capture.Subject(URL, 7), tmp_path, seconds=3)}
    assert [found[kind].error for kind in ("tasks", "cpu", "wall")] == ["", "", "no wall"]
    assert {path.name for path in tmp_path.iterdir()} == {
        f"{kind}{end}" for kind in ("tasks", "cpu", "mutex", "heap") for end in (".pb.gz", ".html")
    }
    assert pprof.decode((tmp_path / "cpu.pb.gz").read_bytes()) == FOUND
    assert found["block"] == capture.Captured("block")
    assert (sources.asked[0], sources.asked[-1]) == ((URL, "tasks", None), (URL, "heap", None))
    assert {kind: seconds for _, kind, seconds in sources.asked if seconds} == {"cpu": 3, "wall": 3}


def test_who_does_not_answer_is_asked_once_and_then_looked_at_from_outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which shows tasks and time; without a number there is the one error."""
    sources = _Sources(monkeypatch, silent=(URL,))
    found = capture.capture(capture.Subject(URL, 7), tmp_path, seconds=3)
    assert [(one.kind, one.error) for one in found] == [("tasks", ""), ("cpu", ""), ("wall", "")]
    assert [one for one in sources.asked if one[0] == URL] == [(URL, "tasks", None)]
    (alone,) = capture.capture(capture.Subject(URL, None), tmp_path, seconds=3)
    assert alone.error == "no tasks"
    with pytest.raises(ConfigError, match="nothing to take profiles of"):
        capture.capture(capture.Subject("", None), tmp_path, seconds=3)


def test_the_token_is_in_no_repr() -> None:
    """It may end up in a log otherwise."""
    assert "s3cret" not in repr(capture.Subject(URL, None, f"s3cret-{1 + 1}"))
