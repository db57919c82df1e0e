"""/debug/pprof/* as a client meets it."""

from __future__ import annotations

import dataclasses
import gc
import json
import logging
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

import sage_obs
from sage_obs.errors import ConfigError, UnavailableError
from sage_obs.layer import Layer
from sage_obs.profiling import collapsed, pages, pprof, speedscope
from sage_obs.profiling.sampler import Sampler
from sage_obs.settings import OPTIONS, Settings

_TOKEN = f"s3cret-{1 + 1}"
Start = Callable[..., sage_obs.Handle]


def _start(instrument: Start, **arguments: object) -> sage_obs.Handle:
    return instrument(**{"profiling": True, "profiling_port": 0, "logs": False, "libraries": [], **arguments})


def _get(handle: sage_obs.Handle, path: str, **options: object) -> httpx.Response:
    return httpx.get(f"http://127.0.0.1:{handle.profiling_port}/debug/pprof/{path}", trust_env=False, timeout=30, **options)  # type: ignore[arg-type]


def test_off_is_off(instrument: Start) -> None:
    """By default there is no port, no thread and no signal handler; with the layer off neither."""
    handle = instrument()
    assert handle.profiling_port is None
    assert "switched off" in handle.status()["profiling"].why
    assert not [one for one in threading.enumerate() if "profiling" in one.name]
    assert instrument(enabled=False, profiling=True).profiling_port is None


def test_every_profile_there_is_has_gos_headers_and_opens(instrument: Start) -> None:
    """Each is a file of pprof's, with Go's name and type, and says where it is from."""
    handle = _start(instrument)
    for name in pages.PROFILES:
        answer = _get(handle, f"{name}?seconds=1" if name == "profile" else name)
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"] == "application/octet-stream"
        assert answer.headers["content-disposition"] == f'attachment; filename="{name}"'
        assert answer.headers["x-content-type-options"] == "nosniff"
        profile = pprof.decode(answer.content)
        assert profile.kinds
        assert profile.comments


@pytest.mark.parametrize(
    ("path", "status", "text"),
    [
        ("nothing", 404, "Unknown profile"),
        ("heap?seconds=0", 400, "positive integer"),
        ("goroutine?seconds=1&debug=1", 400, "incompatible"),
        ("profile?hz=9999&seconds=1", 400, '"hz"'),
        ("trace?seconds=1", 501, "no execution trace"),
        ("heap?pid=1", 404, "No process 1"),
        ("../../etc/passwd", 404, "nothing here"),
    ],
)
def test_errors_are_gos(instrument: Start, path: str, status: int, text: str) -> None:
    """The status, the reason as text, and the header that makes Go's tool print it; no file's name."""
    answer = _get(_start(instrument), path)
    assert (answer.status_code, answer.headers["x-go-pprof"]) == (status, "1")
    assert text in answer.text
    assert answer.headers["content-type"].startswith("text/plain")
    assert "content-disposition" not in answer.headers


def test_the_small_pages(instrument: Start) -> None:
    """The index, the command line, symbols, tasks, text for people, and the ways there."""
    handle = _start(instrument)
    index = _get(handle, "")
    assert all(f'href="{name}"' in index.text for name in pages.PROFILES)
    assert "flame graph" in index.text
    assert "\0" in _get(handle, "cmdline").text
    assert _get(handle, "symbol").text == "num_symbols: 0\n"
    assert json.loads(_get(handle, "tasks").text)["total"] >= 1
    assert _get(handle, "goroutine?debug=2").text.startswith("goroutine profile: total")
    assert "inuse_space" in _get(handle, "heap?debug=1").text
    assert "SAGE_PROFILING_LOCKS" in _get(handle, "mutex?debug=1").text
    root = httpx.get(f"http://127.0.0.1:{handle.profiling_port}/", trust_env=False)
    assert (root.status_code, root.headers["location"]) == (301, "/debug/pprof/")


def test_other_formats_by_name(instrument: Start) -> None:
    """Collapsed stacks, speedscope's file, and a page."""
    handle = _start(instrument)
    assert collapsed.decode(_get(handle, "goroutine?format=collapsed").text).total() >= 1
    assert speedscope.decode(_get(handle, "goroutine?format=speedscope").content).total() >= 1
    page = _get(handle, "goroutine?format=flamegraph")
    assert page.headers["content-type"].startswith("text/html")
    assert "content-disposition" not in page.headers


def test_a_difference_over_seconds_has_only_what_changed(instrument: Start) -> None:
    """Threads that stand where they stood are not in it."""
    profile = pprof.decode(_get(_start(instrument), "threadcreate?seconds=1").content)
    assert profile.samples == ()


def test_a_token_opens_it_and_every_fetch_is_a_line(instrument: Start, caplog: pytest.LogCaptureFixture) -> None:
    """Basic and Bearer both do, anything else is 401 with a challenge; lines say who had what, and never the token."""
    handle = _start(instrument, profiling_token=_TOKEN)
    with caplog.at_level(logging.INFO, "sage_obs.profiling"):
        assert _get(handle, "cmdline", auth=("anybody", _TOKEN)).status_code == 200
        assert _get(handle, "cmdline", headers={"authorization": f"Bearer {_TOKEN}"}).status_code == 200
        refused = [_get(handle, "cmdline", auth=(_TOKEN, "wrong")), _get(handle, "cmdline")]
    assert [(one.status_code, one.headers["www-authenticate"].partition(" ")[0]) for one in refused] == [(401, "Basic")] * 2
    lines = [record for record in caplog.records if record.name == "sage_obs.profiling"]
    assert [record.getMessage() for record in lines] == ["profile fetched", "profile fetched", "profile refused"]
    assert lines[0].__dict__["profile"] == "cmdline"
    assert lines[0].__dict__["client"] == "127.0.0.1"
    assert "s3cret" not in " ".join(map(str, (record.__dict__ for record in lines)))


def test_another_name_for_this_machine_is_refused(instrument: Start) -> None:
    """A web page that has its own name lead here gets nothing."""
    assert _get(_start(instrument), "cmdline", headers={"host": "evil.example"}).status_code == 403


def test_an_open_address_without_a_token_is_refused_and_the_rest_runs(instrument: Start) -> None:
    """Status says what to set; strict raises it."""
    handle = _start(instrument, profiling_host="0.0.0.0", strict=False)
    assert "SAGE_PROFILING_TOKEN" in handle.status()["profiling"].why
    assert handle.status()["metrics"].on
    with pytest.raises(ConfigError, match="without a token"):
        _start(instrument, profiling_host="0.0.0.0", service_name="other")


def test_a_port_that_was_asked_for_and_is_taken_is_an_error_and_the_default_gives_way(
    instrument: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two services on one machine the second has another port, unless somebody named one."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UnavailableError, match=f"profiles on 127.0.0.1:{port}: another process has it. Set SAGE_PROFILING_PORT"):
            _start(instrument, profiling_port=port)
        option = OPTIONS["profiling_port"]
        monkeypatch.setitem(OPTIONS, "profiling_port", dataclasses.replace(option, default=port))
        handle = _start(instrument, profiling_port=None)
        assert handle.profiling_port not in {None, port}


def test_secrets_are_in_no_repr() -> None:
    """Neither settings nor the plan made of them show the token."""
    from sage_obs.layer import Plan

    settings = Settings.load(arguments={"profiling_token": _TOKEN}, environ={})
    plan = Plan.of(settings, None, None)
    assert "s3cret" not in f"{settings!r} {plan!r} {Layer(settings, plan)!r}"


def _descriptors() -> int:
    """How many files and sockets are open."""
    return len(list(Path("/proc/self/fd").iterdir()))


def _settles(handle: sage_obs.Handle, descriptors: int) -> None:
    """Within ten seconds no window is open, no request is being answered and nothing is left open."""
    sampler = next(one for one in gc.get_objects() if type(one) is Sampler and one._has_signal())
    deadline = time.monotonic() + 10
    while sampler._windows or _descriptors() > descriptors or [one for one in threading.enumerate() if "process_request" in one.name]:
        assert time.monotonic() < deadline, (sampler._windows, _descriptors(), descriptors, threading.enumerate())
        time.sleep(0.05)
    assert _get(handle, "cmdline").status_code == 200


def test_fifty_fetches_at_once_are_some_profiles_and_the_rest_is_told_to_wait(instrument: Start) -> None:
    """No more than the bound run, the others get 503 with a time to come again, and afterwards everything is as before."""
    handle = _start(instrument)
    _get(handle, "profile?seconds=1")
    descriptors = _descriptors()
    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(lambda _: _get(handle, "profile?seconds=4"), range(50)))
    statuses = [answer.status_code for answer in answers]
    assert set(statuses) == {200, 503}
    assert pages.MOST_AT_ONCE <= statuses.count(200) < 2 * pages.MOST_AT_ONCE  # on a slow machine some come when the first are through
    assert all(answer.headers["retry-after"] == "5" for answer in answers if answer.status_code == 503)
    assert all(pprof.decode(answer.content).kinds for answer in answers if answer.status_code == 200)
    assert _get(handle, "profile?seconds=1").status_code == 200
    _settles(handle, descriptors)


def test_the_second_heap_profile_is_told_to_wait(instrument: Start) -> None:
    """Go's client prints why."""
    handle = _start(instrument)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(_get, handle, "heap?seconds=2")
        time.sleep(0.5)
        second = _get(handle, "heap")
        assert (second.status_code, second.headers["x-go-pprof"]) == (409, "1")
        assert "try again" in second.text
        assert first.result().status_code == 200


def test_a_client_that_leaves_leaves_nothing_behind(instrument: Start) -> None:
    """Its window is closed within a moment, and its turn is free."""
    handle = _start(instrument)
    _get(handle, "profile?seconds=1")
    descriptors = _descriptors()
    for _ in range(pages.MOST_AT_ONCE * 2):
        connection = socket.create_connection(("127.0.0.1", handle.profiling_port or 0))
        connection.sendall(b"GET /debug/pprof/profile?seconds=120 HTTP/1.1\r\nhost: localhost\r\n\r\n")
        time.sleep(0.02)
        connection.close()
    deadline = time.monotonic() + 10
    while (answer := _get(handle, "profile?seconds=1")).status_code != 200:
        assert answer.status_code == 503
        assert time.monotonic() < deadline
    _settles(handle, descriptors)


def test_the_end_of_the_layer_ends_what_is_being_taken(instrument: Start) -> None:
    """Nobody waits for a profile of two minutes at the exit, and no thread stays."""
    handle = _start(instrument)
    with ThreadPoolExecutor(2) as pool:
        waiting = [pool.submit(_get, handle, path) for path in ("profile?seconds=120", "block?seconds=120")]
        time.sleep(0.5)
        began = time.monotonic()
        sage_obs.uninstrument()
        assert time.monotonic() - began < 2
        assert [one.result().status_code for one in waiting] == [503, 503]
    assert not [one for one in threading.enumerate() if one.name.startswith("sage-obs")]


def test_rubbish_is_answered(instrument: Start) -> None:
    """Bytes that are no request do no harm."""
    handle = _start(instrument)
    for rubbish in (b"\0" * 100, b"GET " + b"a" * 70_000 + b"\r\n\r\n", b"GET /debug/pprof/profile?seconds=%00%ff HTTP/9\r\n\r\n", b"\r\n"):
        with socket.create_connection(("127.0.0.1", handle.profiling_port or 0)) as connection:
            connection.sendall(rubbish)
            connection.shutdown(socket.SHUT_WR)
            connection.settimeout(5)
            while connection.recv(65536):
                pass
    assert _get(handle, "cmdline").status_code == 200


def test_a_certificate_that_is_none_is_named(instrument: Start, tmp_path: Path) -> None:
    """With the variables to set."""
    with pytest.raises(ConfigError, match="SAGE_PROFILING_CERTIFICATE"):
        _start(instrument, profiling_certificate=str(tmp_path / "none.pem"))
