from __future__ import annotations

import errno
import os
import shutil
import socket
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

import sage_obs
from sage_obs import testing
from sage_obs.conventions import (
    BUILD_INFO,
    HEALTH_STATUS,
    INTERNAL_ERRORS,
    LABEL_OVERFLOWS,
    LLM_COST,
    OTHER,
    RELEASE_TIMESTAMP,
    REQUEST_DURATION,
    REQUEST_OVERHEAD,
    REQUESTS_IN_FLIGHT,
    Metric,
)
from sage_obs.errors import UnavailableError
from sage_obs.metrics import folder as folders
from sage_obs.metrics import prefork
from sage_obs.metrics.active import store as active_store
from sage_obs.metrics.folder import Folder
from sage_obs.metrics.member import Member, Running, here
from sage_obs.metrics.memory import CellFile
from sage_obs.metrics.merge import Merged
from sage_obs.metrics.store import Store
from sage_obs.ops import turn
from tests.support.metrics import value
from tests.support.workers import wait_until

LONG_DEAD = Running(started=1, pid=os.getpid())
"""A process that had this one's id before, as far as its start tells."""


def _here() -> Running:
    found = here()
    assert found is not None
    return found


def _join(path: Path, *, process: Running | None = None, budget: int = 100, overhead: float = 0.1) -> tuple[Store, CellFile]:
    """A store whose numbers are in the folder, as those of one more process."""
    store = Store(budget=budget, objectives=((REQUEST_OVERHEAD, (overhead,)),))
    file = CellFile(path, Member.new(process or _here()))
    store.move(file)
    return store, file


def _merged(path: Path, own: CellFile, *, budget: int = 100) -> Merged:
    def fail(error: Exception) -> None:
        raise error

    empty = Store(budget=budget, objectives=((REQUEST_OVERHEAD, (0.1,)),), overflows=False)
    return Merged(Folder(path, None), empty, own=own.member, on_error=fail)


def _values(merged: Merged, metric: Metric) -> dict[tuple[str, ...], list[float]]:
    family = next(family for family in merged.store.families() if family.metric.name == metric.name)
    return {labels: list(child.values) for labels, child in family.children()}


def test_counters_and_histograms_are_sums_and_gauges_go_by_their_rule(tmp_path: Path) -> None:
    """In flight adds up, health is the worst, a release began when its first process did, and build info stays 1."""
    (one, own), (two, _) = _join(tmp_path), _join(tmp_path)
    for number, store in enumerate((one, two), 1):
        store.cell(LLM_COST, "p", "m").add(number)
        store.histogram(REQUEST_DURATION, "a", "op", "http").observe(number)
        store.cell(REQUESTS_IN_FLIGHT, "a").add(number)
        store.cell(HEALTH_STATUS, "a", "readiness", "overall").set(1 / number)
        store.cell(RELEASE_TIMESTAMP, "1").set(100 * number)
        store.cell(BUILD_INFO, "s", f"{number}", "r", "3").set(1)
    one.cell(BUILD_INFO, "s", "2", "r", "3").set(1)
    one.histogram(REQUEST_DURATION, "a", "op", "http").observe_traced(3.0, "ab" * 16)
    merged = _merged(tmp_path, own)
    for _ in range(2):
        merged.update(one, apart=False)
        assert _values(merged, LLM_COST) == {("p", "m"): [3]}
        assert _values(merged, REQUESTS_IN_FLIGHT) == {("a",): [3]}
        assert _values(merged, HEALTH_STATUS) == {("a", "readiness", "overall"): [0.5]}
        assert _values(merged, RELEASE_TIMESTAMP) == {("1",): [100]}
        assert _values(merged, BUILD_INFO) == {("s", "1", "r", "3"): [1], ("s", "2", "r", "3"): [1]}
        histogram = merged.store.histogram(REQUEST_DURATION, "a", "op", "http")
        assert (sum(histogram.counts), histogram.sum) == (3, 6)
        assert {exemplar.trace_id for exemplar in histogram.exemplars.values()} == {"ab" * 16}


def test_no_update_is_lost_while_numbers_move_to_shared_memory(tmp_path: Path) -> None:
    """Threads that count without a lock leave exactly the sum, also where a second process appears meanwhile."""
    store = Store()
    counter, histogram = store.cell(LLM_COST, "p", "m"), store.histogram(REQUEST_DURATION, "a", "op", "http")
    threads, rounds, interval = 6, 20_000, sys.getswitchinterval()
    ready = threading.Barrier(threads + 1)

    def work() -> None:
        ready.wait()
        for _ in range(rounds):
            counter.add()
            histogram.observe(1.0)

    workers = [threading.Thread(target=work) for _ in range(threads)]
    sys.setswitchinterval(1e-5)
    try:
        for worker in workers:
            worker.start()
        ready.wait()
        for _ in range(50):
            store.move(CellFile(tmp_path, Member.new(_here())))
        for worker in workers:
            worker.join()
    finally:
        sys.setswitchinterval(interval)
    assert not isinstance(counter.values, list)
    assert counter.value == sum(histogram.counts) == histogram.sum == threads * rounds


def test_children_that_threads_make_at_once_have_places_of_their_own(tmp_path: Path) -> None:
    """However many come at once, no two children share a double, and segments fill up one after the other."""
    store, file = _join(tmp_path, budget=10_000)

    def work(number: int) -> None:
        for index in range(400):
            store.histogram(REQUEST_DURATION, "a", f"{number}-{index}", "http").observe(1.0)
            store.cell(LLM_COST, "p", f"{index}").add()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    merged = _merged(tmp_path, file, budget=10_000)
    merged.update(store, apart=False)
    assert len(_values(merged, REQUEST_DURATION)) == 3200
    assert all(sum(values[:-1]) == values[-1] == 1 for values in _values(merged, REQUEST_DURATION).values())
    assert {tuple(values) for values in _values(merged, LLM_COST).values()} == {(8.0,)}


def test_a_dead_process_counts_on_in_the_archive_and_its_files_go(tmp_path: Path) -> None:
    """What it counted stays, what it had in flight does not, and a reused process id is not taken for life."""
    own_store, own = _join(tmp_path)
    dead, _ = _join(tmp_path, process=LONG_DEAD)
    dead.cell(LLM_COST, "p", "m").add(5)
    dead.cell(REQUESTS_IN_FLIGHT, "a").add(5)
    dead.histogram(REQUEST_DURATION, "a", "op", "http").observe(2.0)
    own_store.cell(LLM_COST, "p", "m").add(1)
    merged = _merged(tmp_path, own)
    for _ in range(3):
        merged.update(own_store, apart=False)
        assert _values(merged, LLM_COST) == {("p", "m"): [6]}
        assert _values(merged, REQUESTS_IN_FLIGHT) == {}
        assert merged.store.histogram(REQUEST_DURATION, "a", "op", "http").sum == 2
    assert [path.stem for path in tmp_path.glob("*.cells")] == [own.member.name]


@pytest.mark.parametrize("moment", ["before the archive", "before the files are removed", "between the files"])
def test_a_crash_while_archiving_neither_loses_nor_counts_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str) -> None:
    """Wherever whoever archives is killed, the next one shows the same sums, for good."""
    own_store, own = _join(tmp_path)
    for amount in (1, 2):
        dead, _ = _join(tmp_path, process=LONG_DEAD)
        dead.cell(LLM_COST, "p", "m").add(amount)

    class KilledError(BaseException):
        """The process ends here."""

    def die(*_: object, **__: object) -> None:
        raise KilledError

    with monkeypatch.context() as patch:
        if moment == "before the archive":
            patch.setattr(Path, "replace", die)
        elif moment == "between the files":
            unlink = Path.unlink
            patch.setattr(Path, "unlink", lambda path, **options: die() if path.suffix == ".cells" else unlink(path, **options))
        else:
            patch.setattr(Folder, "remove_member", die)
        with pytest.raises(KilledError):
            _merged(tmp_path, own).update(own_store, apart=False)
    with Folder(tmp_path, None).lock():
        merged = _merged(tmp_path, own)
        merged.update(own_store, apart=False)
        assert _values(merged, LLM_COST) == {("p", "m"): [3]}, "while nobody may put it in order"
    late, _ = _join(tmp_path, process=LONG_DEAD)
    late.cell(LLM_COST, "p", "m").add(4)
    for _ in range(3):
        merged = _merged(tmp_path, own)
        merged.update(own_store, apart=False)
        assert _values(merged, LLM_COST) == {("p", "m"): [7]}
    assert [path.stem for path in tmp_path.glob("*.cells")] == [own.member.name]


def test_while_another_process_archives_the_dead_are_read_from_their_files(tmp_path: Path) -> None:
    """A scrape never waits for the lock, and shows the same without it."""
    own_store, own = _join(tmp_path)
    dead, file = _join(tmp_path, process=LONG_DEAD)
    dead.cell(LLM_COST, "p", "m").add(5)
    dead.cell(REQUESTS_IN_FLIGHT, "a").add(5)
    merged = _merged(tmp_path, own)
    with Folder(tmp_path, None).lock() as mine:
        assert mine
        merged.update(own_store, apart=False)
        assert _values(merged, LLM_COST) == {("p", "m"): [5]}
        assert _values(merged, REQUESTS_IN_FLIGHT) == {}
        assert (tmp_path / f"{file.member.name}.cells").exists()
    merged.update(own_store, apart=False)
    assert _values(merged, LLM_COST) == {("p", "m"): [5]}
    assert not (tmp_path / f"{file.member.name}.cells").exists()


def test_a_line_that_a_killed_process_did_not_finish_is_left_out(tmp_path: Path) -> None:
    """The children before it count; a reader that comes in the middle of a line reads it the next time."""
    store, file = _join(tmp_path)
    store.cell(LLM_COST, "p", "m").add(2)
    index = tmp_path / f"{file.member.name}.index"
    whole = index.read_bytes()
    merged = _merged(tmp_path, file)
    index.write_bytes(whole[:-3])
    merged.update(store, apart=False)
    assert _values(merged, LLM_COST) == {}
    index.write_bytes(whole)
    merged.update(store, apart=False)
    assert _values(merged, LLM_COST) == {("p", "m"): [2]}


def test_values_past_the_budget_of_the_service_become_other(tmp_path: Path) -> None:
    """Processes with other values each stay within one budget together, dead ones too, and nothing is counted twice or lost."""
    own_store, own = _join(tmp_path, budget=3)
    merged = _merged(tmp_path, own, budget=3)
    for number in range(10):
        dead, _ = _join(tmp_path, process=LONG_DEAD, budget=3)
        for model in range(4):
            dead.cell(LLM_COST, "p", f"{number}-{model}").add()
        merged.update(own_store, apart=False)
        values = _values(merged, LLM_COST)
        assert len(values) == 4, "three and the other"
        assert sum(value for (value,) in values.values()) == 4 * (number + 1)
        assert values[("p", OTHER)] == [4 * number + 1]
        assert sum(value for (value,) in _values(merged, LABEL_OVERFLOWS).values()) == number + 1
    assert (tmp_path / "archive.json").stat().st_size < 2000


def test_a_release_with_other_bounds_is_added_where_its_values_belong(tmp_path: Path) -> None:
    """A bucket of another process counts in the next of ours that holds all of it; sum and count are right."""
    own_store, own = _join(tmp_path)
    other, _ = _join(tmp_path, overhead=0.09)
    own_store.histogram(REQUEST_OVERHEAD, "a", "op").observe(0.085)
    other.histogram(REQUEST_OVERHEAD, "a", "op").observe(0.085)
    other.histogram(REQUEST_OVERHEAD, "a", "op").observe(100)
    merged = _merged(tmp_path, own)
    merged.update(own_store, apart=False)
    cell = merged.store.histogram(REQUEST_OVERHEAD, "a", "op")
    assert cell.counts[cell.bounds.index(0.1)] == 2
    assert cell.counts[-1] == 1
    assert cell.sum == pytest.approx(100.17)


def test_a_gauge_that_is_taken_back_is_gone_for_others_too(tmp_path: Path) -> None:
    """A check that is no longer registered is in no merged page, and may come back."""
    store, file = _join(tmp_path)
    merged = _merged(tmp_path, file)
    for present in (True, False, True):
        kept = {("a", "readiness", "db")} if present else set()
        if present:
            store.cell(HEALTH_STATUS, "a", "readiness", "db").set(1)
        store.keep(HEALTH_STATUS, frozenset(kept))
        merged.update(store, apart=False)
        assert set(_values(merged, HEALTH_STATUS)) == kept
    assert (tmp_path / f"{file.member.name}.index").read_bytes().count(b"\n") == 1


def test_a_full_disk_leaves_the_numbers_to_this_process(
    instrument: Callable[..., sage_obs.Handle], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever counts notices nothing; what has no room in the file is still on this process's page, and the error is counted."""
    instrument(multiprocess_dir=str(tmp_path), label_budget=50_000)
    testing.reraise_internal_errors(on=False)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    for number in range(10_000):
        active_store().cell(LLM_COST, "p", f"{number}").add()
    assert value(LLM_COST) == 10_000
    assert value(INTERNAL_ERRORS, component="metrics") > 0


@pytest.mark.parametrize("what", ["a file", "not writable"])
def test_a_folder_that_cannot_be_had_leaves_the_metrics_to_this_process(
    instrument: Callable[..., sage_obs.Handle], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """The layer runs, counts the error, and status says why."""
    testing.reset()
    testing.reraise_internal_errors(on=False)
    path = tmp_path / "here"
    if what == "a file":
        path.touch()
    else:

        def refuse(*_: object, **__: object) -> int:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

        monkeypatch.setattr(CellFile, "__init__", refuse)
    handle = instrument(multiprocess_dir=str(path))
    testing.reraise_internal_errors(on=False)
    assert handle.status()["metrics"].on
    assert "this process alone" in handle.status()["metrics"].why
    assert value(INTERNAL_ERRORS, component="metrics") == 1


def test_what_was_counted_before_uninstrument_stays_for_as_long_as_the_run(
    instrument: Callable[..., sage_obs.Handle], tmp_path: Path
) -> None:
    """A process that begins anew in a shared folder does not take back what it has counted."""
    for number in range(1, 4):
        handle = instrument(multiprocess_dir=str(tmp_path))
        active_store().cell(LLM_COST, "p", "m").add()
        assert "together with other processes" in handle.status()["metrics"].why
        assert value(LLM_COST) == value(LLM_COST) == number
        sage_obs.uninstrument()
    assert len(list(tmp_path.glob("*.cells"))) == 1


def test_a_process_that_is_alone_writes_nothing(instrument: Callable[..., sage_obs.Handle]) -> None:
    """Without a second process there is no folder, and numbers are plain ones."""
    instrument()
    value(LLM_COST)
    process = _here()
    assert not list(folders.base().glob(f"{process.pid}-{process.started}-*"))
    assert isinstance(active_store().cell(LLM_COST, "p", "m").values, list)


def test_a_folder_that_others_may_enter_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody else's folder of that name, or a link, is not written into."""
    monkeypatch.setattr(folders, "base", lambda: tmp_path / "base")
    (tmp_path / "base").mkdir(mode=0o755)
    with pytest.raises(UnavailableError, match="not a private folder"):
        Folder.of(_here(), 1).create()
    (tmp_path / "base").rmdir()
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "base").symlink_to(tmp_path / "real")
    with pytest.raises(UnavailableError, match="not a private folder"):
        Folder.of(_here(), 1).create()


def test_folders_of_runs_that_have_ended_are_removed_by_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What killed processes could not remove does not pile up; what anybody alive still uses stays."""
    base = tmp_path / folders.base().name
    base.mkdir(mode=0o700)
    monkeypatch.setattr(folders, "base", lambda: base)
    gone, orphaned, alive = Folder.of(LONG_DEAD, 1), Folder.of(replace(LONG_DEAD, started=2), 1), Folder.of(_here(), 1)
    for one in (gone, orphaned, alive):
        one.path.mkdir()
    CellFile(orphaned.path, Member.new(_here()))
    CellFile(gone.path, Member.new(LONG_DEAD))
    Folder.of(_here(), 2).create()
    assert sorted(path.name for path in base.iterdir()) == sorted(one.path.name for one in (orphaned, alive, Folder.of(_here(), 2)))
    assert Folder.around(LONG_DEAD, 7) == Folder.of(LONG_DEAD, 7)
    assert Folder.around(_here(), 1).path == orphaned.path, "a worker's child goes where the worker is"


def test_what_another_container_left_in_shared_memory_is_removed_once_nobody_holds_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Process ids of another namespace say nothing: a run there is over when no process holds its files, and has not for an hour."""
    ours = folders.base().name
    monkeypatch.setattr(folders, "base", lambda: tmp_path / ours)
    foreign = tmp_path / f"{ours}7"
    held, new, over = (foreign / f"1-{number}-9090" for number in range(3))
    for path in (held, new, over):
        path.mkdir(parents=True)
    keep = CellFile(held, Member.new(LONG_DEAD))
    (over / "1-1-1.cells").touch()
    for path in (held, over):
        os.utime(path, (0, 0))
    Folder.of(_here(), 1).create()
    assert sorted(foreign.iterdir()) == [held, new]
    keep.abandon()
    shutil.rmtree(new)
    del keep
    for path in (held, foreign):
        os.utime(path, (0, 0))
    Folder.of(_here(), 1).create()
    assert not held.exists()
    os.utime(foreign, (0, 0))
    Folder.of(_here(), 1).create()
    assert not foreign.exists()


@pytest.mark.parametrize("siblings", [0, 1])
def test_a_port_that_a_stranger_has_is_named_in_time(
    instrument: Callable[..., sage_obs.Handle],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    siblings: int,
) -> None:
    """A process that waits for a port which it cannot have, whether it has siblings or not, says so, once; it has it once it is free."""
    monkeypatch.setattr(turn, "_SECONDS", 0.01)
    monkeypatch.setattr(turn, "_KNOCK_SECONDS", 0.1)
    for _ in range(siblings):
        _join(tmp_path, process=Running.of(os.getppid()))
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        port = stranger.getsockname()[1]
        handle = instrument(multiprocess_dir=str(tmp_path), metrics_port=port, logs=False)
        assert handle.status()["ops"].on
        assert f"another process serves on port {port}" in handle.status()["ops"].why
        wait_until(lambda: f"not of this service has port {port}" in caplog.text)
    wait_until(lambda: handle.metrics_port == port)
    assert f"on 127.0.0.1:{port}" in handle.status()["ops"].why
    assert caplog.text.count("not of this service") == 1


def test_a_supervisor_is_told_from_its_workers() -> None:
    """Who forks in gunicorn's function for it supervises; what runs inside of that function in the child does not."""
    source = "def spawn_worker(work):\n    return work()\n"
    spaces: dict[str, dict[str, object]] = {"gunicorn.arbiter": {}, "uvicorn.supervisors.multiprocess": {}, "shop": {}}
    for name, space in spaces.items():
        space["__name__"] = name
        exec(source, space)  # noqa: S102 - a function of a module of that name

    def within(name: str) -> object:
        spawn = spaces[name]["spawn_worker"]
        assert callable(spawn)
        return spawn(lambda: prefork.is_supervisor(sys._getframe(1)))

    def worker(name: str) -> object:
        spawn = spaces[name]["spawn_worker"]
        assert callable(spawn)
        return spawn(lambda: within("shop"))

    assert within("gunicorn.arbiter") is True
    assert within("uvicorn.supervisors.multiprocess") is True
    assert within("shop") is False
    assert worker("gunicorn.arbiter") is False


def test_a_daemon_that_closed_all_descriptors_writes_to_no_other_file(tmp_path: Path) -> None:
    """Descriptors that were closed behind our back and are others' files by now are neither written to nor closed."""
    (tmp_path / "shared").mkdir()
    store, file = _join(tmp_path / "shared")
    os.close(file._held)
    with (tmp_path / "theirs").open("wb") as theirs:
        assert theirs.fileno() == file._held
        store.cell(LLM_COST, "p", "m").add()
        file.close()
        theirs.write(b"mine")
    assert (tmp_path / "theirs").read_bytes() == b"mine"


def test_a_damaged_archive_costs_no_scrape(tmp_path: Path) -> None:
    """It counts as empty, and the living are shown."""
    store, own = _join(tmp_path)
    store.cell(LLM_COST, "p", "m").add(2)
    (tmp_path / "archive.json").write_bytes(b"")
    merged = _merged(tmp_path, own)
    merged.update(store, apart=False)
    assert _values(merged, LLM_COST) == {("p", "m"): [2]}


def test_children_that_nobody_scrapes_do_not_pile_up(instrument: Callable[..., sage_obs.Handle]) -> None:
    """Every so many forks those that have ended are counted, and their files removed."""
    instrument()
    for _ in range(130):
        if (pid := os.fork()) == 0:
            active_store().cell(LLM_COST, "p", "m").add()
            os._exit(0)
        os.waitpid(pid, 0)
    files = list(Folder.of(_here(), 0).path.glob("*.cells"))
    assert 0 < len(files) < 100
    assert value(LLM_COST) == 130
