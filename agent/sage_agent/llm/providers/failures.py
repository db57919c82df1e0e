"""Every way a provider over HTTP can fail, by the fixed taxonomy. What it says of it may hold secrets, and is read but never repeated."""

from __future__ import annotations

import email.utils
import json
import math
import re
import time
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from typing import Any, Final

import httpx
import orjson

from sage_agent.llm.providers.base import ProviderError
from sage_obs.conventions import ErrorType

_LONGEST_RETRY_AFTER: Final = 3600
_DELAY: Final = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)s", re.ASCII)
_BY_STATUS: Final = {
    401: ErrorType.AUTH,
    403: ErrorType.AUTH,
    408: ErrorType.TIMEOUT,
    429: ErrorType.RATE_LIMITED,
    502: ErrorType.UNAVAILABLE,
    503: ErrorType.UNAVAILABLE,
    504: ErrorType.TIMEOUT,
    529: ErrorType.UNAVAILABLE,
}
"""529 is Anthropic's word for overloaded."""
_BEATS_STATUS: Final = {
    "context_length_exceeded": ErrorType.CONTEXT_LENGTH,
    "content_filter": ErrorType.CONTENT_FILTER,
    "content_policy_violation": ErrorType.CONTENT_FILTER,
    "API_KEY_INVALID": ErrorType.AUTH,
}
"""Gemini refuses a wrong key with 400."""
_WITHOUT_STATUS: Final = {
    **_BEATS_STATUS,
    "authentication_error": ErrorType.AUTH,
    "permission_error": ErrorType.AUTH,
    "rate_limit_error": ErrorType.RATE_LIMITED,
    "rate_limit_exceeded": ErrorType.RATE_LIMITED,
    "overloaded_error": ErrorType.UNAVAILABLE,
    "timeout_error": ErrorType.TIMEOUT,
}
"""What an error inside a stream, whose status was 200, calls itself."""
_TOO_LONG: Final = ("prompt is too long", "exceeds the maximum number of tokens", "exceeds the maximum number of input tokens")
"""What Anthropic and Google say of a prompt that does not fit; neither has a code for it."""


def unreachable(exc: httpx.HTTPError) -> ProviderError:
    """No answer, or not all of it, came over the connection."""
    late = isinstance(exc, httpx.TimeoutException) and not isinstance(exc, httpx.ConnectTimeout)
    return ProviderError(ErrorType.TIMEOUT if late else ErrorType.UNAVAILABLE, f"the provider cannot be reached ({type(exc).__name__})")


def malformed(reason: str) -> ProviderError:
    """The answer is none."""
    return ProviderError(ErrorType.SERVER_ERROR, f"the provider's answer cannot be read: {reason}")


def cut_off() -> ProviderError:
    """A stream stopped before it said it was done."""
    return malformed("the stream ended before it was done")


def filtered() -> ProviderError:
    """The provider will not answer this prompt, or not to the end."""
    return ProviderError(ErrorType.CONTENT_FILTER, "the provider's content filter stopped the answer")


def refused(response: httpx.Response) -> ProviderError:
    """What an answer other than 200 means, whose body has been read."""
    status, error = response.status_code, _error(response.content)
    retry_after = read_retry_after(response.headers.get("retry-after"))
    return ProviderError(
        _kind(error, status), f"the provider answered {status}", retry_after=_delay(error) if retry_after is None else retry_after
    )


def failed_midway(error: Mapping[str, Any]) -> ProviderError:
    """What an error means that stands in a stream."""
    words = [_WITHOUT_STATUS[word] for word in _words(error) if word in _WITHOUT_STATUS]
    code = error.get("code")
    kind = words[0] if words else _kind(error, code) if isinstance(code, int) else ErrorType.SERVER_ERROR
    return ProviderError(kind, "the provider failed in the middle of its answer", retry_after=_delay(error))


def _kind(error: Mapping[str, Any], status: int) -> ErrorType:
    for word in _words(error):
        if word in _BEATS_STATUS:
            return _BEATS_STATUS[word]
    if status == HTTPStatus.BAD_REQUEST and any(said in str(error.get("message")) for said in _TOO_LONG):
        return ErrorType.CONTEXT_LENGTH
    otherwise = ErrorType.SERVER_ERROR if status >= HTTPStatus.INTERNAL_SERVER_ERROR else ErrorType.INVALID_REQUEST
    return _BY_STATUS.get(status, otherwise)


def _error(body: bytes) -> Mapping[str, Any]:
    """The `error` that all three kinds of provider put in the body of a refusal."""
    try:
        document = orjson.loads(body)
    except json.JSONDecodeError:
        return {}
    error = document.get("error") if isinstance(document, dict) else None
    return error if isinstance(error, dict) else {}


def _words(error: Mapping[str, Any]) -> Iterator[str]:
    """What an error calls itself, the most precise first."""
    reasons = [detail.get("reason") for detail in _details(error)]
    yield from (word for word in (*reasons, error.get("code"), error.get("type")) if isinstance(word, str))


def _delay(error: Mapping[str, Any]) -> int | None:
    """Gemini's `retryDelay` (google.rpc.RetryInfo), which stands for the header that it does not send."""
    for detail in _details(error):
        if match := _DELAY.fullmatch(str(detail.get("retryDelay"))):
            return min(math.ceil(float(match.group(1))), _LONGEST_RETRY_AFTER)
    return None


def _details(error: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    details = error.get("details")
    return [one for one in details if isinstance(one, dict)] if isinstance(details, list) else []


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
