from __future__ import annotations

import asyncio
import contextvars
import random
import string
from collections.abc import AsyncGenerator, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

import sage_obs
from sage_obs.conventions import ErrorType
from sage_obs.tracing.active import Tracing
from sage_obs.tracing.ambient import ambient
from sage_obs.tracing.context import (
    Parent,
    Request,
    Waiting,
    format_traceparent,
    new_ids,
    parse_traceparent,
    request_var,
    sane_request_id,
)

_HEX = st.text("0123456789abcdef", min_size=32, max_size=32)
TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@given(_HEX, _HEX, st.booleans())
def test_traceparent_round_trips(trace_id: str, span: str, sampled: bool) -> None:  # noqa: FBT001 - drawn
    """What is formatted is parsed back, but for the all-zero ids that the specification forbids."""
    parsed = parse_traceparent(format_traceparent(trace_id, span[:16], sampled=sampled))
    valid = bool(trace_id.strip("0") and span[:16].strip("0"))
    assert parsed == (Parent(trace_id, span[:16], sampled) if valid else None)


@given(st.text(max_size=80))
def test_no_header_makes_the_parser_raise(header: str) -> None:
    """Whatever a caller sends is a parent or nothing."""
    assert parse_traceparent(header) is None or len(parse_traceparent(header).trace_id) == 32  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("header", "valid"),
    [
        (f"00-{TRACE}-{SPAN}-01", True),
        (f" 00-{TRACE}-{SPAN}-01 ", True),
        (f"00-{TRACE}-{SPAN}-01-extra", False),
        (f"cc-{TRACE}-{SPAN}-01-extra", True),
        (f"ff-{TRACE}-{SPAN}-01", False),
        (f"00-{TRACE.upper()}-{SPAN}-01", False),
        (f"00-{'0' * 32}-{SPAN}-01", False),
        (f"00-{TRACE}-{'0' * 16}-01", False),
    ],
)
def test_traceparent_follows_the_specification(header: str, valid: bool) -> None:  # noqa: FBT001 - a table
    """Versions, case, zero ids and trailing parts are judged as W3C Trace Context says."""
    assert (parse_traceparent(header) is not None) is valid


def test_ids_have_the_right_shape() -> None:
    """Trace ids have 32 lower-case hex digits, span ids 16, and request ids are fit for a header."""
    trace_id, span_id, request_id = new_ids()
    assert len(trace_id) == 32
    assert len(span_id) == 16
    assert set(trace_id + span_id) <= set(string.hexdigits.lower())
    assert sane_request_id(request_id) == request_id


def test_ids_are_never_all_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    """W3C Trace Context calls an id of zeros invalid, so not even chance makes one."""
    monkeypatch.setattr("sage_obs.tracing.context._random.getrandbits", lambda _bits: 0)
    trace_id, span_id, _ = new_ids()
    assert int(trace_id, 16)
    assert int(span_id, 16)


@pytest.mark.parametrize("bad", ["", "x" * 129, "a b", "a\nb", "ä", 'a"b', "<script>"])
def test_a_request_id_that_could_do_harm_is_not_taken_over(bad: str) -> None:
    """Only short printable ids are."""
    assert sane_request_id(bad) == ""
    assert sane_request_id("req-123:abc/4") == "req-123:abc/4"


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(1, 20)), max_size=12))
def test_waiting_is_the_union_of_the_waits(spans: list[tuple[int, int]]) -> None:
    """However waits overlap, the total is the number of moments at which at least one was open."""
    now = [0.0]
    waiting = Waiting(lambda: now[0])
    events = sorted(
        [(start, 1) for start, _ in spans] + [(start + length, 0) for start, length in spans], key=lambda one: (one[0], -one[1])
    )
    for at, begins in events:
        now[0] = float(at)
        waiting.begin() if begins else waiting.end()
    covered = {moment for start, length in spans for moment in range(start, start + length)}
    assert waiting.seconds() == len(covered)


def test_a_wait_that_is_still_open_counts() -> None:
    """A request that ends while a task of it still waits has waited until then."""
    now = [1.0]
    waiting = Waiting(lambda: now[0])
    waiting.begin()
    now[0] = 4.0
    assert waiting.seconds() == 3.0


def test_a_root_is_sampled_by_ratio_and_a_child_as_its_caller_decided() -> None:
    """Ratios 0 and 1 are exact, one between is near it, and a caller's decision beats them."""
    assert not any(Tracing(ratio=0.0).sampled(None) for _ in range(1000))
    assert all(Tracing(ratio=1.0).sampled(None) for _ in range(1000))
    assert 150 < sum(Tracing(ratio=0.1).sampled(None) for _ in range(2000)) < 260
    assert Tracing(ratio=0.0).sampled(Parent(TRACE, SPAN, sampled=True))
    assert not Tracing(ratio=1.0).sampled(Parent(TRACE, SPAN, sampled=False))


def test_outside_a_request_there_are_no_ids_and_nothing_to_mark() -> None:
    """current() is empty and record_error() does nothing before instrument() and outside requests."""
    assert sage_obs.current() == sage_obs.CurrentRequest("", "", "")
    sage_obs.record_error("timeout")


def test_record_error_marks_the_request_and_knows_only_the_taxonomy() -> None:
    """A word outside the taxonomy becomes `internal`."""
    request = Request(request_id="r", trace_id=TRACE, span_id=SPAN, sampled=False)
    request_var.set(request)
    marked = []
    for said in ("timeout", "no such thing"):
        sage_obs.record_error(said)
        marked.append(request.error_type)
    request_var.set(None)
    assert marked == [ErrorType.TIMEOUT, ErrorType.INTERNAL]


def test_contexts_nest_and_are_left_as_they_were_found() -> None:
    """An inner context adds to the outer one, and each ends with its block."""
    with sage_obs.context(tenant="acme"):
        with sage_obs.context(conversation_id="c1"):
            assert ambient() == {"tenant": "acme", "conversation_id": "c1"}
        assert ambient() == {"tenant": "acme"}
    assert ambient() == {}


async def _next(generator: AsyncGenerator[int, None]) -> int:
    return await anext(generator)


async def _close(generator: AsyncGenerator[int, None]) -> None:
    await generator.aclose()


def test_a_context_may_end_in_another_task_than_it_began() -> None:
    """A generator closed elsewhere ends its context without an error."""

    async def numbers() -> AsyncGenerator[int, None]:
        with sage_obs.context(tenant="acme"):
            yield 1
            yield 2

    async def main() -> None:
        generator = numbers()
        await asyncio.create_task(_next(generator))
        await asyncio.create_task(_close(generator))

    asyncio.run(main())


def test_a_context_that_ends_elsewhere_leaves_what_is_said_there() -> None:
    """Whoever closes an abandoned generator keeps whom the work is for."""

    def numbers() -> Iterator[int]:
        with sage_obs.context(tenant="theirs"):
            yield 1

    generator = numbers()
    contextvars.Context().run(next, generator)
    with sage_obs.context(tenant="acme"):
        generator.close()  # type: ignore[attr-defined]
        assert ambient() == {"tenant": "acme"}
    assert ambient() == {}


def test_a_context_ends_though_one_inside_it_has_not() -> None:
    """A generator that is still suspended takes nothing past the end of the context around it."""

    def numbers() -> Iterator[int]:
        with sage_obs.context(conversation_id="c1"):
            yield 1

    with sage_obs.context(tenant="acme"):
        generator = numbers()
        next(generator)
        assert ambient() == {"tenant": "acme", "conversation_id": "c1"}
    assert ambient() == {}
    generator.close()  # type: ignore[attr-defined]
    assert ambient() == {}


def test_ids_have_numbers_of_their_own() -> None:
    """An application that seeds `random` gets its sequence, and no request id twice."""
    random.seed(1)
    first, expected = new_ids(), random.getrandbits(32)
    random.seed(1)
    second, found = new_ids(), random.getrandbits(32)
    assert first != second
    assert expected == found
