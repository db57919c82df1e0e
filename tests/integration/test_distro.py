"""The real `opentelemetry-instrument` on a small application, with our distribution and with the stock one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.distributions import distribution
from tests.support.otlp import attributes, dead_backend, receiver

BIN = Path(sys.executable).parent
OURS = {"OTEL_PYTHON_DISTRO": "sage_obs", "OTEL_PYTHON_CONFIGURATOR": "sage_obs"}
STOCK = {"OTEL_PYTHON_DISTRO": "distro", "OTEL_PYTHON_CONFIGURATOR": "configurator"}
MIXED = {"OTEL_PYTHON_DISTRO": "distro", "OTEL_PYTHON_CONFIGURATOR": "sage_obs"}
ONLY_SPANS = {"OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf", "OTEL_METRICS_EXPORTER": "none", "OTEL_LOGS_EXPORTER": "none"}
ENVIRON = {
    "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
    "SAGE_METRICS_HOST": "127.0.0.1",
    "SAGE_METRICS_PORT": "0",
    "SAGE_LOG_OUTPUT": "stderr",
    "OTEL_SERVICE_NAME": "shop",
    "SAGE_TRACING_SAMPLING_RATE": "1",
}
APP = """\
import json, sys, threading
from opentelemetry import trace
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient
import sage_obs
from sage_obs.lifecycle import running

def hello(request):
    with trace.get_tracer("theirs").start_as_current_span("inner"):
        return PlainTextResponse("hello")

client = TestClient(Starlette(routes=[Route("/hello", hello)]))
client.get("/hello")
sage_obs.flush()
provider = trace.get_tracer_provider()
if hasattr(provider, "force_flush"):
    provider.force_flush(5000)
import urllib.request
port = running().metrics_port
metrics = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics").read().decode()
print(json.dumps({
    "counted": 'operation="GET /hello",outcome="success",protocol="http"} 1.0' in metrics,
    "status": {name: str(one) for name, one in running().status().items()},
    "provider": type(provider).__module__,
    "workers": sorted(t.name for t in threading.enumerate() if "Batch" in t.name or "Exporting" in t.name),
    "marks": sys.modules["marks"].SEEN if "marks" in sys.modules else [],
}))
"""


def _run(folder: Path, *, source: str = APP, **environ: str) -> tuple[dict[str, Any], str]:
    """What the program says, and what was logged."""
    (folder / "app.py").write_text(source)
    done = subprocess.run(
        [BIN / "opentelemetry-instrument", "python", "app.py"],
        cwd=folder,
        env=ENVIRON | environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), done.stderr


@pytest.mark.parametrize(
    "selected",
    [OURS, STOCK | ONLY_SPANS | {"OTEL_TRACES_EXPORTER": "otlp"}, MIXED, OURS | {"OTEL_TRACES_EXPORTER": "otlp"}],
    ids=["ours", "stock", "mixed", "named"],
)
def test_the_command_starts_the_layer_whichever_distribution_wins(tmp_path: Path, selected: dict[str, str]) -> None:
    """Requests are counted, and each span arrives once: the request's, and the application's own under it."""
    with receiver() as traces:
        said, log = _run(tmp_path, OTEL_EXPORTER_OTLP_ENDPOINT=traces.url, **selected)
        assert said["counted"], log
        names = sorted(span.name for span in traces.wait(2))
    assert names == ["GET /hello", "inner"]
    assert traces.resource["service.name"] == "shop"
    by_name = {span.name: span for span in traces.spans}
    assert by_name["inner"].parent_span_id == by_name["GET /hello"].span_id
    assert attributes(by_name["GET /hello"])["http.response.status_code"] == 200


STOCK_FIRST = {
    "opentelemetry_distro": "distro = opentelemetry.distro:OpenTelemetryDistro",
    "opentelemetry_configurator": "configurator = opentelemetry.distro:OpenTelemetryConfigurator",
}


def test_the_command_takes_ours_where_nothing_is_selected(tmp_path: Path) -> None:
    """The stock distribution is found first, and would fail for want of an exporter; ours starts, without a warning of the loader's."""
    distribution(tmp_path, "stock-first", STOCK_FIRST)
    said, log = _run(tmp_path, PYTHONPATH=str(tmp_path))
    assert said["counted"]
    assert "Failed to auto initialize" not in log


def test_both_doors_at_once_are_one(tmp_path: Path) -> None:
    """`sage-obs run` with OpenTelemetry's command inside starts one layer, and each span arrives once."""
    (tmp_path / "app.py").write_text(APP)
    command = [str(BIN / "sage-obs"), "run", "--", "opentelemetry-instrument", "python", "app.py"]
    with receiver() as traces:
        environ = ENVIRON | OURS | {"OTEL_EXPORTER_OTLP_ENDPOINT": traces.url}
        done = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=60, check=False)
        assert json.loads(done.stdout)["counted"], done.stderr
        assert sorted(span.name for span in traces.wait(2)) == ["GET /hello", "inner"]


def test_a_program_of_its_own_mind_has_the_last_word(tmp_path: Path) -> None:
    """A call of `instrument()` in the program starts the layer anew with what it says."""
    own = 'import sage_obs\nsage_obs.instrument("own", metrics_port=0)\n'
    with receiver() as traces:
        said, _ = _run(tmp_path, source=own + APP, OTEL_EXPORTER_OTLP_ENDPOINT=traces.url, **OURS)
        assert said["counted"]
        assert len(traces.wait(2)) == 2


def test_a_dead_backend_does_not_hold_the_process(tmp_path: Path) -> None:
    """With our distribution the program ends in seconds beside a backend that takes and never answers."""
    source = APP + "import time\nprint(time.time(), file=sys.stderr)\n"
    with dead_backend("blackhole") as url:
        _, log = _run(tmp_path, source=source, OTEL_EXPORTER_OTLP_ENDPOINT=url, **OURS)
        ended = time.time()
    assert ended - float(log.splitlines()[-1]) < 5


def test_without_an_endpoint_nothing_is_exported_and_nothing_fails(tmp_path: Path) -> None:
    """Our default is no exporter at all: no thread that exports to a backend nobody has named."""
    said, log = _run(tmp_path, **OURS)
    assert said["counted"]
    assert said["workers"] == []
    assert "Traceback" not in log
    assert said["status"]["traces"].startswith("on: context only")


@pytest.mark.parametrize("selected", [OURS, MIXED | {"OTEL_TRACES_EXPORTER": "nothing_like_it"}], ids=["ours", "mixed"])
def test_an_exporter_that_is_not_installed_is_left_out(tmp_path: Path, selected: dict[str, str]) -> None:
    """The application runs with telemetry, and a line of the log says what was asked for."""
    environ = {"OTEL_TRACES_EXPORTER": "zipkin_that_is_not_there", "OTEL_METRICS_EXPORTER": "console"} | selected
    said, log = _run(tmp_path, **environ)
    assert said["counted"]
    assert "which is not installed" in log
    assert "Failed to auto initialize" not in log


def test_the_sdk_is_made_where_it_is_asked_for(tmp_path: Path) -> None:
    """Metrics by the SDK's own exporter run beside the layer."""
    said, _ = _run(tmp_path, OTEL_METRICS_EXPORTER="otlp", OTEL_METRIC_EXPORT_INTERVAL="600000", **OURS)
    assert said["counted"]
    assert [name for name in said["workers"] if "Metric" in name]


def test_opentelemetrys_switches_count(tmp_path: Path) -> None:
    """Disabled: no spans. Spans to nowhere: none either. Disabled instrumentations are off."""
    with receiver() as traces:
        said, _ = _run(tmp_path, OTEL_EXPORTER_OTLP_ENDPOINT=traces.url, OTEL_SDK_DISABLED="true", **OURS)
        assert said["status"]["traces"] == "on: context only: OTEL_SDK_DISABLED is set"
        assert said["counted"]
        said, _ = _run(
            tmp_path,
            OTEL_EXPORTER_OTLP_ENDPOINT=traces.url,
            OTEL_TRACES_EXPORTER="none",
            OTEL_PYTHON_DISABLED_INSTRUMENTATIONS="httpx",
            **OURS,
        )
        assert said["status"]["traces"] == "on: context only: OTEL_TRACES_EXPORTER is none"
        assert said["status"]["httpx"] == "off: in `disable`"
        assert traces.spans == []


INSTRUMENTORS = """\
import sys, types
marks = sys.modules.setdefault("marks", types.ModuleType("marks"))
marks.SEEN = getattr(marks, "SEEN", [])

class _Instrumentor:
    is_instrumented_by_opentelemetry = False

    def instrument(self, **kwargs):
        type(self).is_instrumented_by_opentelemetry = True
        marks.SEEN.append(type(self).__name__)

    def uninstrument(self):
        marks.SEEN.append(f"no {type(self).__name__}")

class Fine(_Instrumentor):
    pass

class Starlette(_Instrumentor):
    pass

class Broken(_Instrumentor):
    def instrument(self, **kwargs):
        raise ValueError("seeded")
"""


def test_one_instrumentors_failure_is_its_own(tmp_path: Path) -> None:
    """The others instrument, the failure is a line of the log, and one that would make our spans again is left out."""
    lines = "a_broken = made_up:Broken\nb_fine = made_up:Fine\nstarlette = made_up:Starlette"
    distribution(tmp_path, "made-up", {"opentelemetry_instrumentor": lines}, source=INSTRUMENTORS)
    said, log = _run(tmp_path, PYTHONPATH=str(tmp_path), **OURS)
    assert said["counted"]
    assert said["marks"] == ["Fine"]
    assert "instrumentor a_broken failed: ValueError" in log


def test_with_the_stock_distribution_our_spans_are_not_made_again(tmp_path: Path) -> None:
    """An instrumentor that it has let through is switched off after all have had their turn; the others stay."""
    lines = "fine = made_up:Fine\nstarlette = made_up:Starlette"
    distribution(tmp_path, "made-up", {"opentelemetry_instrumentor": lines}, source=INSTRUMENTORS)
    said, _ = _run(tmp_path, PYTHONPATH=str(tmp_path), OTEL_TRACES_EXPORTER="none", **STOCK, **ONLY_SPANS)
    assert said["counted"]
    assert sorted(said["marks"]) == ["Fine", "Starlette", "no Starlette"]


def test_initialising_twice_changes_nothing(tmp_path: Path) -> None:
    """A second `initialize()` in the program leaves the provider, the layer and the number of spans as they are."""
    again = "from opentelemetry.instrumentation.auto_instrumentation import initialize\ninitialize(swallow_exceptions=False)\n"
    with receiver() as traces:
        said, log = _run(tmp_path, source=again + APP, OTEL_EXPORTER_OTLP_ENDPOINT=traces.url, **OURS)
        assert said["counted"]
        assert len(traces.wait(2)) == 2
    assert "Overriding" not in log


def test_the_command_shows_its_help() -> None:
    """Our list of variables makes no option twice, which would end the command."""
    done = subprocess.run([BIN / "opentelemetry-instrument", "--help"], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "--traces_exporter" in done.stdout
