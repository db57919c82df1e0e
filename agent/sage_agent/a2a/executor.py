"""The agent behind A2A: the same service, within the same bounds, as on the lean path."""

from __future__ import annotations

import asyncio
import uuid

from a2a.server.agent_execution import AgentExecutor, RequestContext
from a2a.server.events import EventQueue
from a2a.types.a2a_pb2 import Message as A2aMessage
from a2a.types.a2a_pb2 import Part as A2aPart
from a2a.types.a2a_pb2 import Role, TaskArtifactUpdateEvent, TaskState, TaskStatusUpdateEvent

from sage_agent.a2a.callers import Call, call_of
from sage_agent.a2a.content import artifact_of, as_message, new_task, status
from sage_agent.a2a.failures import as_defect, as_error
from sage_agent.flow.service import Service
from sage_agent.messages import Message, Reply
from sage_agent.problems import Problem


class ServiceExecutor(AgentExecutor):
    """Answers by the service. `timeout` bounds, in seconds, a task whose caller does not wait for it."""

    def __init__(self, service: Service, *, timeout: float) -> None:
        self._service = service
        self._timeout = timeout

    async def execute(self, context: RequestContext, event_queue: EventQueue) -> None:
        """Answer a message. Raises A2AError, after the task, where there is one, was marked as failed."""
        call = call_of(context.call_context)
        call.work = asyncio.current_task()
        work = _Work(self._service, context, event_queue)
        background = context.configuration is not None and context.configuration.return_immediately
        deadline = asyncio.get_running_loop().time() + self._timeout if background else call.deadline
        try:
            message = as_message(work.asked)
            if call.streamed:
                await work.stream(message, call, deadline)
            else:
                await work.answer(message, call, deadline, visible=background)
        except Problem as problem:
            await work.fail(problem.message)
            raise as_error(problem) from None
        except Exception as exc:
            error = as_defect()
            await work.fail(error.message)
            raise error from exc

    async def cancel(self, context: RequestContext, event_queue: EventQueue) -> None:
        """Mark a task as cancelled; the SDK stops the work."""
        await event_queue.enqueue_event(
            TaskStatusUpdateEvent(task_id=context.task_id, context_id=context.context_id, status=status(TaskState.TASK_STATE_CANCELED))
        )


class _Work:
    """One message on its way. A task exists from the start only where somebody can see it: each of its states is a write."""

    def __init__(self, service: Service, context: RequestContext, events: EventQueue) -> None:
        self._service = service
        self._events = events
        self._task_id, self._context_id = context.task_id or "", context.context_id or ""
        self.asked = context.message or A2aMessage()
        self._begun = context.current_task is not None
        self._artifact_id = str(uuid.uuid4())

    async def answer(self, message: Message, call: Call, deadline: float, *, visible: bool) -> None:
        """The whole answer in one piece."""
        if visible:
            await self._begin()
        reply = await self._service.answer(message, caller=call.caller, deadline=deadline)
        artifact = artifact_of(reply, self._artifact_id)
        if not self._begun:
            done = new_task(self._task_id, self._context_id, TaskState.TASK_STATE_COMPLETED, asked=self.asked, artifact=artifact)
            await self._events.enqueue_event(done)
            return
        await self._events.enqueue_event(
            TaskArtifactUpdateEvent(task_id=self._task_id, context_id=self._context_id, artifact=artifact, last_chunk=True)
        )
        await self._status(TaskState.TASK_STATE_COMPLETED)

    async def stream(self, message: Message, call: Call, deadline: float) -> None:
        """The answer as it comes."""
        await self._begin()
        sent = 0

        async def emit(piece: Reply) -> None:
            nonlocal sent
            await self._piece(piece, append=sent > 0)
            sent += 1

        end = await self._service.stream(message, caller=call.caller, deadline=deadline, emit=emit)
        await self._piece(end, append=sent > 0, last=True)
        await self._status(TaskState.TASK_STATE_COMPLETED)

    async def fail(self, why: str) -> None:
        """Mark the task, where there is one, as failed."""
        if self._begun:
            await self._status(TaskState.TASK_STATE_FAILED, why)

    async def _begin(self) -> None:
        if not self._begun:
            task = new_task(self._task_id, self._context_id, TaskState.TASK_STATE_WORKING, asked=self.asked)
            await self._events.enqueue_event(task)
            self._begun = True

    async def _piece(self, piece: Reply, *, append: bool, last: bool = False) -> None:
        artifact = artifact_of(piece, self._artifact_id)
        event = TaskArtifactUpdateEvent(
            task_id=self._task_id, context_id=self._context_id, artifact=artifact, append=append, last_chunk=last
        )
        await self._events.enqueue_event(event)

    async def _status(self, state: TaskState, why: str = "") -> None:
        reached = status(state)
        if why:
            reached.message.CopyFrom(
                A2aMessage(
                    message_id=str(uuid.uuid4()),
                    role=Role.ROLE_AGENT,
                    task_id=self._task_id,
                    context_id=self._context_id,
                    parts=[A2aPart(text=why)],
                )
            )
        await self._events.enqueue_event(TaskStatusUpdateEvent(task_id=self._task_id, context_id=self._context_id, status=reached))
