"""Tasks in the shared state, so that whichever replica is asked knows them; the owner is the caller."""

from __future__ import annotations

import builtins
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeVar

from a2a.server.cluster.task_store import ConcurrentTaskModificationError, StoredTask, VersionedTaskStore
from a2a.server.cluster.version import TaskVersion
from a2a.server.context import ServerCallContext
from a2a.server.events import Event
from a2a.types.a2a_pb2 import ListTasksRequest, ListTasksResponse, Task, TaskArtifactUpdateEvent, TaskState
from a2a.utils.constants import DEFAULT_LIST_TASKS_PAGE_SIZE
from a2a.utils.errors import UnsupportedOperationError

from sage_agent.a2a.callers import owner_of
from sage_agent.a2a.failures import as_error
from sage_agent.problems import unavailable
from sage_agent.state.base import Owner, StateError, Stored, Tasks

T = TypeVar("T")
ENDED: Final = frozenset({
    TaskState.TASK_STATE_COMPLETED, TaskState.TASK_STATE_CANCELED, TaskState.TASK_STATE_FAILED, TaskState.TASK_STATE_REJECTED,
})  # fmt: skip
_MOST_READ: Final = 1000
"""Tasks a listing looks at; more belong to nobody who looks at them by hand."""
_PAGE: Final = 100
_MOST_RUNNING: Final = 100_000
PIECES_EVERY_SECONDS: Final = 1.0
"""Pieces of a streamed answer are written at most so often. Each write also tells whether another replica has cancelled the task."""


class SharedTasks(VersionedTaskStore):
    """Keeps tasks for `seconds` after their last change. `clock` is in seconds and need not agree between replicas."""

    def __init__(self, tasks: Tasks, *, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._tasks = tasks
        self._seconds = seconds
        self._clock = clock
        self._written: dict[str, float] = {}

    async def save(
        self, task: Task, *, event: Event | None, prev: Task | None, prev_version: TaskVersion, context: ServerCallContext
    ) -> TaskVersion:
        """Write a task. Raises ConcurrentTaskModificationError where somebody else has, and A2AError where the store is lost."""
        del prev
        if isinstance(event, TaskArtifactUpdateEvent) and not self._due(task.id):
            return prev_version
        self._note(task)
        expected = _number(prev_version)
        if task.status.state == TaskState.TASK_STATE_CANCELED:
            expected = await self._running_version(task.id, context)
        return await self._put(task, expected, context)

    def _due(self, task_id: str) -> bool:
        return self._clock() - self._written.get(task_id, 0.0) >= PIECES_EVERY_SECONDS

    def _note(self, task: Task) -> None:
        self._written.pop(task.id, None)
        if task.status.state not in ENDED:
            self._written[task.id] = self._clock()
        if len(self._written) > _MOST_RUNNING:
            del self._written[next(iter(self._written))]

    async def _put(self, task: Task, expected: int, context: ServerCallContext) -> TaskVersion:
        document = task.SerializeToString()
        if not await _asked(self._tasks.put(owner_of(context), task.id, document, expected=expected, seconds=self._seconds)):
            raise ConcurrentTaskModificationError(task.id)
        return _Version(expected + 1)

    async def _running_version(self, task_id: str, context: ServerCallContext) -> int:
        """A cancellation beats whatever else was written, but for an end."""
        stored = await self.get(task_id, context)
        if stored is None or stored.task.status.state in ENDED:
            raise ConcurrentTaskModificationError(task_id)
        return _number(stored.version)

    async def get(self, task_id: str, context: ServerCallContext) -> StoredTask | None:
        """A task of this caller, of its tenant for a viewer. Raises A2AError where the store is lost."""
        stored = await _asked(self._tasks.get(owner_of(context), task_id))
        return None if stored is None else StoredTask(_task(stored), _Version(stored.version))

    async def list(self, params: ListTasksRequest, context: ServerCallContext) -> ListTasksResponse:
        """This caller's tasks, a viewer's tenant's, the last changed first. Raises A2AError, too for callers that nobody can tell apart."""
        if not context.user.is_authenticated:
            raise UnsupportedOperationError("Tasks are listed for callers that are identified; ask for one by its id.")
        found = [task for task in await self._all(owner_of(context)) if _matches(task, params)]
        found.sort(key=lambda task: (task.status.timestamp.ToNanoseconds(), task.id), reverse=True)
        size = params.page_size or DEFAULT_LIST_TASKS_PAGE_SIZE
        begin = next((index for index, task in enumerate(found, 1) if task.id == params.page_token), 0)
        page = found[begin : begin + size]
        more = begin + size < len(found)
        return ListTasksResponse(tasks=page, total_size=len(found), page_size=size, next_page_token=page[-1].id if more and page else "")

    async def _all(self, owner: Owner) -> Sequence[Task]:
        read: builtins.list[Task] = []
        after = ""
        while len(read) < _MOST_READ:
            page = await _asked(self._tasks.list(owner, limit=_PAGE, after=after))
            read += [_task(stored) for _, stored in page]
            if len(page) < _PAGE:
                break
            after = page[-1][0]
        return read

    async def delete(self, task_id: str, context: ServerCallContext) -> None:
        """Forget a task. Raises A2AError where the store is lost."""
        self._written.pop(task_id, None)
        await _asked(self._tasks.delete(owner_of(context), task_id))


class _Version(TaskVersion):
    """A version that still says what the store counts; the SDK's own only compares."""

    __slots__ = ("number",)

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def _number(version: TaskVersion) -> int:
    return version.number if isinstance(version, _Version) else 0


def _task(stored: Stored) -> Task:
    task = Task()
    task.ParseFromString(stored.document)
    return task


def _matches(task: Task, params: ListTasksRequest) -> bool:
    if params.context_id and task.context_id != params.context_id:
        return False
    if params.status and task.status.state != params.status:
        return False
    since = params.status_timestamp_after.ToNanoseconds() if params.HasField("status_timestamp_after") else 0
    return bool(task.status.timestamp.ToNanoseconds() >= since)


async def _asked(question: Awaitable[T]) -> T:
    try:
        return await question
    except StateError:
        raise as_error(unavailable("The agent cannot reach its tasks; try again.")) from None
