"""Any server that speaks OpenAI's chat completions: OpenAI itself, vLLM, llama.cpp, Ollama, gateways."""

from __future__ import annotations

import email.utils
import json
import time
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any, Final

import httpx
import orjson

from sage_agent.config import LlmConfig
from sage_agent.providers.base import Completion, Delta, Prompt, ProviderError, Usage
from sage_obs.conventions import ErrorType

_CONNECT_SECONDS: Final = 5.0
_LONGEST_RETRY_AFTER: Final = 3600
_BY_STATUS: Final = {
    401: ErrorType.AUTH,
    403: ErrorType.AUTH,
    408: ErrorType.TIMEOUT,
    429: ErrorType.RATE_LIMITED,
    503: ErrorType.UNAVAILABLE,
    504: ErrorType.TIMEOUT,
}
_BY_CODE: Final = {"context_length_exceeded": ErrorType.CONTEXT_LENGTH, "content_filter": ErrorType.CONTENT_FILTER}


class OpenAIProvider:
    """Implements `Provider` over HTTP. Deadlines are the caller's: a cancelled call closes its connection."""

    name: Final = "openai"

    def __init__(self, config: LlmConfig, *, connections: int, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self.model = config.model
        self._url = f"{config.base_url}/chat/completions"
        headers = {"authorization": f"Bearer {config.api_key}"} if config.api_key else {}
        self._client = httpx.AsyncClient(
            headers=headers,
            timeout=httpx.Timeout(None, connect=_CONNECT_SECONDS),
            limits=httpx.Limits(max_connections=connections, max_keepalive_connections=connections),
            transport=transport,
        )

    async def complete(self, prompt: Prompt) -> Completion:
        """Ask for the whole answer."""
        try:
            response = await self._client.post(self._url, json=self._question(prompt))
        except httpx.HTTPError as exc:
            raise _unreachable(exc) from exc
        if response.status_code != httpx.codes.OK:
            raise _refused(response)
        return read_completion(response.content)

    async def stream(self, prompt: Prompt) -> AsyncGenerator[Delta, None]:
        """Ask for the answer piece by piece, with its usage at the end."""
        question = {**self._question(prompt), "stream": True, "stream_options": {"include_usage": True}}
        try:
            async with self._client.stream("POST", self._url, json=question) as response:
                if response.status_code != httpx.codes.OK:
                    await response.aread()
                    raise _refused(response)
                async for delta in _deltas(response):
                    yield delta
        except httpx.HTTPError as exc:
            raise _unreachable(exc) from exc

    async def close(self) -> None:
        """Close every connection."""
        await self._client.aclose()

    def _question(self, prompt: Prompt) -> dict[str, object]:
        return {"model": self.model, "messages": [{"role": "user", "content": prompt.text}], "max_tokens": prompt.max_tokens}


def read_completion(body: bytes) -> Completion:
    """Read a chat completion. Raises ProviderError where it is not one."""
    document = _object(body)
    choice = _choice(document)
    message = choice.get("message")
    text = message.get("content") if isinstance(message, dict) else None
    if not isinstance(text, str):
        raise _malformed("it holds no text")
    return Completion(text, _usage(document))


async def _deltas(response: httpx.Response) -> AsyncIterator[Delta]:
    """The pieces of a server-sent event stream; it must end with `[DONE]`, or the answer was cut off."""
    async for line in response.aiter_lines():
        data = line.removeprefix("data:").strip() if line.startswith("data:") else ""
        if data == "[DONE]":
            return
        if data:
            yield _delta(data.encode())
    raise _malformed("the stream ended before it was done")


def _delta(data: bytes) -> Delta:
    document = _object(data)
    if isinstance(document.get("error"), dict):
        raise ProviderError(ErrorType.SERVER_ERROR, "the provider failed in the middle of its answer")
    if not document.get("choices"):
        return Delta("", _usage(document))
    piece = _choice(document).get("delta")
    text = piece.get("content") if isinstance(piece, dict) else None
    return Delta(text if isinstance(text, str) else "", _usage(document))


def _object(body: bytes) -> dict[str, Any]:
    try:
        document = orjson.loads(body)
    except json.JSONDecodeError:
        raise _malformed("it is not JSON") from None
    if not isinstance(document, dict):
        raise _malformed("it is not a JSON object")
    return document


def _choice(document: dict[str, Any]) -> dict[str, Any]:
    choices = document.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        raise _malformed("it holds no choices")
    if choices[0].get("finish_reason") == "content_filter":
        raise ProviderError(ErrorType.CONTENT_FILTER, "the provider's content filter stopped the answer")
    return choices[0]


def _usage(document: dict[str, Any]) -> Usage | None:
    usage = document.get("usage")
    if not isinstance(usage, dict):
        return None
    counts = [usage.get("prompt_tokens"), usage.get("completion_tokens", 0)]
    if not all(isinstance(count, int) and count >= 0 for count in counts):
        return None
    return Usage(*counts)


def _malformed(reason: str) -> ProviderError:
    return ProviderError(ErrorType.SERVER_ERROR, f"the provider's answer cannot be read: {reason}")


def _unreachable(exc: httpx.HTTPError) -> ProviderError:
    error_type = ErrorType.TIMEOUT if isinstance(exc, httpx.TimeoutException) else ErrorType.UNAVAILABLE
    return ProviderError(error_type, f"the provider cannot be reached ({type(exc).__name__})")


def _refused(response: httpx.Response) -> ProviderError:
    """What an answer other than 200 means. Its body may name the reason; its text may hold secrets and is not repeated."""
    status = response.status_code
    otherwise = ErrorType.SERVER_ERROR if status >= httpx.codes.INTERNAL_SERVER_ERROR else ErrorType.INVALID_REQUEST
    error_type = _BY_CODE.get(_error_code(response.content), _BY_STATUS.get(status, otherwise))
    return ProviderError(error_type, f"the provider answered {status}", retry_after=read_retry_after(response.headers.get("retry-after")))


def _error_code(body: bytes) -> str:
    try:
        error = orjson.loads(body)["error"]
        return str(error["code"])
    except (json.JSONDecodeError, KeyError, TypeError, IndexError):
        return ""


def read_retry_after(value: str | None, *, now: float | None = None) -> int | None:
    """A Retry-After header (RFC 9110, 10.2.3: seconds or a date) in whole seconds, at most an hour; None for none or nonsense."""
    if value is None:
        return None
    text = value.strip()
    if text.isascii() and text.isdigit():
        return min(int(text[:9]), _LONGEST_RETRY_AFTER)
    try:
        moment = email.utils.parsedate_to_datetime(text).timestamp()
    except (ValueError, OverflowError):
        return None
    return max(0, min(round(moment - (time.time() if now is None else now)), _LONGEST_RETRY_AFTER))
