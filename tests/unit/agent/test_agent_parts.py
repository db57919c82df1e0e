"""The parts of a runtime, begun and ended."""

from __future__ import annotations

import asyncio
import json
import logging
from pathlib import Path

import pytest

from sage_agent import config
from sage_agent.parts import build, keep
from sage_agent.security.levers import Levers
from sage_agent.state.open import make_state


def test_what_cannot_be_closed_keeps_nothing_else_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A failure is logged, and the end is on record all the same."""
    environ = {"SAGE_STORAGE_TYPE": "memory", "SAGE_AUDIT_PATH": str(tmp_path / "audit.jsonl"), "SAGE_A2A_ENABLED": "false"}
    loaded = config.load(file=None, environ=environ)

    async def fail() -> None:
        raise OSError("the network is gone")

    async def work() -> None:
        state, _ = make_state(loaded.state)
        parts = build(loaded, state, everywhere=Levers(state.cache.clear).alone)
        await parts.open()
        monkeypatch.setattr(parts.calls, "close", fail)
        await parts.close()

    asyncio.run(work())
    records = [json.loads(line) for line in (tmp_path / "audit.jsonl").read_text().splitlines()]
    assert records[-1]["outcome"] == "stopped"


def test_work_in_the_background_goes_on_after_a_failure(caplog: pytest.LogCaptureFixture) -> None:
    """It is logged and begun again, until it ends by itself."""
    begun = 0

    async def work() -> None:
        nonlocal begun
        begun += 1
        if begun < 3:
            raise RuntimeError("a defect")

    with caplog.at_level(logging.ERROR):
        asyncio.run(keep(work, pause=0.0))
    assert begun == 3
    assert len(caplog.records) == 2
