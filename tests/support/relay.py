"""An agent whose model is another agent: `python -m tests.support.relay NEXT_URL KEY_FILE`, configured by its environment."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path

import httpx

from sage_agent import config, parts, serve
from sage_agent.llm.breaker import Breaker
from sage_agent.llm.config import LlmConfig
from sage_agent.llm.providers.base import Completion, Delta, Prompt
from sage_agent.llm.targets import Target
from sage_agent.security.signer import SignedBy, read_signer


class NextAgent:
    """Implements `Provider` by a signed request to the next agent."""

    name = "scripted"
    model = "next-agent"

    def __init__(self, url: str, key: Path) -> None:
        self._url = url
        self._auth = SignedBy(read_signer(key))
        self._http = httpx.AsyncClient(trust_env=False)

    async def complete(self, prompt: Prompt) -> Completion:
        """Pass on what was asked, and the answer back."""
        body = {"parts": [{"kind": "text", "text": prompt.text}]}
        response = await self._http.post(f"{self._url}/v1/messages", json=body, auth=self._auth)
        return Completion(f"passed on: {response.raise_for_status().json()['parts'][0]['text']}", None, "stop")

    async def stream(self, prompt: Prompt) -> AsyncGenerator[Delta, None]:
        """The answer in one piece."""
        yield Delta((await self.complete(prompt)).text)

    async def close(self) -> None:
        """Let go of the connections."""
        await self._http.aclose()


def main(url: str, key: str) -> None:
    """Serve until told to stop."""

    def open_targets(llm: LlmConfig, *, connections: int) -> Sequence[Target]:
        del connections
        return (Target([NextAgent(url, Path(key))], Breaker("next-agent", llm.breaker)),)

    vars(parts)["open_targets"] = open_targets
    serve.serve(config.load(file=None, environ=os.environ), environ=os.environ)


if __name__ == "__main__":
    main(*sys.argv[1:])
