"""A bounded traffic generator: so many messages a second, for so long, and a line of account for every second.

Run as `python -m sage_obs.stack.traffic`. Its account is what the drill believes about customers: it is kept by the client.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import math
import select
import signal
import sys
import threading
import time
import urllib.parse
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

MAX_RATE: Final = 200.0
"""Messages a second this generator will send at most: it is here to keep panels alive, not to load-test."""
_PATH: Final = "/v1/messages"
_QUESTIONS: Final = ("What changed in the last release?", "Summarise the incident.", "Which queue is the longest?", "Draft a reply.")


@dataclass(frozen=True, slots=True)
class Second:
    """What one second of traffic met.

    `at` is the Unix time at its end; `first_bad` that of its first failure, 0 if there was none. `retried` messages were sent again
    over a new connection, because the server had closed the kept one as they were sent.
    """

    at: float
    sent: int
    bad: int
    retried: int
    first_bad: float


class Account:
    """Counts answers from several threads and hands out one `Second` at a time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sent = self._bad = self._retried = 0
        self._first_bad = 0.0

    def retry(self) -> None:
        """Count a message that has to be sent again."""
        with self._lock:
            self._retried += 1

    def add(self, *, good: bool) -> None:
        """Count one answer."""
        with self._lock:
            self._sent += 1
            if not good:
                self._bad += 1
                self._first_bad = self._first_bad or time.time()

    def close_second(self) -> Second:
        """The counts since the last call."""
        with self._lock:
            second = Second(time.time(), self._sent, self._bad, self._retried, self._first_bad)
            self._sent = self._bad = self._retried = 0
            self._first_bad = 0.0
        return second


class Sender(threading.Thread):
    """Sends messages over one kept connection, evenly spaced, until told to stop."""

    def __init__(self, url: str, *, interval: float, offset: float, account: Account, stop: threading.Event) -> None:
        super().__init__(daemon=True)
        parts = urllib.parse.urlsplit(url)
        self._connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=10)
        self._interval = interval
        self._offset = offset
        self._account = account
        self._stop_event = stop

    def run(self) -> None:
        """Send on schedule; a late answer does not cause a burst."""
        with contextlib.closing(self._connection):
            self._keep_sending(time.monotonic() + self._offset)

    def _keep_sending(self, due: float) -> None:
        number = 0
        while not self._stop_event.wait(max(0.0, due - time.monotonic())):
            due = max(due + self._interval, time.monotonic())
            self._account.add(good=self._send(_QUESTIONS[number % len(_QUESTIONS)]))
            number += 1

    def _send(self, text: str) -> bool:
        body = json.dumps({"role": "user", "kind": "message", "parts": [{"kind": "text", "text": text}]})
        self._drop_closed()
        for fresh in (False, True):
            try:
                self._connection.request("POST", _PATH, body, {"content-type": "application/json"})
                response = self._connection.getresponse()
                response.read()
            except (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError):
                self._connection.close()
                if fresh:
                    return False
                self._account.retry()
            except (OSError, http.client.HTTPException):
                self._connection.close()
                return False
            else:
                return response.status < http.client.BAD_REQUEST
        return False

    def _drop_closed(self) -> None:
        """Let go of a kept connection that the server has closed meanwhile, as every pooling client does before it sends."""
        if self._connection.sock is not None and select.select([self._connection.sock], [], [], 0)[0]:
            self._connection.close()


def seconds(account: Account, stop: threading.Event, *, total: float) -> Iterator[Second]:
    """One account a second until `total` seconds have passed or `stop` is set."""
    deadline = time.monotonic() + total
    while time.monotonic() < deadline and not stop.wait(1.0):
        yield account.close_second()


def read_account(path: Path) -> list[Second]:
    """The lines a generator has written so far; a half-written last one is left out."""
    lines = path.read_text().split("\n")[:-1] if path.exists() else []
    return [Second(**json.loads(line)) for line in lines]


def main() -> None:
    """Send traffic until the time is over or SIGTERM comes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", required=True)
    parser.add_argument("--rate", type=float, default=40.0, help="messages a second")
    parser.add_argument("--seconds", type=float, default=3600.0, help="how long to send")
    parser.add_argument("--account", type=Path, required=True, help="where to write a line a second")
    options = parser.parse_args()
    rate, workers = min(max(options.rate, 0.1), MAX_RATE) if math.isfinite(options.rate) else 1.0, 8
    stop, account = threading.Event(), Account()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    for number in range(workers):
        Sender(options.url, interval=workers / rate, offset=number / rate, account=account, stop=stop).start()
    with contextlib.suppress(KeyboardInterrupt), options.account.open("a", buffering=1) as output:
        for second in seconds(account, stop, total=options.seconds):
            output.write(json.dumps(asdict(second)) + "\n")
    sys.exit(0)


if __name__ == "__main__":
    main()
