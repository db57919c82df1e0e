"""What the adapters to providers over HTTP share: the connection, the stream of events, and failures below their formats."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final, Protocol

import httpx

from sage_agent.llm.providers.base import Completion, Delta, Prompt
from sage_agent.llm.providers.failures import refused, unreachable
from sage_agent.llm.providers.reading import Document, read_document
from sage_agent.llm.quota import show_quota

_CONNECT_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True)
class Question:
    """A request to a provider: its path, which follows the base URL, and its JSON body."""

    path: str
    body: Document


class Wire(Protocol):
    """How one kind of provider is asked and answers. It holds no state and touches no connection."""

    @property
    def name(self) -> str:
        """What metrics know the provider as; the GenAI conventions' word where they have one."""

    def headers(self, api_key: str) -> dict[str, str]:
        """The headers of every request."""

    def question(self, model: str, prompt: Prompt, *, stream: bool) -> Question:
        """The request that asks the model."""

    def completion(self, document: Document) -> Completion:
        """The whole answer. Raises ProviderError where it is none."""

    def deltas(self, events: AsyncIterator[bytes]) -> AsyncGenerator[Delta, None]:
        """The pieces of an answer out of the data of its events. Raises ProviderError for one that is cut off."""


class HttpProvider:
    """Implements `Provider` for one key. Deadlines are the caller's: a cancelled call closes its connection.

    `client` may be shared; whoever closes one of its providers closes it.
    """

    def __init__(self, wire: Wire, client: httpx.AsyncClient, *, model: str, base_url: str, api_key: str) -> None:
        self.name = wire.name
        self.model = model
        self._wire = wire
        self._client = client
        self._base_url = base_url
        self._headers = wire.headers(api_key)

    def with_key(self, api_key: str) -> HttpProvider:
        """The same over the same connections, with another key."""
        return HttpProvider(self._wire, self._client, model=self.model, base_url=self._base_url, api_key=api_key)

    async def complete(self, prompt: Prompt) -> Completion:
        """Ask for the whole answer."""
        question = self._wire.question(self.model, prompt, stream=False)
        try:
            response = await self._client.post(self._base_url + question.path, json=question.body, headers=self._headers)
        except httpx.HTTPError as exc:
            raise unreachable(exc) from exc
        show_quota(self.name, response.headers)
        if response.status_code != httpx.codes.OK:
            raise refused(response)
        return self._wire.completion(read_document(response.content))

    async def stream(self, prompt: Prompt) -> AsyncGenerator[Delta, None]:
        """Ask for the answer piece by piece."""
        question = self._wire.question(self.model, prompt, stream=True)
        asked = self._client.stream("POST", self._base_url + question.path, json=question.body, headers=self._headers)
        try:
            async with asked as response:
                show_quota(self.name, response.headers)
                if response.status_code != httpx.codes.OK:
                    await response.aread()
                    raise refused(response)
                async with aclosing(read_events(response.aiter_bytes())) as events, aclosing(self._wire.deltas(events)) as deltas:
                    async for delta in deltas:
                        yield delta
        except httpx.HTTPError as exc:
            raise unreachable(exc) from exc

    async def close(self) -> None:
        """Close every connection."""
        await self._client.aclose()


def open_client(*, connections: int, transport: httpx.AsyncBaseTransport | None = None) -> httpx.AsyncClient:
    """A client with as many connections at most."""
    return httpx.AsyncClient(
        timeout=httpx.Timeout(None, connect=_CONNECT_SECONDS),
        limits=httpx.Limits(max_connections=connections, max_keepalive_connections=connections),
        transport=transport,
    )


async def read_events(chunks: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    """The data of each server-sent event (WHATWG HTML, 9.2.6), of those that have any; an event ends at an empty line or at the end."""
    data: list[bytes] = []
    async with aclosing(_lines(chunks)) as lines:
        async for line in lines:
            if line.startswith(b"data:"):
                data.append(line.removeprefix(b"data:").strip())
            elif not line:
                if any(data):
                    yield b"\n".join(data)
                data = []
    if any(data):
        yield b"\n".join(data)


async def _lines(chunks: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    """Split at line feeds only: to `str.splitlines` characters are line ends that may stand in JSON as they are, such as U+2028."""
    rest = b""
    async for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            yield line.removesuffix(b"\r")
    if rest:
        yield rest
