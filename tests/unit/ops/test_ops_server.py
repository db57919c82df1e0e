from __future__ import annotations

import gzip
import json
import socket
import threading
from collections.abc import Callable

import httpx
import pytest

import sage_obs
from sage_obs import testing
from sage_obs.conventions import INTERNAL_ERRORS
from sage_obs.errors import UnavailableError
from tests.support.metrics import value

Start = Callable[..., sage_obs.Handle]


def _get(handle: sage_obs.Handle, path: str, **headers: str) -> httpx.Response:
    return httpx.get(f"http://127.0.0.1:{handle.metrics_port}{path}", headers=headers, trust_env=False)


def test_metrics_and_health_are_served(instrument: Start) -> None:
    """The port answers /metrics and the three probes, and says what it has where it has nothing."""
    handle = instrument()
    assert "sage_build_info" in _get(handle, "/metrics").text
    assert _get(handle, "/metrics", accept="application/openmetrics-text").text.endswith("# EOF\n")
    assert _get(handle, "/health/live").json() == {"name": "liveness", "status": "healthy"}
    assert _get(handle, "/health/ready?verbose=1").json()["status"] == "healthy"
    assert _get(handle, "/health/startup").status_code in {200, 503}
    missing = _get(handle, "/nothing")
    assert missing.status_code == 404
    assert "/metrics, /health/live" in missing.text


def test_the_page_is_compressed_for_those_who_take_it(instrument: Start) -> None:
    """The compressed page is the plain one."""
    handle = instrument(label_budget=5)
    connection = socket.create_connection(("127.0.0.1", handle.metrics_port or 0))
    connection.sendall(b"GET /metrics HTTP/1.0\r\nAccept-Encoding: gzip\r\n\r\n")
    head, _, body = _read_all(connection).partition(b"\r\n\r\n")
    assert b"content-encoding: gzip" in head.lower()
    assert b"sage_build_info" in gzip.decompress(body)


def _read_all(connection: socket.socket) -> bytes:
    data = b""
    with connection:
        while piece := connection.recv(65536):
            data += piece
    return data


def test_head_has_the_headers_and_no_body(instrument: Start) -> None:
    """A HEAD is answered like a GET, without its body."""
    handle = instrument()
    answer = httpx.head(f"http://127.0.0.1:{handle.metrics_port}/health/live", trust_env=False)
    assert int(answer.headers["content-length"]) == len(json.dumps({"name": "liveness", "status": "healthy"}, separators=(",", ":")))
    assert answer.content == b""


def test_each_page_is_there_only_where_it_is_switched_on(instrument: Start) -> None:
    """Without metrics there is no /metrics, without health no probe, without both no port."""
    assert _get(instrument(metrics=False), "/metrics").status_code == 404
    assert _get(instrument(health=False), "/health/live").status_code == 404
    handle = instrument(health=False, metrics=False)
    assert handle.metrics_port is None
    assert not handle.status()["ops"].on


def test_a_taken_port_is_named_and_the_rest_runs(instrument: Start) -> None:
    """Status says which port and what to set; strict raises it and leaves nothing on."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        handle = instrument(metrics_port=port, strict=False, log_output="/dev/null")
        assert handle.metrics_port is None
        assert f"127.0.0.1:{port}" in handle.status()["ops"].why
        assert "SAGE_METRICS_PORT" in handle.status()["ops"].why
        assert handle.status()["metrics"].on
        with pytest.raises(UnavailableError, match=str(port)):
            instrument("other", metrics_port=port)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("sage-obs")]


def test_the_port_is_free_again_afterwards(instrument: Start) -> None:
    """uninstrument() gives the port back, and the next instrument() can have it."""
    port = instrument().metrics_port
    assert port is not None
    sage_obs.uninstrument()
    assert instrument(metrics_port=port).metrics_port == port


def test_a_connection_that_is_kept_open_ends_with_the_server(instrument: Start) -> None:
    """A scraper that reuses its connection is not answered by a server that is off."""
    handle = instrument()
    url = f"http://127.0.0.1:{handle.metrics_port}/health/live"
    with httpx.Client(trust_env=False) as client:
        assert client.get(url).status_code == 200
        sage_obs.uninstrument()
        with pytest.raises(httpx.TransportError):
            client.get(url)


def test_a_connection_that_gets_no_thread_is_not_the_last_one(instrument: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the process cannot have another thread, that scrape fails, is counted, and the next one is answered."""
    handle = instrument()
    testing.reraise_internal_errors(on=False)

    def start(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        with pytest.raises(httpx.TransportError):
            _get(handle, "/metrics")
    assert _get(handle, "/health/live").status_code == 200
    assert value(INTERNAL_ERRORS, component="ops") == 1


def test_many_scrapes_at_once_are_answered(instrument: Start) -> None:
    """Concurrent clients each get a whole page."""
    handle = instrument()
    pages: list[str] = []
    threads = [threading.Thread(target=lambda: pages.append(_get(handle, "/metrics").text)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(pages) == 8
    assert all("sage_obs_component_up" in page for page in pages)


def test_a_client_that_says_nothing_does_not_hold_others_up(instrument: Start) -> None:
    """An idle connection has a thread of its own."""
    handle = instrument()
    with socket.create_connection(("127.0.0.1", handle.metrics_port or 0)):
        assert _get(handle, "/health/live").status_code == 200
