from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable

import pytest

import sage_obs
from sage_obs.conventions import HEALTH_STATUS, OVERALL
from sage_obs.errors import ConfigError
from sage_obs.health.board import Board
from sage_obs.health.checks import Check, Status
from tests.support.metrics import children, value

Start = Callable[..., sage_obs.Handle]


def _board(**checks: tuple[Callable[[], bool | None], bool]) -> Board:
    board = Board()
    for name, (check, critical) in checks.items():
        board.register(name, check, critical=critical, timeout=2.0)
    return board


def _raise() -> bool:
    raise ConnectionRefusedError("postgres://joe:secret@db")


async def _fine() -> bool:
    return True


@pytest.mark.parametrize(
    ("checks", "status", "code"),
    [
        ({}, "healthy", 200),
        ({"db": (lambda: True, True)}, "healthy", 200),
        ({"db": (lambda: None, True)}, "healthy", 200),
        ({"db": (_fine, True)}, "healthy", 200),
        ({"db": (lambda: False, True)}, "unhealthy", 503),
        ({"db": (_raise, True)}, "unhealthy", 503),
        ({"db": (_raise, False)}, "degraded", 200),
        ({"a": (lambda: False, False), "b": (lambda: False, True)}, "unhealthy", 503),
    ],
    ids=["none", "true", "nothing said", "coroutine", "false", "raises", "optional", "both"],
)
def test_readiness_is_as_bad_as_its_worst_check(checks: dict[str, tuple[Callable[[], bool], bool]], status: str, code: int) -> None:
    """Critical checks decide, others degrade, and sync and async ones count alike."""
    answer = _board(**checks).readiness()
    assert (answer.status, answer.body["status"]) == (code, status)
    assert answer.body["name"] == "readiness"
    assert [check["name"] for check in answer.body["details"]["checks"]] == list(checks)


def test_an_exceptions_text_is_not_shown() -> None:
    """Probes are answered to anyone, so only the class of what went wrong is told."""
    checks = _board(db=(_raise, True)).readiness().body["details"]["checks"]
    assert checks == [{"name": "db", "status": "unhealthy", "message": "ConnectionRefusedError"}]


def test_liveness_depends_on_nothing() -> None:
    """With every check failing and the process draining it is still alive."""
    board = _board(db=(_raise, True))
    board.drain()
    assert board.liveness().body == {"name": "liveness", "status": "healthy"}


def test_draining_is_not_ready_and_says_so() -> None:
    """From drain() on readiness is 503 whatever the checks say."""
    board = _board(db=(lambda: True, True))
    board.drain()
    answer = board.readiness()
    assert (answer.status, answer.body["status"], answer.body["message"]) == (503, "unhealthy", "draining")


def test_startup_waits_for_an_application_only_where_there_is_one() -> None:
    """A plain script has started; with an application it is 503 with the time so far until it serves, and then stays complete."""
    now = [10.0]
    board = Board(clock=lambda: now[0])
    assert board.startup().status == 200
    board.expect_app()
    now[0] = 12.5
    assert board.startup().body == {"name": "startup", "status": "unhealthy", "details": {"elapsed_ms": 2500.0}}
    assert board.startup().status == 503
    board.started()
    now[0] = 99.0
    board.started()
    assert board.startup().body == {"name": "startup", "status": "healthy", "details": {"startup_duration_ms": 2500.0}}


def test_a_hanging_check_is_unhealthy_after_its_timeout_and_costs_one_thread() -> None:
    """While it hangs it is joined, not run again; when it ends its finding counts."""
    now = [0.0]
    runs: list[Callable[[], None]] = []
    check = Check("db", lambda: True, critical=True, timeout=2.0, clock=lambda: now[0], runner=runs.append)
    first = check.start()
    assert check.start() is first
    assert len(runs) == 1
    assert check.result().message == "not checked yet"
    now[0] = 2.0
    assert check.result().message == "no answer within 2 s"
    runs[0]()
    assert check.result().status is Status.HEALTHY
    check.start()
    assert len(runs) == 2
    assert check.result().status is Status.HEALTHY


def test_readiness_waits_for_a_slow_check_no_longer_than_its_timeout() -> None:
    """A check that never answers makes readiness unhealthy within its timeout."""
    release = threading.Event()
    board = Board()
    board.register("db", lambda: release.wait(10), critical=True, timeout=0.05)
    assert board.readiness().status == 503
    release.set()


def test_an_asynchronous_check_runs_on_the_applications_loop() -> None:
    """Where its connections live, whoever asks: another thread, or the loop itself, which is not held up."""
    board, loops = Board(), []

    async def check() -> bool:
        loops.append(asyncio.get_running_loop())
        return True

    async def main() -> None:
        board.seen(asyncio.get_running_loop())
        board.register("db", check, critical=True, timeout=5)
        assert (await asyncio.to_thread(board.readiness)).status == 200
        assert (await board.readiness_async()).status == 200
        assert loops == [asyncio.get_running_loop()] * 2

    asyncio.run(main())


def test_the_loop_goes_on_while_a_synchronous_check_is_slow() -> None:
    """A probe on the application's own port does not block its requests."""
    release = threading.Event()
    board = Board()
    board.register("db", lambda: release.wait(10), critical=True, timeout=10)

    async def main() -> None:
        probe = asyncio.create_task(board.readiness_async())
        await asyncio.sleep(0)
        release.set()
        assert (await probe).status == 200

    asyncio.run(main())


def test_health_is_on_the_gauges_at_every_scrape(instrument: Start) -> None:
    """Probes and checks have a value; a check that is gone has none, and a slow one does not hold the scrape up."""
    instrument()
    release = threading.Event()
    sage_obs.health.register("db", lambda: False, critical=False)
    sage_obs.health.register("slow", lambda: release.wait(60), timeout=60)
    began = time.monotonic()
    assert value(HEALTH_STATUS, probe="liveness", check=OVERALL) == 1
    assert value(HEALTH_STATUS, probe="readiness", check="db") == 0.5
    assert value(HEALTH_STATUS, probe="readiness", check="slow") == 0
    assert time.monotonic() - began < 10
    release.set()
    sage_obs.health.unregister("slow")
    assert value(HEALTH_STATUS, probe="readiness", check=OVERALL) == 0.5
    assert not [labels for labels in children(HEALTH_STATUS) if labels["check"] == "slow"]
    sage_obs.health.drain()
    assert value(HEALTH_STATUS, probe="readiness", check=OVERALL) == 0


def test_a_check_cannot_take_the_name_of_the_probes_own_answer() -> None:
    """`overall` is taken."""
    with pytest.raises(ConfigError, match="overall"):
        Board().register(OVERALL, lambda: True, critical=True, timeout=1)
