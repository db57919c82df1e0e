"""An OpenAI-compatible server on loopback that does what the prompt says."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

_USAGE: Final = {"prompt_tokens": 11, "completion_tokens": 5}
_PIECES: Final = ("Hello", " from", " upstream")
_REFUSALS: Final = {
    "rate limit": (429, "retry-after: 7\r\n"),
    "broken": (500, ""),
    "overloaded": (503, "retry-after: 9\r\n"),
    "key": (401, ""),
}


@dataclass(slots=True)
class FakeOpenAI:
    """Answers chat completions. `asked` holds every question, `left` is set when a caller leaves a slow answer."""

    port: int = 0
    asked: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    left: threading.Event = field(default_factory=threading.Event)

    @property
    def base_url(self) -> str:
        """What an adapter is configured with."""
        return f"http://127.0.0.1:{self.port}/v1"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection: questions are answered until the caller closes it."""
        try:
            while await self._exchange(reader, writer):
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
        question = json.loads(await reader.readexactly(int(headers["content-length"])))
        self.asked.append(question)
        self.headers.append({**headers, ":line": head[0]})
        prompt = question["messages"][-1]["content"]
        if prompt == "slow":
            await self._wait_until_left(reader)
            return False
        if prompt == "hang up":
            return False
        writer.write(_stream(prompt) if question.get("stream") and prompt not in _REFUSALS else _whole(prompt))
        return not question.get("stream")

    async def _wait_until_left(self, reader: asyncio.StreamReader) -> None:
        await reader.read(1)
        self.left.set()


_QUOTA: Final = "x-ratelimit-limit-tokens: 1000\r\nx-ratelimit-remaining-tokens: 700\r\n"


def _whole(prompt: str) -> bytes:
    if prompt in _REFUSALS:
        status, extra = _REFUSALS[prompt]
        return _response(status, json.dumps({"error": {"message": "no", "code": None}}).encode(), extra)
    if prompt == "malformed":
        return _response(200, b"<html>welcome</html>")
    document = {"choices": [{"message": {"content": "".join(_PIECES)}, "finish_reason": "stop"}], "usage": _USAGE}
    return _response(200, json.dumps(document).encode())


def _response(status: int, body: bytes, extra: str = "") -> bytes:
    return f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\n{_QUOTA}{extra}content-length: {len(body)}\r\n\r\n".encode() + body


def _stream(prompt: str) -> bytes:
    events: list[object] = [{"choices": [{"delta": {"content": piece}}]} for piece in _PIECES]
    events.append({"error": {"message": "lost it"}} if prompt == "break off" else {"choices": [], "usage": _USAGE})
    lines = "".join(f"data: {json.dumps(event)}\n\n" for event in events) + "data: [DONE]\n\n"
    return f"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n{_QUOTA}connection: close\r\n\r\n{lines}".encode()


@contextmanager
def fake_openai() -> Iterator[FakeOpenAI]:
    """The server, running in a thread of its own until the block ends."""
    fake, loop, ready = FakeOpenAI(), asyncio.new_event_loop(), threading.Event()
    stop = asyncio.Event()

    async def main() -> None:
        async with await asyncio.start_server(fake.serve, "127.0.0.1", 0) as server:
            fake.port = server.sockets[0].getsockname()[1]
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=lambda: _run(loop, main()), daemon=True)
    thread.start()
    ready.wait(5)
    try:
        yield fake
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(5)


def _run(loop: asyncio.AbstractEventLoop, main: Any) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_until_complete(main)
        tasks = asyncio.all_tasks(loop)
        for task in tasks:
            task.cancel()
        loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
    finally:
        loop.close()
