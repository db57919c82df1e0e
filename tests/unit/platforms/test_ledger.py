"""The release ledger."""

from __future__ import annotations

from pathlib import Path

import pytest

from sage_obs.errors import PlatformError
from sage_obs.platforms.base import Release
from sage_obs.platforms.ledger import Ledger, Standing

GOOD = Release("1.0", "sha256:aa")


def test_the_last_word_on_a_digest_counts(tmp_path: Path) -> None:
    """A release is unproven until judged, and can be judged again."""
    ledger = Ledger(tmp_path / "ledger.jsonl", clock=lambda: 1.0)
    assert ledger.standing(GOOD.digest) is Standing.UNPROVEN
    assert ledger.mark(GOOD, Standing.GOOD, by="t", reason="baked")
    assert ledger.mark(GOOD, Standing.BAD, by="t", reason="failed later")
    assert ledger.standing(GOOD.digest) is Standing.BAD
    assert [entry.standing for entry in ledger.entries()] == [Standing.GOOD, Standing.BAD]


def test_saying_the_same_again_writes_nothing(tmp_path: Path) -> None:
    """A resumed run may mark a second time without a second line."""
    ledger = Ledger(tmp_path / "ledger.jsonl")
    assert ledger.mark(GOOD, Standing.GOOD, by="t", reason="baked")
    assert not ledger.mark(GOOD, Standing.GOOD, by="t", reason="baked")
    assert len(ledger.entries()) == 1


@pytest.mark.parametrize("line", ["rubbish\n", '{"digest":"x"}\n', '{"standing":"great"}\n'], ids=["no-json", "no-fields", "no-standing"])
def test_a_corrupt_ledger_is_an_error_not_a_guess(tmp_path: Path, line: str) -> None:
    """A rollback must not be decided on half a ledger."""
    path = tmp_path / "ledger.jsonl"
    path.write_text(line)
    with pytest.raises(PlatformError, match="cannot be read"):
        Ledger(path).standing(GOOD.digest)
