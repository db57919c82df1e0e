"""The traffic generator's account, and how it treats kept connections."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from sage_obs.stack.traffic import Account, Sender, read_account


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    answers = 0
    close_after = 10**9
    fail_every = 10**9


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_POST(self) -> None:
        """Answer, failing every so often, and hang up without a word every so often."""
        self.rfile.read(int(self.headers["content-length"]))
        self.server.answers += 1
        self.send_response(502 if self.server.answers % self.server.fail_every == 0 else 200)
        self.send_header("content-length", "0")
        self.end_headers()
        self.close_connection = self.server.answers % self.server.close_after == 0

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Quiet."""


@contextmanager
def _serving(*, close_after: int = 10**9, fail_every: int = 10**9) -> Iterator[_Server]:
    server = _Server(("127.0.0.1", 0), _Handler)
    server.close_after, server.fail_every = close_after, fail_every
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def _send(server: _Server, *, count: int) -> Account:
    account, stop = Account(), threading.Event()
    url = f"http://127.0.0.1:{server.server_port}"
    sender = Sender(url, interval=0.005, offset=0, account=account, stop=stop)
    sender.start()
    deadline = time.monotonic() + 10
    while server.answers < count and time.monotonic() < deadline:
        time.sleep(0.005)
    stop.set()
    sender.join(5)
    return account


def test_failures_are_counted_with_the_time_of_the_first() -> None:
    """One answer in four fails; the account says so and when it began."""
    before = time.time()
    with _serving(fail_every=4) as server:
        second = _send(server, count=40).close_second()
        assert (second.sent, second.bad) == (server.answers, server.answers // 4)
    assert before <= second.first_bad <= second.at


def test_a_connection_the_server_has_closed_is_not_sent_on() -> None:
    """Nothing fails and nothing is sent twice when kept connections are closed between messages."""
    with _serving(close_after=3) as server:
        second = _send(server, count=30).close_second()
        assert (second.sent, second.bad, second.retried) == (server.answers, 0, 0)


def test_a_dead_server_is_a_failure_not_a_crash() -> None:
    """The generator outlives what it talks to."""
    with _serving() as server:
        port = server.server_port
    account, stop = Account(), threading.Event()
    sender = Sender(f"http://127.0.0.1:{port}", interval=0.001, offset=0, account=account, stop=stop)
    sender.start()
    time.sleep(0.1)
    stop.set()
    sender.join(5)
    second = account.close_second()
    assert second.sent == second.bad > 0


def test_the_generator_writes_a_line_a_second_and_stops_by_itself(tmp_path: Path) -> None:
    """Run as a process for two seconds at 50 messages a second."""
    path = tmp_path / "account.jsonl"
    with _serving() as server:
        command = [sys.executable, "-m", "sage_obs.stack.traffic", "--url", f"http://127.0.0.1:{server.server_port}"]
        subprocess.run([*command, "--rate", "50", "--seconds", "2.5", "--account", str(path)], check=True, timeout=20)
    account = read_account(path)
    assert len(account) in (2, 3)
    assert 60 <= sum(second.sent for second in account) <= 3 * 50 + 8
    with path.open("a") as stream:
        stream.write(json.dumps({"half": 1}))
    assert read_account(path) == account
