from __future__ import annotations

import asyncio
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage_obs.conventions import ErrorType, Outcome
from sage_obs.integrations.outcome import MAX_BODY_BYTES, Ending, error_in_body, judge


@pytest.mark.parametrize(
    ("ending", "outcome", "error_type"),
    [
        (Ending(200, complete=True), "success", None),
        (Ending(302, complete=True), "success", None),
        (Ending(404, complete=True), "client_error", "invalid_request"),
        (Ending(401, complete=True), "client_error", "auth"),
        (Ending(408, complete=True, declared=ErrorType.TIMEOUT), "client_error", "timeout"),
        (Ending(429, complete=True), "rejected", "rate_limited"),
        (Ending(499, complete=True), "cancelled", "cancelled"),
        (Ending(500, complete=True), "server_error", "server_error"),
        (Ending(502, complete=True, declared=ErrorType.AUTH), "server_error", "auth"),
        (Ending(503, complete=True), "server_error", "unavailable"),
        (Ending(503, complete=True, declared=ErrorType.QUEUE_FULL), "rejected", "queue_full"),
        (Ending(504, complete=True), "server_error", "timeout"),
        (Ending(200, complete=True, declared=ErrorType.TIMEOUT), "server_error", "timeout"),
        (Ending(200, complete=True, declared=ErrorType.INVALID_REQUEST), "client_error", "invalid_request"),
        (Ending(200, complete=True, declared=ErrorType.RATE_LIMITED), "rejected", "rate_limited"),
        (Ending(200, complete=True, in_body=ErrorType.SERVER_ERROR), "server_error", "server_error"),
        (Ending(200, complete=True, declared=ErrorType.TIMEOUT, in_body=ErrorType.INVALID_REQUEST), "server_error", "timeout"),
        (Ending(0, complete=False), "server_error", "internal"),
        (Ending(0, complete=False, declared=ErrorType.CANCELLED), "cancelled", "cancelled"),
        (Ending(200, complete=False), "server_error", "internal"),
        (Ending(404, complete=False), "client_error", "invalid_request"),
        (Ending(0, complete=False, gone=True), "cancelled", "cancelled"),
        (Ending(200, complete=False, gone=True, raised=OSError()), "cancelled", "cancelled"),
        (Ending(200, complete=True, gone=True), "success", None),
        (Ending(0, complete=False, raised=ValueError()), "server_error", "internal"),
        (Ending(200, complete=False, raised=TimeoutError()), "server_error", "timeout"),
        (Ending(0, complete=False, raised=asyncio.CancelledError()), "cancelled", "cancelled"),
        (Ending(0, complete=False, raised=ValueError(), declared=ErrorType.TOOL_ERROR), "server_error", "tool_error"),
        (Ending(200, complete=True, raised=ValueError()), "success", None),
    ],
    ids=repr,
)
def test_an_ending_is_judged(ending: Ending, outcome: str, error_type: str | None) -> None:
    """The status says whose fault it was, the type what it was, and a caller who left cancelled."""
    assert judge(ending) == (outcome, error_type)


@given(
    st.integers(0, 599),
    st.booleans(),
    st.booleans(),
    st.sampled_from([None, ValueError(), TimeoutError()]),
    st.sampled_from([None, *ErrorType]),
    st.sampled_from([None, *ErrorType]),
)
def test_an_error_type_is_there_exactly_where_it_was_no_success(
    status: int,
    complete: bool,  # noqa: FBT001 - drawn
    gone: bool,  # noqa: FBT001 - drawn
    raised: Exception | None,
    declared: ErrorType | None,
    in_body: ErrorType | None,
) -> None:
    """Whatever is known, success has no kind of error and everything else has one."""
    outcome, kind = judge(Ending(status, complete, gone, raised, declared, in_body))
    assert (outcome is Outcome.SUCCESS) == (kind is None)


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ({"result": 1}, None),
        ({"error": None}, None),
        ({"result": {"error": "inner"}}, None),
        ([{"error": 1}], None),
        ({"error": "broken"}, "server_error"),
        ({"error": {}}, None),
        ({"error": False}, None),
        ({"error": ""}, None),
        ({"error": True}, "server_error"),
        ({"error": {"type": "timeout"}}, "timeout"),
        ({"error": {"error_type": "rate_limited"}}, "rate_limited"),
        ({"error": {"type": "about:blank"}}, "server_error"),
        ({"error": {"type": ["timeout"]}}, "server_error"),
        ({"jsonrpc": "2.0", "error": {"code": -32700}}, "invalid_request"),
        ({"jsonrpc": "2.0", "error": {"code": -32600}}, "invalid_request"),
        ({"jsonrpc": "2.0", "error": {"code": -32603}}, "server_error"),
        ({"jsonrpc": "2.0", "error": {"code": -32000}}, "server_error"),
        ({"jsonrpc": "2.0", "error": {"code": "-32600"}}, "server_error"),
    ],
    ids=json.dumps,
)
def test_an_error_inside_a_200_is_found(body: object, kind: str | None) -> None:
    """Only a top-level `error` that is not empty counts; JSON-RPC codes say whose it is, the taxonomy which."""
    assert error_in_body(json.dumps(body).encode()) == kind


@given(st.binary(max_size=200))
def test_no_body_makes_the_reader_raise(body: bytes) -> None:
    """Bytes that are not JSON, with the word or without, are no error."""
    assert error_in_body(b'"error"' + body) is None


def test_a_long_body_is_not_parsed() -> None:
    """Past 64 KiB the answer is taken at its status."""
    assert error_in_body(b'{"error": 1, "x": "' + b"x" * MAX_BODY_BYTES + b'"}') is None
