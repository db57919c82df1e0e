"""Incidents of the tests: scenarios as scripts, and scripts as the past of a real Prometheus."""

from __future__ import annotations

import contextlib
import re
import subprocess
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

from sage_obs.alerts.scenarios import Scenario
from sage_obs.alerts.simulation.model import Incident
from sage_obs.alerts.timeline import Instance, Phase
from sage_obs.slo.windows import Windows, duration
from sage_obs.stack.binaries import find

_PIECE: Final = re.compile(r"(?P<first>-?[\d.e+-]+?)\+(?P<rise>[\d.e+-]+)x(?P<times>\d+)")


def as_script(scenarios: Iterable[Scenario], windows: Windows, *, ends: int) -> dict[str, Any]:
    """Scenarios side by side as a user would write them; `ends` in ticks."""
    jobs = {scenario.name: [_instance(one, windows) for one in scenario.instances] for scenario in scenarios}
    return {"scrape": duration(windows.scrape), "ends": duration(ends * windows.scrape), "jobs": jobs}


def _instance(instance: Instance, windows: Windows) -> dict[str, Any]:
    phases = [_phase(phase, windows) for phase in instance.phases if phase.ticks]
    return {"instance": instance.name, "begins": duration(instance.begins * windows.scrape), "phases": phases}


def _phase(phase: Phase, windows: Windows) -> dict[str, Any]:
    said: dict[str, Any] = {"for": duration(phase.ticks * windows.scrape), "version": phase.version, "up": phase.up, "fresh": phase.fresh}
    said["probe"] = {None: "none", 1.0: "passing", 0.0: "failing"}[phase.probe]
    if phase.traffic is None:
        return {**said, "requests": "none"}
    traffic = phase.traffic
    numbers = {"failed": traffic.failed, "frustrated": traffic.frustrated, "p95": traffic.p95}
    return {**said, "requests": traffic.requests / windows.scrape, **numbers}


def backfill(incident: Incident, folder: Path, *, start: float) -> None:
    """Blocks in `folder`/data of an incident that began at `start` (Unix seconds)."""
    lines: dict[str, list[str]] = {}
    for series in incident.series:
        name = series.name.replace('", ', '",')  # this format has no blanks there
        samples = (f"{name} {value} {start + tick * incident.step:.3f}" for tick, value in _samples(series.values))
        lines.setdefault(name.partition("{")[0], []).extend(samples)
    text = "".join(f"# TYPE {name} unknown\n" + "\n".join(some) + "\n" for name, some in sorted(lines.items()))
    (folder / "past.om").write_text(text + "# EOF\n")
    command = [str(find("promtool")), "tsdb", "create-blocks-from", "openmetrics", str(folder / "past.om"), str(folder / "data")]
    subprocess.run(command, check=True, capture_output=True)


def _samples(values: str) -> Iterator[tuple[int, str]]:
    """The notation of promtool, as far as scripts come to it, written out: tick and value."""
    tick = 0
    for piece in values.split():
        if piece == "stale":
            tick += 1
        elif piece.startswith("_"):
            tick += int(piece[2:] or 1)
        else:
            found = _PIECE.fullmatch(piece)
            assert found, piece
            value = float(found["first"])
            for _ in range(int(found["times"]) + 1):
                yield tick, repr(value)
                value += float(found["rise"])
                tick += 1


@contextmanager
def answering(answers: Mapping[str, bytes]) -> Iterator[str]:
    """A server on loopback, and its address, that answers what is posted to each of these paths so."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            body = answers[self.path]
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            with contextlib.suppress(ConnectionError):  # who has heard enough hangs up
                self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
            """Tests need no access log."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
