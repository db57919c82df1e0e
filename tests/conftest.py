"""Fixtures for isolation."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import sage_obs
from sage_obs import testing

os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # litellm asks the internet for prices when it is imported


@pytest.fixture
def instrument() -> Iterator[Callable[..., sage_obs.Handle]]:
    """`sage_obs.instrument` on loopback and any free port; afterwards the layer is off and everything is back."""

    def start(service_name: str = "demo", **arguments: Any) -> sage_obs.Handle:
        defaults: dict[str, Any] = {"metrics_host": "127.0.0.1", "metrics_port": 0, "agent_id": "a1", "strict": True}
        return sage_obs.instrument(service_name, **defaults | arguments)

    testing.reset()
    testing.reraise_internal_errors(on=True)
    yield start
    testing.reraise_internal_errors(on=False)
    testing.reset()
