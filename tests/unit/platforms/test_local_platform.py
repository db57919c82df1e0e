"""The local platform: driver and supervisor together, with real child processes and a socket of their own."""

from __future__ import annotations

import dataclasses
import errno
import http.client
import json
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sage_obs.errors import PlatformError, UnavailableError
from sage_obs.platforms.local import releases
from sage_obs.platforms.local.driver import LocalPlatform
from sage_obs.platforms.local.records import read_desired, write_desired
from sage_obs.platforms.local.supervisor import Gate, Host, LocalSupervisor, current
from tests.support.ports import free_port

SERVICE = """\
import http.server, os, signal, socket, sys, threading
status = int(sys.argv[1])
if status == 0:
    sys.exit("no reason given")
stubborn = status == 299
status = 200 if stubborn else status
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = os.environ["SAGE_SERVICE_VERSION"].encode()
        self.send_response(status if self.server is ops else 200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *args):
        pass
ops = http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["SAGE_METRICS_PORT"])), Handler)
threading.Thread(target=ops.serve_forever, daemon=True).start()
main = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler, bind_and_activate=False)
main.socket = socket.socket(fileno=3)
signal.signal(signal.SIGTERM, signal.SIG_IGN if stubborn else lambda *_: os._exit(0))
main.serve_forever()
"""


class World:
    """A platform folder, its supervisor and its driver."""

    def __init__(self, root: Path, listener: socket.socket, *, gate: Gate | None = None) -> None:
        self.root = root
        self.listener = listener
        self.said: list[str] = []
        host = Host(listener, free_port, root / "logs")
        self.supervisor = LocalSupervisor(root, service="svc", host=host, gate=gate or Gate(ready=5.0, drain=5.0), events=self.said.append)
        self.platform = LocalPlatform(root, service="svc")
        script = root / "service.py"
        script.write_text(SERVICE)
        for version, status in (("good", 200), ("better", 200), ("unready", 503), ("broken", 0), ("stubborn", 299)):
            command = ["python", str(script), str(status)]
            releases.create(root, version, command=command, files={"config.yaml": f"version: {version}"})
        self.supervisor.announce()

    def deploy(self, version: str) -> None:
        """Ask for a release and let the supervisor settle the request."""
        self.platform.deploy(self.platform.release(version), by="test")
        self.until(lambda: not self.platform.describe().in_progress)

    def until(self, done: Callable[[], bool]) -> None:
        """Step until `done`, for ten seconds at most."""
        deadline = time.monotonic() + 10
        while not done():
            assert time.monotonic() < deadline, self.said
            self.supervisor.step()
            time.sleep(0.01)

    def served_by(self) -> str:
        """Ask the service on its shared socket which version it is."""
        host, port = self.listener.getsockname()
        connection = http.client.HTTPConnection(host, port, timeout=5)
        connection.request("GET", "/")
        return connection.getresponse().read().decode()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A platform without a release; everything it starts is stopped."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        world = World(tmp_path, listener)
        yield world
        world.supervisor.stop()


def test_a_release_is_started_gated_and_serves(world: World) -> None:
    """Deploying ends with the release running, ready, linked as current and answering on the service's socket."""
    world.deploy("good")
    state = world.platform.describe()
    assert state.converged
    assert [one.version for one in state.instances] == ["good"]
    assert current(world.root) == "good"
    assert world.served_by() == "good"
    assert '"targets": ["127.0.0.1:' in world.supervisor.targets.read_text()


def test_a_switch_replaces_the_old_release(world: World) -> None:
    """After a switch the new release serves and the old process is gone."""
    world.deploy("good")
    old = world.platform.describe().instances[0].pid
    world.deploy("better")
    world.until(lambda: len(world.supervisor.processes) == 1)
    assert world.served_by() == "better"
    with pytest.raises(ProcessLookupError):
        os.kill(old, 0)


def test_rolling_back_to_what_already_runs_starts_nothing(world: World) -> None:
    """Asking twice for the same state is harmless: the same process goes on."""
    world.deploy("good")
    before = world.platform.describe().instances
    world.platform.roll_back(world.platform.release("good"), by="test")
    world.until(lambda: world.platform.describe().converged)
    assert [one.pid for one in world.platform.describe().instances] == [one.pid for one in before]


def test_a_release_that_never_gets_ready_is_rejected_and_the_old_one_stays(tmp_path: Path) -> None:
    """The gate: an unready release does not become current, the state says why, and the next request starts without that blemish."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        world = World(tmp_path, listener, gate=Gate(ready=1.5, drain=5, drain_bad=1))
        try:
            world.deploy("good")
            world.deploy("unready")
            state = world.platform.describe()
            assert not state.converged
            assert "unready was rejected: it was not ready within 1.5 s; good keeps serving" in state.detail
            assert current(tmp_path) == "good"
            world.platform.deploy(world.platform.release("better"), by="test")
            world.supervisor.step()
            assert world.platform.describe().detail == "better is being started"
        finally:
            world.supervisor.stop()


def test_a_release_that_dies_at_once_is_rejected_with_its_exit_code(world: World) -> None:
    """A crash at start does not take the service down and is named."""
    world.deploy("good")
    world.deploy("broken")
    detail = world.platform.describe().detail
    assert "broken was rejected: it exited with code 1; good keeps serving. Its last words: no reason given" in detail
    assert world.served_by() == "good"


def test_a_corrupt_release_is_refused_before_anything_changes(world: World) -> None:
    """The driver verifies a folder before it asks for it."""
    world.deploy("good")
    (world.root / "releases/better/config.yaml").write_text("tampered")
    with pytest.raises(PlatformError, match="corrupt"):
        world.platform.release("better")
    assert "better" not in [release.version for release in world.platform.releases()]
    assert world.platform.describe().converged


def test_a_release_corrupted_after_it_was_asked_for_is_rejected(world: World) -> None:
    """The supervisor verifies it again before it starts anything from it."""
    world.deploy("good")
    world.platform.deploy(world.platform.release("better"), by="test")
    (world.root / "releases/better/config.yaml").write_text("tampered")
    world.until(lambda: not world.platform.describe().in_progress)
    assert "better cannot be started" in world.platform.describe().detail
    assert world.served_by() == "good"


def test_the_death_of_the_serving_process_is_reported(world: World) -> None:
    """A service killed behind the supervisor's back is an error that names its process."""
    world.deploy("good")
    pid = world.platform.describe().instances[0].pid
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(UnavailableError, match=rf"pid {pid}\) was ended by SIGKILL"):
        world.until(lambda: False)
    assert not world.platform.describe().converged


def test_nothing_is_asked_of_a_supervisor_that_is_gone(world: World) -> None:
    """Without a heartbeat the driver changes nothing and says what to start."""
    world.deploy("good")
    later = LocalPlatform(world.root, service="svc", clock=lambda: time.time() + 60)
    with pytest.raises(PlatformError, match="not running, so nothing was changed"):
        later.deploy(later.release("better"), by="test")
    assert "supervisor is not running" in later.describe().detail
    assert "better" not in (world.root / "history.jsonl").read_text()


def test_nothing_is_asked_of_a_supervisor_that_has_ended(world: World) -> None:
    """A clean stop is known at once, not when the heartbeat has grown old."""
    world.deploy("good")
    world.supervisor.stop()
    with pytest.raises(PlatformError, match="not running, so nothing was changed"):
        world.platform.deploy(world.platform.release("better"), by="test")


def test_a_release_that_does_not_go_keeps_the_platform_from_converging(tmp_path: Path) -> None:
    """While the bad process may still answer the platform has not converged, Prometheus still scrapes it, and its time is short."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        world = World(tmp_path, listener, gate=Gate(ready=5, drain=60, drain_bad=0.4))
        try:
            world.deploy("stubborn")
            bad = world.platform.describe().instances[0].pid
            world.platform.roll_back(world.platform.release("good"), by="test")
            world.until(lambda: world.supervisor.serving == "good")
            state = world.platform.describe()
            assert (state.converged, state.in_progress, state.detail) == (False, True, "stubborn is still draining")
            assert {(one.version, one.draining) for one in state.instances} == {("good", False), ("stubborn", True)}
            assert world.supervisor.targets.read_text().count("127.0.0.1") == 2
            world.until(lambda: world.platform.describe().converged)
            with pytest.raises(ProcessLookupError):
                os.kill(bad, 0)
        finally:
            world.supervisor.stop()


def test_two_requests_at_once_end_with_the_later_one(world: World) -> None:
    """A rollback that races a deployment is never lost: whatever stands in the record is followed."""
    world.deploy("good")
    before = read_desired(world.root)
    world.platform.deploy(world.platform.release("better"), by="test")
    world.supervisor.step()
    assert before is not None
    write_desired(world.root, dataclasses.replace(before, request="another"))
    world.until(lambda: world.platform.describe().converged)
    assert world.served_by() == "good"


def test_a_full_disk_does_not_end_what_serves(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The supervisor says once that it cannot write, and goes on; readers see its heartbeat grow old."""
    world.deploy("good")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("sage_obs.platforms.local.supervisor.write_status", full)
    for _ in range(3):
        world.supervisor.announce()
    assert world.served_by() == "good"
    assert sum("No space left on device" in said for said in world.said) == 1


@pytest.mark.parametrize("text", ["{", "[]", '{"version": "good"}', '{"request": 7}'])
def test_an_unreadable_request_changes_nothing(world: World, text: str) -> None:
    """What serves goes on serving, and a request that can be read is followed again."""
    world.deploy("good")
    desired = (world.root / "desired.json").read_text()
    (world.root / "desired.json").write_text(text)
    world.supervisor.step()
    assert world.served_by() == "good"
    assert any("cannot be read" in said for said in world.said)
    (world.root / "desired.json").write_text(desired)
    world.deploy("better")
    assert world.served_by() == "better"


def test_a_status_of_the_wrong_shape_is_an_error_not_a_crash(world: World) -> None:
    """Records are held against their declared types when they are read."""
    world.deploy("good")
    status = json.loads((world.root / "status.json").read_text())
    (world.root / "status.json").write_text(json.dumps({**status, "heartbeat": "x"}))
    with pytest.raises(PlatformError, match=r"status\.json cannot be read"):
        world.platform.describe()


def test_a_history_with_a_bad_line_does_not_stand_in_the_way(world: World) -> None:
    """It holds dates only; a rollback must not fail over one."""
    world.deploy("good")
    with (world.root / "history.jsonl").open("a") as history:
        history.write("rubbish\n")
    assert world.platform.release("good").deployed_at is not None
    world.deploy("better")
    assert [release.version for release in world.platform.releases()[:2]] == ["better", "good"]


def test_releases_are_listed_by_their_last_deployment(world: World) -> None:
    """The most recently deployed comes first, those never deployed last."""
    for version in ("good", "better", "good"):
        world.deploy(version)
    listed = world.platform.releases()
    assert [release.version for release in listed[:2]] == ["good", "better"]
    assert {release.deployed_at for release in listed[2:]} == {None}


def test_an_instance_says_where_its_profiles_are(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the port it was given, or by the one its release or the environment names; under TLS, or where nobody named one, nowhere."""
    host = world.supervisor._host

    def served(port: Callable[[], int] | None, version: str) -> str:
        world.supervisor._host = dataclasses.replace(host, profiles_port=port)
        world.deploy(version)
        return next(one.profiles_url for one in world.platform.describe().instances if not one.draining)

    monkeypatch.delenv("SAGE_PROFILING_PORT", raising=False)
    assert served(None, "good") == ""
    assert served(lambda: 4711, "better") == "http://127.0.0.1:4711"
    monkeypatch.setenv("SAGE_PROFILING_PORT", "4712")
    assert served(None, "good") == "http://127.0.0.1:4712"
    monkeypatch.setenv("SAGE_PROFILING_CERTIFICATE", "/cert.pem")
    assert served(None, "better") == ""


def test_a_status_of_an_older_version_is_read(world: World) -> None:
    """What that did not write has its default."""
    world.deploy("good")
    path = world.root / "status.json"
    record = json.loads(path.read_text())
    del record["instances"][0]["profiles_url"]
    path.write_text(json.dumps(record))
    assert world.platform.describe().instances[0].profiles_url == ""
