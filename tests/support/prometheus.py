"""A real Prometheus on loopback, and targets whose /metrics the test writes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx

from sage_obs.conventions import AGENT_METRICS, HEALTH_STATUS, JOB, OVERALL, RELEASE_TIMESTAMP, Metric, Outcome, Probe
from sage_obs.processes import spawn, stop
from sage_obs.slo.names import PROCESS_METRICS
from sage_obs.slo.windows import Windows, duration
from sage_obs.stack.binaries import find
from sage_obs.stack.ports import Ports


@dataclass(slots=True)
class Target:
    """A service that runs a release. Each scrape finds `requests` more requests, of which `failed` (0 to 1) failed."""

    version: str
    failed: float = 0.0
    requests: int = 100
    started: float = field(default_factory=time.time)
    scrapes: int = 0

    def exposition(self) -> str:
        """Every metric of an agent, as text."""
        self.scrapes += 1
        return "\n".join(line for metric in (*AGENT_METRICS, *PROCESS_METRICS) for line in self._lines(metric)) + "\n"

    def _lines(self, metric: Metric) -> Iterator[str]:
        yield f"# TYPE {metric.name} {metric.kind}"
        labels = dict.fromkeys(metric.labels, "x") | ({"version": self.version} if "version" in metric.labels else {})
        events = self.requests * self.scrapes
        if metric.kind == "histogram":
            for bound in (*(f"{bound:g}" for bound in metric.buckets), "+Inf"):
                yield _sample(f"{metric.name}_bucket", {**labels, "le": bound}, events)
            yield _sample(f"{metric.name}_sum", labels, events * metric.buckets[0] / 2)
            yield _sample(f"{metric.name}_count", labels, events)
        elif metric is HEALTH_STATUS:
            for probe in Probe:
                yield _sample(metric.name, {**labels, "probe": probe.value, "check": OVERALL}, 1)
        elif metric is RELEASE_TIMESTAMP:
            yield _sample(metric.name, labels, self.started)
        elif "outcome" in labels:
            yield _sample(metric.name, {**labels, "outcome": Outcome.SUCCESS.value}, events * (1 - self.failed))
            yield _sample(metric.name, {**labels, "outcome": Outcome.SERVER_ERROR.value}, events * self.failed)
        else:
            yield _sample(metric.name, labels, events if metric.kind == "counter" else 1)


def _sample(name: str, labels: dict[str, str], value: float) -> str:
    pairs = ",".join(f'{key}="{text}"' for key, text in labels.items())
    return f"{name}{{{pairs}}} {value!r}"


@contextmanager
def serving(target: Target) -> Iterator[str]:
    """Serve a target on any free port; yields its address, `host:port`."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = target.exposition().encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
            """Tests need no access log."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@dataclass(frozen=True, slots=True)
class Prometheus:
    """A running Prometheus that finds its targets in a file."""

    url: str
    targets: Path
    client: httpx.Client

    def scrape(self, *addresses: str) -> None:
        """Make these the targets, from the next reading of the file on."""
        hosts = ", ".join(f'"{address}"' for address in addresses)
        self.targets.write_text(f'[{{"targets": [{hosts}], "labels": {{"job": "{JOB}"}}}}]')

    def query(self, expr: str) -> list[dict[str, Any]]:
        """The instant vector, or one nameless sample for a scalar."""
        answer = self.client.post(f"{self.url}/api/v1/query", data={"query": expr}).json()
        assert answer["status"] == "success", f"{expr}: {answer}"
        result = answer["data"]["result"]
        return list(result) if answer["data"]["resultType"] == "vector" else [{"metric": {}, "value": result}]

    def wait(self, until: Callable[[], object], *, seconds: float, what: str) -> None:
        """Ask again until it is true."""
        deadline = time.monotonic() + seconds
        while not until():
            assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
            time.sleep(0.2)


@contextmanager
def running_prometheus(folder: Path, windows: Windows, *, rules: str) -> Iterator[Prometheus]:
    """Prometheus with these rules and windows, and the blocks that may be in its folder `data`; it ends with the context."""
    targets, port = folder / "targets.json", Ports("any").take("prometheus", 0)
    (folder / "rules.yml").write_text(rules)
    targets.write_text("[]")
    (folder / "prometheus.yml").write_text(
        f"global: {{scrape_interval: {duration(windows.scrape)}, evaluation_interval: {duration(windows.evaluation)}}}\n"
        f"rule_files: [rules.yml]\n"
        f"scrape_configs: [{{job_name: targets, file_sd_configs: [{{files: [{targets}], refresh_interval: 1s}}]}}]\n"
    )
    command = (
        str(find("prometheus")),
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        "--enable-feature=exemplar-storage",
        f"--web.listen-address=127.0.0.1:{port}",
    )
    process = spawn("prometheus", command, log=folder / "prometheus.log")
    try:
        with httpx.Client() as client:
            prometheus = Prometheus(f"http://127.0.0.1:{port}", targets, client)
            prometheus.wait(lambda: _ready(client, prometheus.url), seconds=30, what=process.tail())
            yield prometheus
    finally:
        stop([process], grace=5)


def _ready(client: httpx.Client, url: str) -> bool:
    try:
        return client.get(f"{url}/-/ready").status_code == httpx.codes.OK
    except httpx.TransportError:
        return False
