"""A real Chromium without a window, driven by the DevTools protocol; installed from Debian's package where it is not there."""

from __future__ import annotations

import base64
import itertools
import json
import os
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection, connect

from sage_obs.processes import spawn, stop
from tests.support.npm import need
from tests.support.services import wait_until


@dataclass(slots=True)
class Page:
    """A tab. `problems` holds what its console said of errors, and exceptions nobody caught; `loaded` every address it asked for."""

    socket: ClientConnection
    problems: list[str] = field(default_factory=list)
    loaded: list[str] = field(default_factory=list)
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """A command of the protocol and its result."""
        number = next(self._numbers)
        self.socket.send(json.dumps({"id": number, "method": method, "params": params}))
        while True:
            message = json.loads(self.socket.recv(timeout=60))
            if message.get("id") == number:
                assert "error" not in message, message
                result: dict[str, Any] = message["result"]
                return result
            self._note(message)

    def _note(self, message: dict[str, Any]) -> None:
        params = message.get("params", {})
        match message.get("method"):
            case "Runtime.exceptionThrown":
                self.problems.append(str(params["exceptionDetails"].get("exception", {}).get("description")))
            case "Log.entryAdded" if params["entry"]["level"] == "error":
                self.problems.append(params["entry"]["text"])
            case "Network.requestWillBeSent":
                self.loaded.append(params["request"]["url"])

    def evaluate(self, expression: str) -> Any:
        """The value of an expression of JavaScript, awaited."""
        result = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def open(self, url: str) -> None:
        """Go to a page and wait until it says that it is drawn."""
        self.call("Page.navigate", url=url)
        self.wait(f"location.href.startsWith({json.dumps(url.split('?', maxsplit=1)[0])}) && document.body && document.body.dataset.ready")

    def wait(self, expression: str, *, seconds: float = 40) -> None:
        """Wait until an expression is true."""
        wait_until(lambda: self.evaluate(f"Boolean({expression})"), seconds=seconds, says=lambda: f"{expression}: {self.text()[:500]}")

    def text(self) -> str:
        """What a reader sees."""
        return str(self.evaluate("document.body.innerText"))

    def screenshot(self, path: Path, *, width: int, height: int) -> None:
        """Write a picture of the page."""
        data = self.call("Page.captureScreenshot", format="png", clip={"x": 0, "y": 0, "width": width, "height": height, "scale": 1})[
            "data"
        ]
        path.write_bytes(base64.b64decode(data))


@contextmanager
def browsing(*, width: int = 1400, height: int = 1000) -> Iterator[Page]:
    """A tab of a browser of its own."""
    program = need("chromium")
    with tempfile.TemporaryDirectory(prefix="sage-obs-chromium-", ignore_cleanup_errors=True) as folder:
        flags = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--disable-background-networking",
        ]
        command = [
            program,
            *flags,
            f"--user-data-dir={folder}",
            "--remote-debugging-port=0",
            f"--window-size={width},{height}",
            "about:blank",
        ]
        process = spawn("chromium", command, log=Path(folder) / "log", environment={"HOME": folder, "PATH": os.environ["PATH"]})
        try:
            with connect(_tab(Path(folder)), max_size=64 * 2**20) as socket:
                page = Page(socket)
                for domain in ("Page", "Runtime", "Log", "Network"):
                    page.call(f"{domain}.enable")
                page.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
                yield page
        finally:
            stop([process], grace=5)


def _tab(folder: Path) -> str:
    """The address of the first tab's socket, once the browser says its port."""
    port = folder / "DevToolsActivePort"
    wait_until(lambda: port.exists() and port.read_text().count("\n"), says=lambda: (folder / "log").read_text()[-500:])
    listing = f"http://127.0.0.1:{port.read_text().splitlines()[0]}/json"

    def tabs() -> list[str]:
        with urllib.request.urlopen(listing, timeout=5) as answer:
            return [one["webSocketDebuggerUrl"] for one in json.load(answer) if one["type"] == "page"]

    return wait_until(tabs)[0]
