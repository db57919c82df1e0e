"""Any single change of an audit log is found."""

from __future__ import annotations

import io
import tempfile
from functools import cache
from pathlib import Path

from hypothesis import assume, given
from hypothesis import strategies as st

from sage_agent.security.audit_chain import Head, Verifier
from sage_agent.security.audit_file import AuditFile, read_head

_COUNT = 6


@cache
def _log(key: bytes) -> tuple[bytes, Head]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a"
        file = AuditFile(path, key=key, max_bytes=1 << 20, keep=1)
        file.append([{"event": "e", "outcome": f"done {number}"} for number in range(_COUNT)])
        file.close()
        head = read_head(path, key)
        assert head is not None
        return path.read_bytes(), head


def _problems(data: bytes, head: Head, key: bytes) -> list[str]:
    verifier = Verifier(key)
    verifier.follow(io.BytesIO(data), wanted=[head.seq])
    return verifier.finish(head).problems


_KEYS = st.sampled_from([b"", b"0123456789abcdef"])


@given(_KEYS, st.integers(0, 10_000), st.integers(0, 255))
def test_any_other_byte_anywhere_is_found(key: bytes, place: int, byte: int) -> None:
    """With and without a key."""
    data, head = _log(key)
    place %= len(data)
    assume(data[place] != byte)
    assert _problems(data[:place] + bytes([byte]) + data[place + 1 :], head, key)


@given(_KEYS, st.integers(0, 10_000), st.integers(1, 400))
def test_any_missing_bytes_are_found(key: bytes, place: int, count: int) -> None:
    """Whole lines too, at the end too."""
    data, head = _log(key)
    place %= len(data)
    assert _problems(data[:place] + data[place + count :], head, key)


@given(_KEYS, st.permutations(range(_COUNT)))
def test_any_other_order_is_found(key: bytes, order: list[int]) -> None:
    """And the one it was written in is right."""
    data, head = _log(key)
    lines = data.splitlines(keepends=True)
    assert bool(_problems(b"".join(lines[number] for number in order), head, key)) == (order != sorted(order))
