"""What is covered by a signature cannot be changed, and what is no signature is never one."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage_agent.problems import Problem
from sage_agent.security import base58
from sage_agent.security.did import UnresolvableError, parse_did_url
from sage_agent.security.signatures import RefusedError, read_claim
from sage_agent.web.wire import Scope
from tests.support.signed import BODY, NOW, ask, guard, new_signer, signed

_SCOPE = signed(new_signer())
_PARTS = (
    *("method", "raw_path", "query_string", "body"),
    *(b"host", b"content-type", b"content-digest", b"date", b"x-sage-did", b"signature-input"),
)


def _part(name: str | bytes) -> bytes:
    if name == "body":
        return BODY
    if isinstance(name, str):
        value = _SCOPE[name]
        return value.encode() if isinstance(value, str) else bytes(value)
    return bytes(next(value for key, value in _SCOPE["headers"] if key == name))


def _changed(name: str | bytes, value: bytes) -> tuple[Scope, bytes]:
    if name == "body":
        return dict(_SCOPE), value
    if isinstance(name, str):
        return {**_SCOPE, name: value.decode("latin-1") if name == "method" else value}, BODY
    return {**_SCOPE, "headers": [(key, value if key == name else old) for key, old in _SCOPE["headers"]]}, BODY


@given(name=st.sampled_from(_PARTS), data=st.data())
def test_any_single_byte_of_what_is_covered_changed_is_refused(name: str | bytes, data: st.DataObject) -> None:
    """The method, path, query, body, every covered header and the parameters: one other byte anywhere, and it is no signature."""
    value = _part(name)
    position = data.draw(st.integers(0, len(value) - 1))
    byte = data.draw(st.integers(0, 255).filter(lambda one: bytes([one]).lower() != value[position : position + 1].lower()))
    scope, body = _changed(name, value[:position] + bytes([byte]) + value[position + 1 :])
    with pytest.raises(Problem) as raised:
        asyncio.run(ask(guard(), scope, body))
    assert raised.value.status == 401


@given(
    fields=st.dictionaries(st.sampled_from([b"signature-input", b"signature", b"x-sage-did", b"content-digest"]), st.binary(max_size=200))
)
def test_any_bytes_for_headers_are_refused_and_break_nothing(fields: dict[bytes, bytes]) -> None:
    """Whatever is sent, reading it ends in a refusal."""
    with pytest.raises(RefusedError):
        read_claim(list(fields.items()))


@given(text=st.text(max_size=300))
def test_a_did_url_that_is_read_can_be_written_again(text: str) -> None:
    """Reading loses nothing, and refuses the rest."""
    try:
        read = parse_did_url(text)
    except UnresolvableError:
        return
    assert text == (f"{read.did}#{read.fragment}" if "#" in text else read.did)


@given(data=st.binary(max_size=60))
def test_base58_can_be_read_again(data: bytes) -> None:
    """Leading zeros included."""
    assert base58.decode(base58.encode(data)) == data


def test_the_request_that_is_changed_here_is_good() -> None:
    """Or the first property would hold for the wrong reason."""
    assert asyncio.run(ask(guard(clock=lambda: NOW), dict(_SCOPE))).how == "did"
