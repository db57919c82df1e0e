from __future__ import annotations

import errno
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest

from sage_obs.errors import JournalError
from sage_obs.platforms.base import Release
from sage_obs.platforms.ledger import Standing
from sage_obs.runbooks import journal, runs
from sage_obs.runbooks.locks import holding
from sage_obs.runbooks.model import Outcome
from sage_obs.runbooks.progress import fold
from sage_obs.runbooks.responder import inbox as inbox_module
from sage_obs.runbooks.responder.alerts import Notice, parse
from sage_obs.runbooks.responder.baker import Baker
from sage_obs.runbooks.responder.counters import Counters
from sage_obs.runbooks.responder.inbox import Inbox
from sage_obs.runbooks.responder.server import Desk, Front
from sage_obs.runbooks.responder.worker import Worker
from sage_obs.runbooks.world import StoppedError
from tests.support.alertmanager import alert, notification
from tests.support.runbooks import BAD, FAILING, GOOD, HEALTHY, NOTHING, Scene

STARTED = "1970-01-01T00:16:35Z"
"""995 seconds after the epoch: just before the scene begins."""


NEW_YEAR = 1767323045.0
"""When the alerts of `tests.support.alertmanager` began."""


def _notice(*alerts: dict[str, Any], now: float = 1000.0, **more: Any) -> Notice:
    return parse(notification(*(alerts or (alert(starts_at=STARTED),)), **more), now=now)


def _worker(scene: Scene, *, say: Callable[[str], None] = lambda _: None) -> tuple[Worker, Inbox, Counters]:
    box, counters = Inbox(scene.state), Counters(("incident", "rollback"))
    parameters = {"service": "sage-agent", "platform": "local"}
    return Worker(scene.world, box, counters, parameters=parameters, stopping=threading.Event(), say=say), box, counters


def _runs(scene: Scene) -> list[Outcome | None]:
    return [fold(journal.read(folder)).outcome for folder in runs.folders(scene.state)]


def test_only_known_values_get_past_the_payload() -> None:
    """Names of our own alerts and times; whatever else the labels say reaches nothing."""
    notice = _notice(alert(version="$(reboot)", agent_id="; rm -rf /"), alert("SageSomethingElse"), alert(action="page"), now=NEW_YEAR)
    assert notice.alerts == ("SageRollbackErrorRate",)
    assert notice.started_at == NEW_YEAR
    assert "rm" not in repr(notice)


def test_both_alertmanagers_of_a_pair_give_one_key() -> None:
    """The order of alerts and the sender's own fields do not matter; group, status, members and start do."""
    first, second = alert("SageRollbackErrorRate"), alert("SageRollbackHealth")
    notices = [
        notification(first, second),
        notification(second, {**first, "generatorURL": "http://other"}),
        notification(first),
        notification(first, second, status="resolved"),
        notification(first, second, group="another"),
        notification({**first, "startsAt": "2026-01-02T03:04:06Z"}, second),
    ]
    keys = [parse(one, now=NEW_YEAR).key for one in notices]
    assert keys[0] == keys[1]
    assert len(set(keys)) == 5


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"{", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[]", "must be an object"),
        (b"{}", "`groupKey` must be a text"),
        (notification(status="broken"), "`firing` or `resolved`"),
        (b'{"groupKey": "g", "status": "firing", "alerts": {}}', "`alerts` must be a list"),
        (notification(*[alert()] * 1001), "at most 1000"),
        (notification({**alert(), "labels": None}), "`labels` must be an object"),
        (notification({**alert(), "fingerprint": 3}), "`fingerprint` and `startsAt`"),
        (notification({**alert(), "startsAt": "yesterday"}), "RFC 3339"),
        (notification({**alert(), "startsAt": "2026-01-02T03:04:05"}), "time zone"),
        (notification({**alert(), "status": []}), "an alert's `status`"),
        (notification({**alert(), "startsAt": "0001-01-01T00:00:00+23:59"}), "within ten years"),
        (notification({**alert(), "startsAt": "2036-12-31T00:00:00Z"}), "within ten years"),
    ],
    ids=[
        "cut short",
        "deep",
        "list",
        "empty",
        "status",
        "alerts",
        "too many",
        "labels",
        "fingerprint",
        "time",
        "no zone",
        "alert status",
        "before the calendar",
        "far ahead",
    ],
)
def test_what_is_no_notification_is_refused_with_the_reason(body: bytes, message: str) -> None:
    """A schema that is checked, not assumed."""
    with pytest.raises(ValueError, match=message):
        parse(body, now=NEW_YEAR)


def _desk(tmp_path: Path, *, token: str = "") -> tuple[Desk, Inbox, list[None]]:
    box, news = Inbox(tmp_path), list[None]()
    return Desk(box, Counters(("incident",)), token, lambda: news.append(None), lambda: True, lambda: NEW_YEAR), box, news


def test_a_notice_is_on_disk_before_it_is_acknowledged(tmp_path: Path) -> None:
    """202 once; a copy is acknowledged too but kept once; a new process knows both."""
    desk, box, news = _desk(tmp_path)
    assert [desk.alerts("", notification(alert())).status for _ in range(2)] == [HTTPStatus.ACCEPTED] * 2
    assert len(box.waiting()) == len(Inbox(tmp_path).waiting()) == 1
    assert news
    box.handled(box.waiting()[0], result="run", at=2.0)
    assert Inbox(tmp_path).waiting() == ()
    assert Inbox(tmp_path).receive(parse(notification(alert()), now=NEW_YEAR), at=3.0) is False


def test_what_cannot_be_kept_is_not_acknowledged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk gives 503, so Alertmanager sends it again; with room it is taken."""

    def full(path: Path, line: dict[str, Any]) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", f"{path} {len(line)}")

    desk, box, _ = _desk(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(inbox_module, "append_json", full)
        assert desk.alerts("", notification(alert())).status is HTTPStatus.SERVICE_UNAVAILABLE
    assert box.waiting() == ()
    assert desk.alerts("", notification(alert())).status is HTTPStatus.ACCEPTED


@pytest.mark.parametrize("authorization", ["", "Bearer wrong", "secret", "Bearer secret2", "Bearer sécret"])
def test_without_the_token_nothing_is_kept(tmp_path: Path, authorization: str) -> None:
    """401 and an empty inbox; with it, 202."""
    desk, box, _ = _desk(tmp_path, token="secret")  # noqa: S106 - a test's
    assert desk.alerts(authorization, notification(alert())).status is HTTPStatus.UNAUTHORIZED
    assert box.waiting() == ()
    assert desk.alerts("Bearer secret", notification(alert())).status is HTTPStatus.ACCEPTED


@contextmanager
def _front(desk: Desk, request: bytes, **options: float) -> Iterator[socket.socket]:
    """A server, and a connection on which `request` was sent."""
    front = Front(desk, host="127.0.0.1", port=0, **options)
    front.start()
    with socket.create_connection(("127.0.0.1", int(front.url.rpartition(":")[2])), timeout=5) as connection:
        connection.sendall(request)
        yield connection
    front.stop()


_HEAD = b"POST /alerts HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n"


def test_without_the_token_the_body_is_not_waited_for(tmp_path: Path) -> None:
    """401 as soon as the head is read, and the connection is closed."""
    desk, _, _ = _desk(tmp_path, token="secret")  # noqa: S106 - a test's
    with _front(desk, _HEAD) as connection, connection.makefile("rb") as answer:
        assert b" 401 " in answer.readline()
        assert answer.read().endswith(b"}\n")


def test_a_refused_request_reads_its_answer_however_much_it_sends(tmp_path: Path) -> None:
    """The connection is not reset under a sender that is not done yet."""
    desk, _, _ = _desk(tmp_path, token="secret")  # noqa: S106 - a test's
    with _front(desk, _HEAD) as connection, connection.makefile("rb") as answer:
        for _ in range(3):
            time.sleep(0.05)
            connection.sendall(b" " * 30)
        assert b" 401 " in answer.readline()


def test_a_body_has_one_deadline_however_it_drips(tmp_path: Path) -> None:
    """A byte now and then does not hold a thread for ever; nothing is kept."""
    desk, box, _ = _desk(tmp_path)
    with _front(desk, _HEAD, read_timeout=0.2) as connection:
        began = time.monotonic()
        connection.settimeout(0.05)
        with suppress(ConnectionError):
            while time.monotonic() - began < 3:
                with suppress(TimeoutError):
                    connection.sendall(b"{")
                    if connection.recv(1) == b"":
                        break
        assert time.monotonic() - began < 2
    assert box.waiting() == ()


def test_pages_health_and_metrics_are_served(tmp_path: Path) -> None:
    """The page an alert links to opens, with and without its suffix; every outcome is counted from 0."""
    desk, _, _ = _desk(tmp_path)
    assert b"<title>Incident</title>" in desk.get("/runbooks/incident.md").body
    assert desk.get("/runbooks/incident").body == desk.get("/runbooks/incident.md").body
    assert desk.get("/runbooks/../secret").status is HTTPStatus.NOT_FOUND
    assert desk.get("/").status is HTTPStatus.NOT_FOUND
    assert desk.get("/health/ready").status is HTTPStatus.OK
    assert replace(desk, alive=lambda: False).get("/health/live").status is HTTPStatus.SERVICE_UNAVAILABLE
    metrics = desk.get("/metrics").body.decode()
    for outcome in Outcome:
        assert f'sage_obs_runbook_runs_total{{outcome="{outcome}",runbook="incident"}} 0.0' in metrics


def test_an_inbox_that_was_damaged_is_an_error(tmp_path: Path) -> None:
    """A line it did not write stops the start, rather than losing alerts silently."""
    (tmp_path / inbox_module.FILE).parent.mkdir()
    (tmp_path / inbox_module.FILE).write_text('{"type":"received"}\n')
    with pytest.raises(JournalError, match="did not write"):
        Inbox(tmp_path)


def test_an_alert_becomes_one_verified_rollback(tmp_path: Path) -> None:
    """Heard, run once, counted, and never again for the same notice."""
    scene = Scene(tmp_path)
    worker, box, counters = _worker(scene)
    box.receive(_notice(), at=scene.clock())
    assert worker.turn() is False
    assert scene.platform.asked == ["1.0.0"]
    worker.turn()
    box.receive(_notice(), at=scene.clock())
    worker.turn()
    assert _runs(scene) == [Outcome.OK]
    assert b'runs_total{outcome="ok",runbook="incident"} 1.0' in counters.exposition()


def test_a_group_that_grew_while_it_was_cured_is_not_answered_twice(tmp_path: Path) -> None:
    """Alertmanager sends the group anew when another alert joins; the run that ended after that has covered it."""
    scene = Scene(tmp_path)
    worker, box, _ = _worker(scene)
    box.receive(_notice(), at=scene.clock())
    box.receive(_notice(alert(starts_at=STARTED), alert("SageRollbackHealth", starts_at="1970-01-01T00:16:41Z")), at=scene.clock())
    worker.turn()
    assert _runs(scene) == [Outcome.OK]
    later = alert("SageRollbackLatency", starts_at="1970-01-02T00:00:00Z")
    box.receive(_notice(later), at=scene.clock())
    worker.turn()
    assert len(_runs(scene)) == 2


def test_what_asks_for_nothing_is_noted(tmp_path: Path) -> None:
    """Resolved groups and other alerts start no run, and do not wait."""
    scene = Scene(tmp_path)
    worker, box, _ = _worker(scene)
    box.receive(_notice(alert(status="resolved", starts_at=STARTED), status="resolved"), at=1.0)
    box.receive(_notice(alert("SomebodyElses", starts_at=STARTED)), at=1.0)
    worker.turn()
    assert (_runs(scene), box.waiting()) == ([], ())


def test_while_a_person_has_the_service_the_alert_waits(tmp_path: Path) -> None:
    """The lock is respected, said once, and the alert is answered when it is free."""
    scene, said = Scene(tmp_path), list[str]()
    worker, box, _ = _worker(scene, say=said.append)
    box.receive(_notice(), at=1.0)
    with holding(tmp_path, ["deploy-sage-agent"], run="a-persons-run"):
        assert worker.turn() is True
        assert worker.turn() is True
    assert [text for text in said if "a-persons-run" in text] == [said[0]]
    assert len(box.waiting()) == 1
    worker.turn()
    assert _runs(scene) == [Outcome.OK]


@pytest.mark.parametrize(("cured", "outcome"), [(True, Outcome.OK), (False, Outcome.VERIFICATION_FAILED)], ids=["cured", "not cured"])
def test_after_a_crash_the_run_goes_on_and_the_alert_is_not_answered_again(tmp_path: Path, *, cured: bool, outcome: Outcome) -> None:
    """A new responder on the same state finds both the run and the notice, however the run ends."""
    scene = Scene(tmp_path)
    scene.signals.now["1.0.0"] = HEALTHY if cured else FAILING
    worker, box, _ = _worker(scene)
    box.receive(_notice(), at=1.0)

    def dies(_: float) -> None:
        raise StoppedError("killed")

    dying = Worker(
        replace(scene.world, sleep=dies), box, Counters(("incident",)), parameters={"service": "sage-agent", "platform": "local"},
        stopping=threading.Event(), say=lambda _: None,
    )  # fmt: skip
    with pytest.raises(StoppedError):
        dying.turn()
    worker, box, _ = _worker(scene)
    worker.turn()
    worker.turn()
    assert _runs(scene) == [outcome]
    assert scene.platform.asked == ["1.0.0"]
    assert box.waiting() == ()


def test_a_run_that_cannot_go_on_keeps_no_other_alert_waiting(tmp_path: Path) -> None:
    """What nobody foresaw is said once for its run, which is left alone; the next alert is answered."""
    scene, said = Scene(tmp_path), list[str]()
    worker, box, _ = _worker(scene, say=said.append)
    box.receive(replace(_notice(), started_at=-1e12), at=1.0)
    worker.turn()
    worker.turn()
    assert worker.turn() is False
    aside = [text for text in said if "is set aside" in text]
    assert len(aside) == 2  # the alert's, and the run's that it began
    assert runs.folders(tmp_path)[0].name in aside[1]
    scene.platform.desired = scene.platform.running = BAD
    box.receive(_notice(alert("SageRollbackLatency", starts_at="1970-01-02T00:00:00Z")), at=1.0)
    scene.clock.sleep(90_000)
    worker.turn()
    assert Outcome.REFUSED in _runs(scene)


def _bakes(scene: Scene, seconds: int) -> list[str]:
    baker, marked = Baker(scene.world), []
    for _ in range(seconds):
        if version := baker.look():
            marked.append(version)
        scene.clock.sleep(1)
    return marked


def _serving(scene: Scene, measured: dict[str, Any]) -> Scene:
    scene.signals.now["1.1.0"] = measured
    return scene


def test_a_release_is_good_once_all_triggers_passed_for_long_enough(tmp_path: Path) -> None:
    """Marked once, after the bake time and not before."""
    assert _bakes(_serving(Scene(tmp_path / "short"), dict(HEALTHY)), 5) == []
    scene = _serving(Scene(tmp_path / "long"), dict(HEALTHY))
    assert _bakes(scene, 20) == ["1.1.0"]
    assert scene.ledger.standing(BAD.digest) is Standing.GOOD


def test_a_clock_that_is_set_proves_nothing(tmp_path: Path) -> None:
    """An hour that did not pass is no time in which the release was good."""
    scene = _serving(Scene(tmp_path), dict(HEALTHY))
    baker = Baker(scene.world)
    assert baker.look() == ""
    scene.clock.ahead = 3600
    assert baker.look() == ""
    assert scene.ledger.standing(BAD.digest) is Standing.UNPROVEN


@pytest.mark.parametrize("measured", [FAILING, NOTHING], ids=["failing", "no data"])
def test_nothing_is_proven_by_failure_or_silence(tmp_path: Path, measured: dict[str, Any]) -> None:
    """Unknown never counts."""
    assert _bakes(_serving(Scene(tmp_path), dict(measured)), 100) == []


def test_a_release_known_to_be_bad_is_never_called_good_by_itself(tmp_path: Path) -> None:
    """Not even when it looks well for days."""
    scene = _serving(Scene(tmp_path), dict(HEALTHY))
    scene.ledger.mark(BAD, Standing.BAD, by="test", reason="it failed")
    assert _bakes(scene, 100) == []


def test_only_what_the_platform_has_converged_on_bakes(tmp_path: Path) -> None:
    """A platform that is still getting there proves nothing about what it wants."""
    scene = _serving(Scene(tmp_path), dict(HEALTHY))
    scene.platform.stuck = True
    scene.platform.running = GOOD
    assert _bakes(scene, 50) == []


def test_a_switch_starts_the_bake_anew(tmp_path: Path) -> None:
    """The time one release passed does not count for the next."""
    scene = _serving(Scene(tmp_path), dict(HEALTHY))
    third = Release("1.2.0", "sha256:third", 1003.0)
    scene.signals.now["1.2.0"] = HEALTHY
    baker = Baker(scene.world)
    for second in range(8):
        if second == 4:
            scene.platform.desired = scene.platform.running = third
        assert baker.look() == ""
        scene.clock.sleep(1)
    scene.clock.sleep(2)
    assert baker.look() == "1.2.0"
