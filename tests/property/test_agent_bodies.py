"""Whatever is sent to the agent, it answers with JSON and never with a defect."""

from __future__ import annotations

import asyncio
import itertools
import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from sage_agent.flow.config import ConcurrencyConfig
from sage_agent.flow.service import Asking, Service
from sage_agent.llm.config import ScriptedConfig
from sage_agent.llm.providers.scripted import ScriptedProvider
from sage_agent.server.config import ServerConfig
from sage_agent.web.app import App
from sage_agent.web.wire import Event
from tests.support.providers import calls_to

_SCRIPTED = ScriptedConfig(latency=0.0, error_rate=0.0, overhead=0.0, seed=0, unready=False)
_LIMITS = ServerConfig(host="127.0.0.1", port=0, max_body_bytes=4096, drain_timeout=1.0, request_timeout=5.0)
_KEYS = st.sampled_from(["message", "parts", "kind", "text", "data", "file", "role", "messageId", "contextId", "metadata", "name"])
_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["text", "data", "file", "user", "message"]) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_KEYS | st.text(max_size=3), inner, max_size=5),
    max_leaves=20,
)
_BODIES = st.binary(max_size=200) | _VALUES.map(lambda value: json.dumps(value).encode())
_PATHS = st.sampled_from(["/v1/messages", "/a2a/v1/messages", "/sage/message", "/v1/messages/stream"])


async def _exchange(path: str, chunks: list[bytes], headers: list[tuple[bytes, bytes]]) -> tuple[int, bytes]:
    """Send one request to a new application; returns the status and the whole body of the answer."""
    service = Service(calls_to(ScriptedProvider(_SCRIPTED, model="m")), ConcurrencyConfig(1, 1, 1), asking=Asking(max_tokens=20))
    events = [{"type": "http.request", "body": chunk, "more_body": index < len(chunks) - 1} for index, chunk in enumerate(chunks)]
    sent: list[Event] = []

    async def receive() -> Event:
        return events.pop(0) if events else await asyncio.Future[Any]()

    async def send(event: Event) -> None:
        sent.append(event)

    scope = {"type": "http", "method": "POST", "path": path, "headers": headers}
    await App(service, _LIMITS)(scope, receive, send)
    return sent[0]["status"], b"".join(event.get("body", b"") for event in sent[1:])


@given(path=_PATHS, body=_BODIES, cuts=st.lists(st.integers(0, 200), max_size=3))
def test_any_body_is_answered_with_200_or_a_json_400(path: str, body: bytes, cuts: list[int]) -> None:
    """A body of any bytes, in any pieces, is a message or a 400 whose JSON error has a request id; never a 500."""
    edges = [0, *sorted(cuts), max(len(body), *cuts, 0)]
    chunks = [body[start:end] for start, end in itertools.pairwise(edges)]
    status, answer = asyncio.run(_exchange(path, chunks, [(b"content-type", b"application/json")]))
    assert status in {200, 400}
    if status == 400:
        error = json.loads(answer)["error"]
        assert error["type"] == "invalid_request"
        assert error["message"]
        assert error["request_id"]
    else:
        assert b'"role":"agent"' in answer


@given(headers=st.lists(st.tuples(st.sampled_from([b"content-type", b"content-length", b"content-encoding"]), st.binary(max_size=20))))
def test_any_headers_are_answered(headers: list[tuple[bytes, bytes]]) -> None:
    """Headers of any bytes lead to an answer or to a client error, never to a defect."""
    body = b'{"parts": [{"kind": "text", "text": "hi"}]}'
    status, _ = asyncio.run(_exchange("/v1/messages", [body], headers))
    assert status in {200, 413, 415}
