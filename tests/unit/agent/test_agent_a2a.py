"""A2A beside the lean path: when it is loaded, what it refuses to read, how its tasks are kept."""

from __future__ import annotations

import asyncio
import importlib.util
import subprocess
import sys
from typing import Any, Final

import pytest
from a2a.server.cluster.task_store import ConcurrentTaskModificationError
from a2a.server.cluster.version import TaskVersion
from a2a.server.context import ServerCallContext
from a2a.types.a2a_pb2 import Artifact, ListTasksRequest, Part, Task, TaskArtifactUpdateEvent, TaskState, TaskStatus
from a2a.utils.errors import A2AError

from sage_agent.a2a.callers import CallerUser
from sage_agent.a2a.endpoint import MOST_NESTED, too_deep
from sage_agent.a2a.mount import A2aMissingError, beside, wanted
from sage_agent.a2a.options import parse_switch
from sage_agent.a2a.paths import UNMATCHED, needed_role, operation, rest_operation
from sage_agent.a2a.tasks import SharedTasks
from sage_agent.callers import ANONYMOUS, Caller, Role
from sage_agent.state.base import Owner, StateError
from sage_agent.state.memory import memory_state

_ALICE, _BOB = Caller("alice", tenant="acme", how="did"), Caller("bob", tenant="acme", how="did")


def _context(caller: Caller = _ALICE) -> ServerCallContext:
    return ServerCallContext(user=CallerUser(caller))


def _task(state: TaskState = TaskState.TASK_STATE_WORKING, *, text: str = "", task_id: str = "t") -> Task:
    artifacts = [Artifact(artifact_id="a", parts=[Part(text=text)])] if text else []
    return Task(id=task_id, context_id="c", status=TaskStatus(state=state), artifacts=artifacts)


def _piece() -> TaskArtifactUpdateEvent:
    return TaskArtifactUpdateEvent(task_id="t", context_id="c")


def test_what_is_not_asked_for_is_not_loaded() -> None:
    """Neither A2A's packages nor those of signatures are imported with the server."""
    packages = ("a2a", "http_message_signatures", "Crypto", "starlette")
    code = f"import sage_agent.serve, sys; print([one for one in {packages} if one in sys.modules])"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30)
    assert loaded.stdout.strip() == "[]"


def test_without_its_package_it_is_left_out_unless_it_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """`auto` goes without, `true` says what to install."""
    assert (wanted("auto"), wanted("true"), wanted("false")) == (True, True, False)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "a2a" else object())
    assert (wanted("auto"), wanted("false")) == (False, False)
    with pytest.raises(A2aMissingError) as raised:
        wanted("true")
    assert "sage-obs[a2a]" in str(raised.value.hint)


@pytest.mark.parametrize(("given", "meant"), [("auto", "auto"), (True, "true"), ("yes", "true"), (False, "false"), ("0", "false")])
def test_the_switch_is_read_in_any_usual_spelling(given: object, meant: str) -> None:
    """YAML's own booleans among them."""
    assert parse_switch(given) == meant


def test_every_path_goes_where_it_belongs() -> None:
    """`/a2a/v1/messages` is the lean path's, whatever it begins with."""
    app: Any = beside(lambda *_: "lean", lambda *_: "a2a")  # type: ignore[arg-type]
    paths = ("/v1/messages", "/a2a/v1/messages", "/a2a", "/a2a/tasks/1", "/.well-known/agent-card.json", "/health/live", "/")
    assert [app({"path": path}, None, None) for path in paths] == ["lean", "lean", "a2a", "a2a", "a2a", "lean", "lean"]
    assert app({"type": "lifespan"}, None, None) == "lean"


def test_operations_are_few_whatever_is_asked_for() -> None:
    """Ids and paths that callers make up are in no label."""
    names = [rest_operation(path) for path in ("/a2a/tasks/1", "/a2a/v1/tasks/2", "/a2a/tasks/1:cancel", "/a2a/tasks", "/a2a/x/y")]
    assert names == ["tasks:get", "tasks:get", "tasks:cancel", "tasks:list", UNMATCHED]
    assert operation({}) == UNMATCHED


def test_json_is_as_deep_as_it_may_be_and_no_deeper() -> None:
    """Wide is not deep."""
    document: object = 1
    for _ in range(MOST_NESTED - 1):
        document = [document, {}]
    assert not too_deep(document)
    assert too_deep({"one": document})
    assert not too_deep([[1]] * 100_000)


def test_a_task_is_its_owners_and_each_write_has_seen_the_last() -> None:
    """Another caller has no such task; a writer that has not seen the last version is told so."""
    store = SharedTasks(memory_state().tasks, seconds=60)

    async def use() -> None:
        version = await store.save(_task(), event=None, prev=None, prev_version=TaskVersion.MISSING, context=_context())
        done = _task(TaskState.TASK_STATE_COMPLETED)
        later = await store.save(done, event=None, prev=None, prev_version=version, context=_context())
        assert later.is_after(version)
        with pytest.raises(ConcurrentTaskModificationError):
            await store.save(_task(), event=None, prev=None, prev_version=version, context=_context())
        stored = await store.get("t", _context())
        assert stored is not None
        assert stored.version == later
        assert await store.get("t", _context(_BOB)) is None

    asyncio.run(use())


def test_a_cancellation_beats_what_runs_and_nothing_that_has_ended() -> None:
    """Whatever version whoever cancels has seen."""
    store = SharedTasks(memory_state().tasks, seconds=60)
    cancelled = _task(TaskState.TASK_STATE_CANCELED)

    async def use() -> None:
        with pytest.raises(ConcurrentTaskModificationError):
            await store.save(cancelled, event=None, prev=None, prev_version=TaskVersion.MISSING, context=_context())
        await store.save(_task(), event=None, prev=None, prev_version=TaskVersion.MISSING, context=_context())
        await store.save(cancelled, event=None, prev=None, prev_version=TaskVersion.MISSING, context=_context())
        with pytest.raises(ConcurrentTaskModificationError):
            await store.save(cancelled, event=None, prev=None, prev_version=TaskVersion.MISSING, context=_context())

    asyncio.run(use())


def test_pieces_of_an_answer_are_written_once_a_second_and_its_end_whole() -> None:
    """A hundred pieces are a few writes, and none of them is lost."""
    now, writes = [100.0], []
    tasks = memory_state().tasks

    class Counting:
        async def put(self, *arguments: Any, **settings: Any) -> bool:
            writes.append(now[0])
            return await tasks.put(*arguments, **settings)

        async def get(self, *arguments: Any) -> Any:
            return await tasks.get(*arguments)

    store = SharedTasks(Counting(), seconds=60, clock=lambda: now[0])  # type: ignore[arg-type]

    async def use() -> None:
        version = await store.save(_task(), event=None, prev=None, prev_version=TaskVersion.MISSING, context=_context())
        for number in range(30):
            now[0] += 0.1
            version = await store.save(_task(text=f"{number}"), event=_piece(), prev=None, prev_version=version, context=_context())
        end = _task(TaskState.TASK_STATE_COMPLETED, text="all")
        await store.save(end, event=None, prev=None, prev_version=version, context=_context())
        stored = await store.get("t", _context())
        assert stored is not None
        assert stored.task.artifacts[0].parts[0].text == "all"

    asyncio.run(use())
    assert 4 <= len(writes) <= 5


def test_a_store_that_is_lost_is_said_without_its_details() -> None:
    """The caller learns that tasks cannot be reached, not where they are."""

    class Lost:
        async def get(self, owner: Owner, task_id: str) -> None:
            raise StateError(f"no route to database at 10.0.0.7: {owner} {task_id}")

    store = SharedTasks(Lost(), seconds=60)  # type: ignore[arg-type]
    with pytest.raises(A2AError) as raised:
        asyncio.run(store.get("t", _context()))
    assert "10.0.0.7" not in repr(raised.value)
    assert (raised.value.data or {})["type"] == "unavailable"


def test_a_viewer_reads_what_its_tenant_owns_and_nobody_elses() -> None:
    """Everybody's of the tenant, in a list and by id; of another tenant nothing, and without a tenant nothing at all."""
    store = SharedTasks(memory_state().tasks, seconds=60)

    def viewer(tenant: str) -> ServerCallContext:
        return _context(Caller("watcher", tenant=tenant, role=Role.VIEWER, how="api_key"))

    async def seen(context: ServerCallContext) -> list[str]:
        listed = sorted(task.id for task in (await store.list(ListTasksRequest(), context)).tasks)
        assert listed == [one for one in ("a", "b", "c", "d") if await store.get(one, context) is not None]
        return listed

    async def use() -> None:
        stranger, nobodys = Caller("carol", tenant="globex", how="did"), Caller("did:key:z", how="did")
        for task_id, caller in (("a", _ALICE), ("b", _BOB), ("c", stranger), ("d", nobodys)):
            await store.save(_task(task_id=task_id), event=None, prev=None, prev_version=TaskVersion.MISSING, context=_context(caller))
        assert await seen(viewer("acme")) == ["a", "b"]
        assert await seen(viewer("globex")) == ["c"]
        assert await seen(viewer("")) == []
        assert await seen(_context()) == ["a"]

    asyncio.run(use())


_RPC: Final[dict[str, Any]] = {"path": "/a2a", "method": "POST"}


@pytest.mark.parametrize(
    ("scope", "body", "role"),
    [
        (_RPC, b'{"method": "GetTask"}', Role.VIEWER),
        (_RPC, b'{"method": "tasks/get"}', Role.VIEWER),
        (_RPC, b'{"method": "ListTasks"}', Role.VIEWER),
        (_RPC, b'{"method": "SendMessage"}', Role.OPERATOR),
        (_RPC, b'{"method": "CancelTask"}', Role.OPERATOR),
        (_RPC, b'{"method": "SubscribeToTask"}', Role.OPERATOR),
        (_RPC, b'{"method": "GetTask", "method": "CancelTask"}', Role.OPERATOR),
        (_RPC, b'{"method": "gettask"}', Role.OPERATOR),
        (_RPC, b'{"method": ["GetTask"]}', Role.OPERATOR),
        (_RPC, b'[{"method": "GetTask"}]', Role.OPERATOR),
        (_RPC, b"GetTask", Role.OPERATOR),
        ({"path": "/a2a/tasks", "method": "GET"}, b"", Role.VIEWER),
        ({"path": "/a2a/v1/tasks/1-2", "method": "GET"}, b"", Role.VIEWER),
        ({"path": "/a2a/tasks/1:cancel", "method": "POST"}, b"", Role.OPERATOR),
        ({"path": "/a2a/tasks/1:subscribe", "method": "GET"}, b"", Role.OPERATOR),
        ({"path": "/a2a/tasks/1:subscribe\n", "method": "GET"}, b"", Role.OPERATOR),
        ({"path": "/a2a/tasks/1", "method": "POST"}, b"", Role.OPERATOR),
        ({"path": "/a2a/message:send", "method": "POST"}, b'{"method": "GetTask"}', Role.OPERATOR),
    ],
)
def test_reading_is_for_viewers_and_all_else_for_operators(scope: dict[str, Any], body: bytes, role: Role) -> None:
    """What is not plainly a reading is as sending, however it is written."""
    assert needed_role(scope, body) is role


def test_nobody_lists_where_nobody_is_identified() -> None:
    """Everybody is the same caller there, and would see everybody's."""
    store = SharedTasks(memory_state().tasks, seconds=60)
    with pytest.raises(A2AError):
        asyncio.run(store.list(ListTasksRequest(), _context(ANONYMOUS)))


def test_two_callers_never_share_an_owner() -> None:
    """However tenants and ids are cut."""
    owners = {CallerUser(Caller(name, tenant=tenant)).user_name for tenant, name in (("a", "b"), ("ab", ""), ("", "ab"), ('a","b', ""))}
    assert len(owners) == 4
