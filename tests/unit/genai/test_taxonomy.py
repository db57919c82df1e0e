from __future__ import annotations

import asyncio
from typing import ClassVar

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage_obs.conventions import ErrorType, Outcome
from sage_obs.genai.prices import PRICES, price_of
from sage_obs.genai.taxonomy import classify, of_status, outcome_of
from sage_obs.genai.usage import Usage


class RateLimitError(Exception):
    """Named as the client libraries name theirs."""


class CodedError(Exception):
    """Has a code, as OpenAI-compatible clients' exceptions do."""

    code = "context_length_exceeded"
    status_code = 400


class UnhashableCodeError(Exception):
    """Has a code that no dictionary takes."""

    code: ClassVar[list[str]] = ["context_length_exceeded"]
    status_code = 429


class RaisingTimeoutError(Exception):
    """Has properties that raise."""

    @property
    def code(self) -> str:
        """Refuse."""
        raise RuntimeError("no code")

    @property
    def response(self) -> object:
        """Refuse."""
        raise RuntimeError("no response")


class HostileStatus(int):
    """Cannot be compared."""

    def __ge__(self, other: object) -> bool:
        """Refuse."""
        raise RuntimeError("no order")


class HostileError(Exception):
    """Has a status that cannot be compared."""

    status_code = HostileStatus(500)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (UnhashableCodeError(), ErrorType.RATE_LIMITED),
        (RaisingTimeoutError(), ErrorType.TIMEOUT),
        (HostileError(), ErrorType.INTERNAL),
        (TimeoutError(), ErrorType.TIMEOUT),
        (asyncio.CancelledError(), ErrorType.CANCELLED),
        (GeneratorExit(), ErrorType.CANCELLED),
        (type("Cancelled", (BaseException,), {})(), ErrorType.CANCELLED),
        (type("Cancelled", (Exception,), {})(), ErrorType.INTERNAL),
        (type("GraphDrained", (Exception,), {})(), ErrorType.CANCELLED),
        (ConnectionRefusedError(), ErrorType.UNAVAILABLE),
        (httpx.ReadTimeout("slow"), ErrorType.TIMEOUT),
        (httpx.ConnectError("gone"), ErrorType.UNAVAILABLE),
        (RateLimitError(), ErrorType.RATE_LIMITED),
        (CodedError(), ErrorType.CONTEXT_LENGTH),
        (
            httpx.HTTPStatusError("no", request=httpx.Request("GET", "http://x"), response=httpx.Response(401)),
            ErrorType.AUTH,
        ),
        (ValueError(), ErrorType.INTERNAL),
    ],
    ids=lambda one: one.value if isinstance(one, ErrorType) else type(one).__name__,
)
def test_exceptions_are_classified(error: BaseException, kind: ErrorType) -> None:
    """Class, code, status and name each tell, in this order."""
    assert classify(error) is kind


@given(st.integers(400, 599))
def test_every_error_status_has_a_kind(status: int) -> None:
    """A status says whose fault it is, except where its kind is rejection, cancellation, time or absence."""
    kind = of_status(status)
    if kind is ErrorType.INVALID_REQUEST:
        assert status < 500
    if kind is ErrorType.SERVER_ERROR:
        assert status >= 500


@pytest.mark.parametrize("kind", list(ErrorType))
def test_no_kind_of_error_is_a_success(kind: ErrorType) -> None:
    """What is recorded as an error never counts as success."""
    assert outcome_of(kind) is not Outcome.SUCCESS


@pytest.mark.parametrize(
    ("model", "known"),
    [
        ("gpt-4o", "gpt-4o"),
        ("GPT-4o", "gpt-4o"),
        ("gpt-4o-2024-08-06", "gpt-4o"),
        ("gpt-4o-mini", "gpt-4o-mini"),
        ("claude-sonnet-4-5-20250929", "claude-sonnet-4-5"),
        ("gemini-2.5-flash-lite", "gemini-2.5-flash-lite"),
        ("gpt-4o-super", None),
        ("llama", None),
    ],
)
def test_prices_are_found_by_model_and_dated_revision(model: str, known: str | None) -> None:
    """A date at the end is the same model; any other ending is another one."""
    assert price_of("openai", model) == (PRICES[known] if known else None)


def test_the_scripted_provider_is_free_and_not_unknown() -> None:
    """What runs here bills nobody."""
    price = price_of("scripted", "scripted-1")
    assert price is not None
    assert price.cost(Usage(1_000_000, 1_000_000)) == 0
