"""Messages between A2A's types and the runtime's own."""

from __future__ import annotations

import time

import orjson
from a2a.types.a2a_pb2 import Artifact, Role, Task, TaskState, TaskStatus
from a2a.types.a2a_pb2 import Message as A2aMessage
from a2a.types.a2a_pb2 import Part as A2aPart
from google.protobuf.json_format import MessageToDict
from google.protobuf.timestamp_pb2 import Timestamp

from sage_agent.messages import DataPart, FilePart, Message, Part, Reply, TextPart
from sage_agent.problems import invalid


def as_message(message: A2aMessage) -> Message:
    """What a caller sent. Raises Problem (400) for a message without a part."""
    if not message.parts:
        raise invalid("`parts` must be a list with at least one part.")
    role = "agent" if message.role == Role.ROLE_AGENT else "user"
    parts = tuple(_part(part) for part in message.parts)
    return Message(message_id=message.message_id, context_id=message.context_id, task_id=message.task_id, role=role, parts=parts)


def _part(part: A2aPart) -> Part:
    match part.WhichOneof("content"):
        case "text":
            return TextPart(part.text)
        case "data":
            return DataPart(orjson.dumps(MessageToDict(part.data)).decode())
        case _:
            return FilePart(part.filename[:80])


def artifact_of(reply: Reply, artifact_id: str) -> Artifact:
    """The answer as a task's artifact, with the model and its counts as metadata."""
    artifact = Artifact(artifact_id=artifact_id, name="answer", parts=[A2aPart(text=reply.text)])
    artifact.metadata.update(reply.metadata())
    return artifact


def new_task(task_id: str, context_id: str, state: TaskState, *, asked: A2aMessage, artifact: Artifact | None = None) -> Task:
    """A task as it begins, or, with its artifact, as it ends."""
    artifacts = [] if artifact is None else [artifact]
    return Task(id=task_id, context_id=context_id, status=status(state), history=[asked], artifacts=artifacts)


def status(state: TaskState) -> TaskStatus:
    """A state reached now."""
    return TaskStatus(state=state, timestamp=Timestamp(seconds=int(now := time.time()), nanos=int(now % 1 * 1e9)))
