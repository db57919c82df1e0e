"""A2A as the official client speaks it, 1.0 and 0.3, with real agents on loopback."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from a2a.client import A2ACardResolver, Client, ClientConfig, ClientFactory
from a2a.types.a2a_pb2 import (
    AgentCard,
    CancelTaskRequest,
    GetTaskRequest,
    Message,
    Part,
    Role,
    SendMessageConfiguration,
    SendMessageRequest,
    StreamResponse,
    Task,
    TaskState,
)
from a2a.utils.errors import A2AError, TaskNotCancelableError, TaskNotFoundError

from tests.support.agents import BODY, RunningAgent, running_agent

VERSIONS = ("1.0", "0.3")
_SLOW = {"SAGE_LLM_SCRIPTED_LATENCY": "20s"}


@asynccontextmanager
async def _client(agent: RunningAgent, version: str = "1.0", *, streaming: bool = False, binding: str = "JSONRPC") -> AsyncIterator[Client]:
    """The official client, which knows the agent by its card as if it spoke one version and binding only."""
    async with httpx.AsyncClient(timeout=30) as http:
        card: AgentCard = await A2ACardResolver(http, agent.url).get_agent_card()
        kept = [one for one in card.supported_interfaces if (one.protocol_version, one.protocol_binding) == (version, binding)]
        del card.supported_interfaces[:]
        card.supported_interfaces.extend(kept)
        config = ClientConfig(httpx_client=http, streaming=streaming, supported_protocol_bindings=[binding])
        yield ClientFactory(config).create(card)


def _question(text: str = "hello there", *, immediate: bool = False) -> SendMessageRequest:
    message = Message(message_id=str(uuid.uuid4()), role=Role.ROLE_USER, parts=[Part(text=text)])
    return SendMessageRequest(message=message, configuration=SendMessageConfiguration(return_immediately=immediate))


async def _answers(client: Client, question: SendMessageRequest) -> list[StreamResponse]:
    return [event async for event in client.send_message(question)]


async def _task(client: Client, question: SendMessageRequest) -> Task:
    return (await _answers(client, question))[0].task


def _text(task: Task) -> str:
    return "".join(part.text for artifact in task.artifacts for part in artifact.parts)


def _counted(agent: RunningAgent, operation: str, outcome: str) -> float:
    sample = f'sage_agent_requests_total{{agent_id="agent-001",operation="{operation}",outcome="{outcome}",protocol="a2a"}} '
    lines = httpx.get(f"{agent.ops_url}/metrics").text.splitlines()
    return next((float(line.removeprefix(sample)) for line in lines if line.startswith(sample)), 0.0)


def _refused(kind: type[A2AError], call: Callable[[], Awaitable[object]]) -> Awaitable[None]:
    async def check() -> None:
        with pytest.raises(kind):
            await call()

    return check()


@pytest.mark.parametrize("binding", ["JSONRPC", "HTTP+JSON"])
@pytest.mark.parametrize("version", VERSIONS)
def test_the_official_client_sends_streams_and_reads_the_task(tmp_path: Path, version: str, binding: str) -> None:
    """An answer is a completed task with an artifact; streamed, its pieces add up to the same; both can be read afterwards."""

    async def talk(agent: RunningAgent) -> None:
        async with _client(agent, version, binding=binding) as client:
            task = await _task(client, _question())
            assert task.status.state == TaskState.TASK_STATE_COMPLETED
            assert "you sent 2 words" in _text(task)
            assert _text(await client.get_task(GetTaskRequest(id=task.id))) == _text(task)
        async with _client(agent, version, streaming=True, binding=binding) as client:
            events = await _answers(client, _question())
            pieces = [part.text for event in events for part in event.artifact_update.artifact.parts]
            assert len(pieces) > 3
            assert "".join(pieces) == _text(task)
            assert events[-1].status_update.status.state == TaskState.TASK_STATE_COMPLETED
            kept = await client.get_task(GetTaskRequest(id=events[0].task.id))
            assert _text(kept) == _text(task)
            assert kept.history[0].parts[0].text == "hello there"

    with running_agent(tmp_path) as agent:
        asyncio.run(talk(agent))


@pytest.mark.parametrize("version", VERSIONS)
def test_a_task_that_runs_is_cancelled_and_one_that_has_ended_is_not(tmp_path: Path, version: str) -> None:
    """Cancelling ends the work long before the model would have answered; a second time, and for a task nobody has, it is an error."""

    async def talk(agent: RunningAgent) -> None:
        async with _client(agent, version) as client:
            task = await _task(client, _question(immediate=True))
            assert task.status.state == TaskState.TASK_STATE_WORKING
            async with asyncio.timeout(5):
                cancelled = await client.cancel_task(CancelTaskRequest(id=task.id))
            assert cancelled.status.state == TaskState.TASK_STATE_CANCELED
            await _refused(TaskNotCancelableError, lambda: client.cancel_task(CancelTaskRequest(id=task.id)))
            await _refused(TaskNotFoundError, lambda: client.cancel_task(CancelTaskRequest(id="nobodys")))
            await _refused(TaskNotFoundError, lambda: client.get_task(GetTaskRequest(id="nobodys")))

    with running_agent(tmp_path, environ=_SLOW) as agent:
        asyncio.run(talk(agent))
        method = "GetTask" if version == "1.0" else "tasks/get"
        assert _counted(agent, method, "client_error") == 1.0
        assert not [line for line in agent.lines() if line["level"] == "error"]


def test_another_replica_reads_the_task_and_cancels_it(tmp_path: Path) -> None:
    """Two agents share a store: what the one works on, the other reads and cancels, and the one stops at its next piece."""
    environ = {"SAGE_STORAGE_PATH": str(tmp_path / "state.db"), "SAGE_LLM_SCRIPTED_LATENCY": "30s"}

    async def talk(first: RunningAgent, second: RunningAgent) -> None:
        async with _client(first, streaming=True) as here, _client(second) as there:
            stream = here.send_message(_question())
            task_id = (await anext(aiter(stream))).task.id
            assert (await there.get_task(GetTaskRequest(id=task_id))).status.state == TaskState.TASK_STATE_WORKING
            assert (await there.cancel_task(CancelTaskRequest(id=task_id))).status.state == TaskState.TASK_STATE_CANCELED
            async with asyncio.timeout(15):
                rest = [event async for event in stream]
            assert rest[-1].task.status.state == TaskState.TASK_STATE_CANCELED
            assert (await here.get_task(GetTaskRequest(id=task_id))).status.state == TaskState.TASK_STATE_CANCELED

    with running_agent(tmp_path, name="first", environ=environ) as first, running_agent(tmp_path, name="second", environ=environ) as second:
        asyncio.run(talk(first, second))


_WRONG: tuple[tuple[bytes, dict[str, str], int, object], ...] = (
    (b"{", {}, -32700, None),
    (b"[]", {}, -32600, None),
    (b'{"jsonrpc": "2.0", "id": 7, "method": "nope"}', {}, -32601, 7),
    (b'{"jsonrpc": "1.0", "id": 7, "method": "message/send"}', {}, -32600, 7),
    (
        b'{"jsonrpc": "2.0", "id": 7, "method": "SendMessage", "params": {"message": {"role": "ROLE_USER"}}}',
        {"a2a-version": "1.0"},
        -32602,
        7,
    ),
    (b'{"jsonrpc": "2.0", "id": "x", "method": "message/send", "params": {}}', {"a2a-version": "1.0"}, -32009, "x"),
    (b'{"jsonrpc": "2.0", "id": 7, "method": "SendMessage", "params": ' + b"[" * 500 + b"]" * 500 + b"}", {}, -32600, None),
    (b'{"jsonrpc": "2.0", "id": 7, "method": "ListTasks", "params": {}}', {"a2a-version": "1.0"}, -32004, 7),
)


def test_what_is_wrong_is_a_json_rpc_error_and_the_callers(tmp_path: Path) -> None:
    """The answer is JSON-RPC with the request's id and counts as a client error, without a traceback in the log."""
    with running_agent(tmp_path) as agent:
        for body, headers, code, number in _WRONG:
            answer = httpx.post(f"{agent.url}/a2a", content=body, headers={"content-type": "application/json", **headers}).json()
            assert (answer["error"]["code"], answer["id"]) == (code, number), body
        lines = [line for line in httpx.get(f"{agent.ops_url}/metrics").text.splitlines() if "agent_requests_total" in line]
        wrong = [float(line.rsplit(" ", 1)[1]) for line in lines if 'outcome="client_error",protocol="a2a"' in line]
        assert sum(wrong) == len(_WRONG)
        assert not [line for line in agent.lines() if line["level"] in {"warning", "error"}]


def test_a_full_queue_refuses_a2a_as_it_refuses_everybody(tmp_path: Path) -> None:
    """Admission holds: what finds no place is told so with the type and when to come back, and counts as rejected."""
    environ = {**_SLOW, "SAGE_MAX_CONCURRENT": "1", "SAGE_QUEUE_SIZE": "0"}

    async def talk(agent: RunningAgent) -> dict[str, Any]:
        async with _client(agent) as client, httpx.AsyncClient() as http:
            task = await _task(client, _question(immediate=True))
            body = {"jsonrpc": "2.0", "id": 1, "method": "message/send"}
            message = {"messageId": "m", "role": "user", "parts": [{"kind": "text", "text": "hi"}]}
            answer = await http.post(f"{agent.url}/a2a", json={**body, "params": {"message": message}})
            await client.cancel_task(CancelTaskRequest(id=task.id))
            return dict(answer.json())

    with running_agent(tmp_path, environ=environ) as agent:
        answer = asyncio.run(talk(agent))
        assert answer["error"]["message"] == "The agent is at capacity; try again."
        assert "queue_full" in str(answer["error"]["data"])
        assert _counted(agent, "message/send", "rejected") == 1.0


def test_a_caller_that_leaves_takes_the_call_to_the_model_along(tmp_path: Path) -> None:
    """Nobody waits any more: the slot is free again at once."""
    environ = {**_SLOW, "SAGE_MAX_CONCURRENT": "1", "SAGE_QUEUE_SIZE": "0"}

    async def talk(agent: RunningAgent) -> None:
        async with _client(agent) as client:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.5):
                    await _task(client, _question())
        async with httpx.AsyncClient(timeout=0.5, transport=httpx.AsyncHTTPTransport()) as http:
            for _ in range(100):
                try:
                    await http.post(f"{agent.url}/v1/messages", json=BODY)
                except httpx.ReadTimeout:
                    return
                await asyncio.sleep(0.05)
        raise AssertionError("the slot is still taken")

    with running_agent(tmp_path, environ=environ) as agent:
        asyncio.run(talk(agent))


def test_the_card_says_where_the_agent_is_asked_or_what_was_set(tmp_path: Path) -> None:
    """Both paths of the card answer; `a2a.url` beats the address it was asked under."""
    with running_agent(tmp_path, environ={"SAGE_AGENT_ID": "clerk"}) as agent:
        old, new = (httpx.get(agent.url + path).json() for path in ("/.well-known/agent.json", "/.well-known/agent-card.json"))
        assert old == new
        assert (new["name"], new["supportedInterfaces"][0]["url"]) == ("clerk", f"{agent.url}/a2a")
        assert httpx.post(f"{agent.url}/.well-known/agent-card.json").status_code == 405
    with running_agent(tmp_path, name="set", environ={"SAGE_A2A_URL": "https://agents.example/clerk"}) as agent:
        card = httpx.get(f"{agent.url}/.well-known/agent-card.json").json()
        assert card["supportedInterfaces"][0]["url"] == "https://agents.example/clerk/a2a"


def test_switched_off_there_is_nothing_at_its_paths(tmp_path: Path) -> None:
    """`a2a.enabled: false` leaves the message paths and nothing else."""
    with running_agent(tmp_path, environ={"SAGE_A2A_ENABLED": "false"}) as agent:
        assert httpx.post(f"{agent.url}/a2a", json={}).status_code == 404
        assert httpx.get(f"{agent.url}/.well-known/agent-card.json").status_code == 404
        assert httpx.post(f"{agent.url}/a2a/v1/messages", json={"parts": [{"kind": "text", "text": "hi"}]}).status_code == 200


def test_a_viewer_reads_its_tenants_tasks_and_does_nothing_else(tmp_path: Path) -> None:
    """By both bindings it sees what others of its tenant have asked, and is refused whatever sends, cancels or follows."""
    names = {"ann": ("acme", "operator"), "eve": ("acme", "viewer"), "max": ("globex", "viewer"), "bob": ("acme", "operator")}
    keys = {name: f"{name}-0123456789abcdef" for name in names}
    entries = [{"id": name, "tenant": tenant, "role": role, "key": keys[name]} for name, (tenant, role) in names.items()]
    environ = {"SAGE_API_KEYS": json.dumps(entries), "SAGE_AUDIT_PATH": str(tmp_path / "audit.jsonl")}
    message = {"messageId": "m1", "role": "ROLE_USER", "parts": [{"text": "hello there"}]}

    with running_agent(tmp_path, environ=environ) as agent, httpx.Client(base_url=agent.url, timeout=30) as http:

        def rpc(name: str, method: str, **params: Any) -> httpx.Response:
            body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
            return http.post("/a2a", json=body, headers={"x-api-key": keys[name], "a2a-version": "1.0"})

        def rest(name: str, method: str, path: str, body: object = None) -> httpx.Response:
            content = None if body is None else json.dumps(body)
            headers = {"x-api-key": keys[name], "a2a-version": "1.0", "content-type": "application/json"}
            return http.request(method, path, content=content, headers=headers)

        task = rpc("ann", "SendMessage", message=message).json()["result"]["task"]
        assert rpc("eve", "GetTask", id=task["id"]).json()["result"]["id"] == task["id"]
        assert [one["id"] for one in rpc("eve", "ListTasks").json()["result"]["tasks"]] == [task["id"]]
        assert rest("eve", "GET", f"/a2a/tasks/{task['id']}").json()["id"] == task["id"]
        assert [one["id"] for one in rest("eve", "GET", "/a2a/tasks").json()["tasks"]] == [task["id"]]
        for name in ("max", "bob"):
            assert rpc(name, "GetTask", id=task["id"]).json()["error"]["code"] == -32001
            assert rpc(name, "ListTasks").json()["result"].get("tasks", []) == []
        refused = [
            rpc("eve", "SendMessage", message=message),
            rpc("eve", "SendStreamingMessage", message=message),
            rpc("eve", "CancelTask", id=task["id"]),
            rpc("eve", "SubscribeToTask", id=task["id"]),
            rpc("eve", "NoSuchMethod"),
            rest("eve", "POST", "/a2a/message:send", {"message": message}),
            rest("eve", "POST", f"/a2a/tasks/{task['id']}:cancel", {}),
            rest("eve", "POST", f"/a2a/tasks/{task['id']}:cancel%0A", {}),
            rest("eve", "GET", f"/a2a/tasks/{task['id']}:subscribe%0A"),
            http.post("/v1/messages", json=BODY, headers={"x-api-key": keys["eve"]}),
        ]
        assert [(one.status_code, one.json()["error"]["type"]) for one in refused] == [(403, "auth")] * len(refused)
    records = map(json.loads, (tmp_path / "audit.jsonl").read_text().splitlines())
    assert [one["outcome"] for one in records if one["event"] == "auth"] == ["not allowed"] * len(refused)
