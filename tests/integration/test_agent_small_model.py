"""The agent in front of a real language model. What it says is its own affair; that it is asked, counted and streamed is ours."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import pytest

from tests.support.agents import running_agent
from tests.support.small_model import small_model

pytestmark = [pytest.mark.system, pytest.mark.timeout(400)]


def test_a_real_model_answers_whole_and_streamed_in_a_conversation(tmp_path: Path) -> None:
    """Text comes back with the tokens the model counted, pieces arrive one by one, and the second question is longer by the first."""
    with small_model(tmp_path) as address:
        environ = {
            "SAGE_LLM_PROVIDER": "openai",
            "SAGE_LLM_MODEL": "smollm2",
            "SAGE_LLM_BASE_URL": address,
            "SAGE_LLM_MAX_TOKENS": "24",
        }
        with running_agent(tmp_path, environ=environ) as agent:
            body = {"parts": [{"kind": "text", "text": "Name a colour."}], "contextId": "c"}
            first = httpx.post(f"{agent.url}/v1/messages", json=body, timeout=60).raise_for_status().json()
            assert first["parts"][0]["text"].strip()
            usage = first["metadata"]["usage"]
            assert usage["input_tokens"] > 3
            assert 1 <= usage["output_tokens"] <= 24
            with httpx.stream("POST", f"{agent.url}/v1/messages/stream", json=body, timeout=60) as response:
                blocks = "".join(response.iter_text()).strip().split("\n\n")
            names = [block.partition("\n")[0] for block in blocks]
            assert names[-1] == "event: done"
            assert names.count("event: message") > 1
            end = json.loads(blocks[-1].partition("data: ")[2])
            assert end["metadata"]["usage"]["input_tokens"] > usage["input_tokens"]
            metrics = httpx.get(f"{agent.ops_url}/metrics").text
            counted = [line for line in metrics.splitlines() if line.startswith("sage_llm_tokens_total{") and 'type="output"' in line]
            said = usage["output_tokens"] + end["metadata"]["usage"]["output_tokens"]
            assert sum(float(line.split()[-1]) for line in counted) == said
