"""What profiles are of an incident's evidence, taken from a real agent."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from sage_obs.platforms.base import Instance, PlatformState
from sage_obs.runbooks.evidence import capture
from sage_obs.runbooks.records import Exhibit
from tests.support.agents import BODY, RunningAgent, running_agent
from tests.support.pages import drawn, opened
from tests.support.pprof import go_pprof
from tests.support.runbooks import GOOD, Scene

pytestmark = pytest.mark.system


@contextmanager
def _called(agent: RunningAgent) -> Iterator[None]:
    """Somebody sends messages for the length of the block."""
    ends = threading.Event()

    def call() -> None:
        with httpx.Client(trust_env=False, timeout=60) as client:
            while not ends.is_set():
                client.post(f"{agent.url}/v1/messages", json=BODY)

    caller = threading.Thread(target=call)
    caller.start()
    try:
        yield
    finally:
        ends.set()
        caller.join()


def _captured(agent: RunningAgent, folder: Path) -> dict[str, Exhibit]:
    """The evidence's profiles, by their names."""
    instance = Instance(
        "agent-1",
        "1.0.0",
        GOOD.digest,
        agent.process.pid,
        agent.url,
        agent.ops_url,
        ready=True,
        log=str(agent.process.log),
        started_at=0.0,
        profiles_url=agent.profiles_url,
    )
    state = PlatformState("sage-agent", GOOD, (instance,), converged=True, in_progress=False, detail="")
    scene = Scene(folder / "state")
    scene.platform.describe = lambda: state  # type: ignore[method-assign]
    return {one.name.removesuffix(" of agent-1"): one for one in capture(scene.world, ("profiles",), folder / "evidence", budget=20)}


def test_the_flame_graph_of_an_incident_opens_offline(tmp_path: Path) -> None:
    """Processor, time, tasks and memory are in the folder: files for Go's tool, and pages a browser draws without a network."""
    with running_agent(tmp_path) as agent, _called(agent):
        found = _captured(agent, tmp_path)
    assert {name: one.error for name, one in found.items() if one.error} == {}
    for kind, seen in (("cpu", "_run"), ("wall", "_run"), ("tasks", "serve_on"), ("heap", "builtins.dict")):
        assert seen in go_pprof("-top", "-cum", str(tmp_path / found[f"{kind} profile"].file), home=tmp_path)
        boxes = drawn(opened(tmp_path / found[f"{kind} flame graph"].file, home=tmp_path))
        assert boxes[0] == ("all", 1.0)
        assert any(seen in name for name, _ in boxes), boxes


def test_an_agent_that_hangs_leaves_its_profiles_too(tmp_path: Path) -> None:
    """One that answers nobody is looked at from outside, which shows where it hangs."""
    with running_agent(tmp_path) as agent:
        os.kill(agent.process.pid, signal.SIGSTOP)
        try:
            found = _captured(agent, tmp_path)
        finally:
            os.kill(agent.process.pid, signal.SIGCONT)
    assert {name: one.error for name, one in found.items() if one.error} == {}
    assert {"wall profile", "wall flame graph", "tasks profile", "tasks flame graph"} <= set(found)
    assert "serve" in (tmp_path / found["wall flame graph"].file).read_text()
