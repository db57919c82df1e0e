from __future__ import annotations

import errno
import http.server
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import sage_obs
from sage_obs.doctor import endpoint, libraries, opentelemetry, places, variables
from sage_obs.doctor.examine import CHECKS, examine
from sage_obs.doctor.findings import Finding, World
from sage_obs.integrations import base
from tests.support.distributions import distribution
from tests.support.otlp import dead_backend, receiver, serving

SECRET = "ghp_SEEDseed0123456789"  # noqa: S105 - a seed to look for
Start = Callable[..., sage_obs.Handle]


def _world(folder: Path, *command: str, **environ: str) -> World:
    return World(environ={"SAGE_METRICS_PORT": "0", **environ}, command=command, folder=folder)


def _one(findings: object) -> Finding:
    [finding] = list(findings)  # type: ignore[call-overload]
    assert isinstance(finding, Finding)
    assert finding.remedy
    return finding


def test_a_sound_environment_has_no_findings(tmp_path: Path) -> None:
    """Settings that can be used, a free port and an endpoint that answers are nothing to talk about."""
    with receiver() as traces:
        assert examine(_world(tmp_path, SAGE_TRACING_ENDPOINT=traces.url, SAGE_LLM_PROVIDER="scripted", SAGE_ENV="production")) == ()
        assert traces.paths == ["/v1/traces"]


def test_another_distribution_that_wins_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Selected by a variable, or found first; with our own selected there is nothing to say."""
    finding = _one(opentelemetry.selection(_world(tmp_path, OTEL_PYTHON_DISTRO="distro", OTEL_EXPORTER_OTLP_PROTOCOL="http/protobuf")))
    assert "selects distro" in finding.what
    assert finding.remedy == "Set OTEL_PYTHON_DISTRO=sage_obs."
    assert "is not_there" in _one(opentelemetry.selection(_world(tmp_path, OTEL_PYTHON_CONFIGURATOR="not_there"))).what
    distribution(tmp_path, "their-distro", {"opentelemetry_distro": "theirs = theirs:Distro"})
    monkeypatch.syspath_prepend(str(tmp_path))
    assert "`theirs` is the first" in _one(opentelemetry.selection(_world(tmp_path))).what
    ours = {"OTEL_PYTHON_DISTRO": "sage_obs", "OTEL_PYTHON_CONFIGURATOR": "sage_obs"}
    assert list(opentelemetry.selection(_world(tmp_path, "opentelemetry-instrument", "python", "app.py", **ours))) == []


def test_the_stock_distribution_is_a_finding_where_it_would_start_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It comes with us: found first it loses to ours, and selected it fails unless the exporters are said."""
    distribution(tmp_path, "stock-first", {"opentelemetry_distro": "distro = theirs:Distro"})
    monkeypatch.syspath_prepend(str(tmp_path))
    assert list(opentelemetry.selection(_world(tmp_path, "opentelemetry-instrument", "python", "app.py"))) == []
    selected, exporter = opentelemetry.selection(_world(tmp_path, OTEL_PYTHON_DISTRO="distro"))
    assert (selected.check, exporter.check) == ("distro", "exporter")
    assert "would start nothing" in exporter.what
    said = {"OTEL_PYTHON_DISTRO": "distro", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}
    assert [one.check for one in opentelemetry.selection(_world(tmp_path, **said))] == ["distro"]


@pytest.mark.parametrize("package", ["prometheus-fastapi-instrumentator", "starlette_exporter"])
def test_packages_that_count_requests_again_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    """They measure what is measured already."""
    distribution(tmp_path, package, {})
    monkeypatch.syspath_prepend(str(tmp_path))
    assert "pip uninstall" in _one(opentelemetry.duplicates(_world(tmp_path))).remedy


def test_an_instrumentor_that_makes_our_spans_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server framework's is named with its package; a client's is not, nor one that is switched off or left out by our distribution."""
    lines = "starlette = theirs:Starlette\nhttpx = theirs:Httpx"
    distribution(tmp_path, "opentelemetry-instrumentation-seeded", {"opentelemetry_instrumentor": lines})
    monkeypatch.syspath_prepend(str(tmp_path))
    assert "starlette (opentelemetry-instrumentation-seeded)" in _one(opentelemetry.duplicates(_world(tmp_path))).what
    for environ in ({"OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "redis,starlette"}, {"OTEL_PYTHON_DISTRO": "sage_obs"}):
        assert list(opentelemetry.duplicates(_world(tmp_path, **environ))) == []


def test_an_exporter_that_is_not_installed_is_found(tmp_path: Path) -> None:
    """By its name, and by the protocol that stands for one."""
    assert "zipkin" in _one(opentelemetry.exporters(_world(tmp_path, OTEL_TRACES_EXPORTER="zipkin"))).what
    by_grpc = {"OTEL_METRICS_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}
    assert "http/protobuf" in _one(opentelemetry.exporters(_world(tmp_path, **by_grpc))).remedy
    layer = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://h:4318", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}
    assert "over HTTP" in _one(opentelemetry.protocol(_world(tmp_path, **layer))).what


def test_the_switch_that_leaves_no_spans_is_found(tmp_path: Path) -> None:
    """OTEL_SDK_DISABLED in any case of letters."""
    assert _one(opentelemetry.disabled(_world(tmp_path, OTEL_SDK_DISABLED="True"))).check == "sdk-disabled"


def test_a_library_of_an_unknown_version_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is installed, and outside what its integration knows; what is not installed is fine."""
    distribution(tmp_path, "uvicorn", {}, version="99.0")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert "uvicorn 99.0" in _one(libraries.versions(_world(tmp_path))).what


def test_a_module_of_somebody_elses_is_not_the_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package that is missing is no finding, though there is a module of the same first name."""
    monkeypatch.setattr(base, "load", lambda _: _Missing())
    monkeypatch.setattr(base, "NAMES", ("missing",))
    assert list(libraries.versions(_world(tmp_path))) == []


class _Missing:
    """An integration of a library that is not installed; its module is there."""

    name, distribution, module, versions = "json", "no-such-distribution", "json", ("1", "2")


def test_variables_that_nothing_reads_are_found_without_their_values(tmp_path: Path) -> None:
    """With the nearest name there is; the agent runtime's variables and files of secrets are known."""
    finding = _one(variables.unknown(_world(tmp_path, SAGE_METRICS_PROT=SECRET, SAGE_LLM_API_KEY_FILE="/x", SAGE_OBS_AUTOMATION="off")))
    assert finding.what.startswith("SAGE_METRICS_PROT ")
    assert finding.remedy == "Did you mean SAGE_METRICS_PORT?"
    assert SECRET not in str(finding)


def test_values_that_cannot_be_used_are_found(tmp_path: Path) -> None:
    """Each of them, the agent runtime's too, with what was expected and without the value: an address may hold a password."""
    wrong = {"SAGE_TRACING_SAMPLING_RATE": "2", "SAGE_LLM_PROVIDER": "nobody", "SAGE_LLM_BASE_URL": f"user:{SECRET}@host"}
    findings = list(variables.unusable(_world(tmp_path, SAGE_LLM_API_KEY_FILE=str(tmp_path / "none"), **wrong)))
    said = {finding.what.partition(" ")[0]: finding.what for finding in findings}
    assert set(said) == {*wrong, "SAGE_LLM_API_KEY"}
    assert "from 0 to 1" in said["SAGE_TRACING_SAMPLING_RATE"]
    assert "one of" in said["SAGE_LLM_PROVIDER"]
    assert "No such file" in said["SAGE_LLM_API_KEY"]
    assert SECRET not in str(findings)


@pytest.mark.parametrize(("path", "why"), [("none/log", "does not exist"), (".", "is a folder")])
def test_a_log_file_that_cannot_be_written_is_found(tmp_path: Path, path: str, why: str) -> None:
    """With the reason; nothing is created in finding out."""
    assert why in _one(variables.log_output(_world(tmp_path, SAGE_LOG_OUTPUT=path))).what
    assert list(variables.log_output(_world(tmp_path, SAGE_LOG_OUTPUT="log"))) == []
    assert list(tmp_path.iterdir()) == []


def test_a_multiprocess_folder_that_does_not_serve_is_found(tmp_path: Path) -> None:
    """Missing, no folder, or full of what an earlier run left; the files of a running process are in use."""
    world = _world(tmp_path, PROMETHEUS_MULTIPROC_DIR="multi")
    assert "mkdir -p multi" in _one(places.multiprocess_folder(world)).remedy
    (tmp_path / "multi").mkdir()
    assert list(places.multiprocess_folder(world)) == []
    for name in ("counter", "histogram"):
        (tmp_path / f"multi/{name}_4194305.db").touch()
    assert "2 files of processes that no longer run" in _one(places.multiprocess_folder(world)).what
    (tmp_path / f"multi/counter_{os.getpid()}.db").touch()
    assert list(places.multiprocess_folder(world)) == []


def test_a_multiprocess_folder_without_the_right_to_write_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the system says: root may write anywhere."""
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert "cannot be written to" in _one(places.multiprocess_folder(_world(tmp_path, PROMETHEUS_MULTIPROC_DIR="."))).what


def test_a_taken_metrics_port_is_found_with_who_has_it(tmp_path: Path) -> None:
    """The process is named by its id; a free port is nothing to say."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        listener.settimeout(0.0)
        world = _world(tmp_path, SAGE_METRICS_PORT=str(port), SAGE_METRICS_HOST="127.0.0.1")
        assert f"(pid {os.getpid()})" in _one(places.metrics_port(world)).what
    assert list(places.metrics_port(world)) == []


def test_the_services_own_port_is_no_finding(instrument: Start, tmp_path: Path) -> None:
    """Where the service runs already and answers with its own name, the port is its own; under another name it is not."""
    handle = instrument("shop")
    for name, found in (("shop", 0), ("other", 1)):
        world = _world(tmp_path, SAGE_METRICS_PORT=str(handle.metrics_port), SAGE_METRICS_HOST="127.0.0.1", OTEL_SERVICE_NAME=name)
        assert len(list(places.metrics_port(world))) == found


def test_an_address_that_is_not_here_is_found(tmp_path: Path) -> None:
    """A host of another machine cannot be listened on."""
    finding = _one(places.metrics_port(_world(tmp_path, SAGE_METRICS_PORT="9090", SAGE_METRICS_HOST="192.0.2.1")))
    assert os.strerror(errno.EADDRNOTAVAIL) in finding.what


@pytest.mark.parametrize("kind", ["refused", "blackhole"])
def test_an_endpoint_that_does_not_answer_is_found_in_bounded_time(tmp_path: Path, kind: str) -> None:
    """Refused or silent, it is told within seconds; user, password, path and query of the address are not shown."""
    with dead_backend(kind) as url:
        given = url.replace("http://", f"http://user:{SECRET}@") + f"/{SECRET}?token={SECRET}"
        began = time.monotonic()
        finding = _one(endpoint.reachable(_world(tmp_path, SAGE_TRACING_ENDPOINT=given)))
        assert time.monotonic() - began < 10
    assert url in finding.what
    assert SECRET not in str(finding)
    assert "user" not in str(finding)


@pytest.mark.parametrize(
    ("given", "said"),
    [("http://h:4317", "gRPC"), ("localhost:4318", "http://"), ("http://h:99999", "http://"), (f"https://u:{SECRET}@", "http://")],
    ids=["grpc", "no scheme", "no port", "no host"],
)
def test_an_endpoint_that_cannot_work_is_found_without_asking(tmp_path: Path, given: str, said: str) -> None:
    """The gRPC port, and what is no address, name the variable they come from."""
    finding = _one(endpoint.reachable(_world(tmp_path, OTEL_EXPORTER_OTLP_ENDPOINT=given)))
    assert said in finding.what
    assert "OTEL_EXPORTER_OTLP_ENDPOINT" in finding.what + finding.remedy
    assert SECRET not in str(finding)


def _answering(status: int, *, late: float = 0.0) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.send_response(status)
            self.end_headers()

        def date_time_string(self, timestamp: float | None = None) -> str:
            return super().date_time_string((timestamp or time.time()) - late)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
            """Say nothing."""

    return Handler


def test_a_wrong_path_and_a_wrong_clock_are_found(tmp_path: Path) -> None:
    """A server that has nothing there, and one whose time is not ours; one that wants credentials is there all the same."""
    with serving(_answering(404)) as url:
        assert "answers 404" in _one(endpoint.reachable(_world(tmp_path, SAGE_TRACING_ENDPOINT=url))).what
    with serving(_answering(200, late=3600)) as url:
        finding = _one(endpoint.reachable(_world(tmp_path, SAGE_TRACING_ENDPOINT=url)))
        assert finding.check == "clock"
        assert "behind" in finding.what
    with serving(_answering(401)) as url:
        assert list(endpoint.reachable(_world(tmp_path, SAGE_TRACING_ENDPOINT=url))) == []


def test_a_check_that_fails_keeps_nothing_from_being_found(tmp_path: Path) -> None:
    """Its failure is a finding, and the others are made all the same."""

    def broken(_: World) -> list[Finding]:
        raise RuntimeError(SECRET)

    found = examine(_world(tmp_path, OTEL_SDK_DISABLED="true"), (broken, *CHECKS))
    assert [one.check for one in found] == ["doctor", "sdk-disabled"]
    assert SECRET not in str(found)


def test_the_command_prints_findings_and_ends_with_one(tmp_path: Path) -> None:
    """Lines for people, one object a line for machines, exit code 1; without findings 0."""
    command = [str(Path(sys.executable).parent / "sage-obs"), "doctor"]
    sound = {"PATH": os.environ["PATH"], "SAGE_METRICS_PORT": "0"}
    done = subprocess.run(command, cwd=tmp_path, env=sound, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, "Nothing found.\n"), done.stderr
    seeded = sound | {"SAGE_LOG_LEVEL": "loud", "SAGE_METRICS_PROT": "1"}
    done = subprocess.run([*command, "--json"], cwd=tmp_path, env=seeded, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert [json.loads(line)["check"] for line in done.stdout.splitlines()] == ["variable", "value"]
    assert set(json.loads(done.stdout.splitlines()[0])) == {"check", "what", "remedy"}
    done = subprocess.run(command, cwd=tmp_path, env=seeded, capture_output=True, text=True, timeout=60, check=False)
    assert "Did you mean SAGE_METRICS_PORT?" in done.stdout
