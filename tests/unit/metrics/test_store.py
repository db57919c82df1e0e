from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable

import pytest
from prometheus_client import REGISTRY, generate_latest

import sage_obs
from sage_obs.conventions import BUILD_INFO, LLM_CALLS, LLM_COST, OTHER
from sage_obs.metrics.budget import MAX_LABEL_LENGTH, label_text
from sage_obs.metrics.store import Store
from tests.support.metrics import children

ABANDONED = """\
import gc
import sage_obs
from sage_obs.genai import requests
from sage_obs.genai.requests import Recorder
from sage_obs.metrics import active
from sage_obs.metrics.requests import RequestMetrics
from sage_obs.metrics.store import Store

active.use(Store(budget=10_000))

def stream(model):
    with sage_obs.llm_call("p", model):
        while True:
            yield model

@sage_obs.agent("planner")
def plan(model):
    yield from stream(model)

def abandon(made):
    cycle = {"stream": made}
    cycle["self"] = cycle
    next(cycle["stream"])

requests.use(Recorder(RequestMetrics(active.store(), agent_id="a"), objective=0.1))
gc.set_threshold(1, 1, 1)
for number in range(300):
    abandon(stream(f"abandoned-{number}"))
    abandon(plan(f"planned-{number}"))
    with sage_obs.llm_call("p", f"new-{number}"):
        pass
print("done")
"""


def test_a_stream_that_the_garbage_collector_closes_records_wherever_it_comes() -> None:
    """Abandoned generators that are closed in the middle of a recording record too, and nothing waits for itself."""
    done = subprocess.run([sys.executable, "-c", ABANDONED], capture_output=True, text=True, timeout=30, check=False)
    assert (done.stdout, done.returncode) == ("done\n", 0), done.stderr


def test_threads_that_come_at_once_share_children_and_keep_to_the_budget() -> None:
    """The same labels are one child for all, and no more values are admitted than there is room for."""
    store, found = Store(budget=20), [set[int]() for _ in range(50)]

    def work() -> None:
        for number in range(50):
            found[number].add(id(store.cell(LLM_COST, "p", f"m{number}")))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    family = next(family for family in store.families() if family.metric is LLM_COST)
    models = {values[1] for values, _ in family.children()}
    assert len(models - {OTHER}) == 20
    assert all(len(cells) == 1 for cells in found)


def test_what_is_kept_stays_the_same_child() -> None:
    """Forgetting the others leaves the children that are still true as they are."""
    store = Store()
    kept = store.cell(BUILD_INFO, "s", "1", "r", "3")
    store.cell(BUILD_INFO, "s", "2", "r", "3")
    store.keep(BUILD_INFO, frozenset({("s", "1", "r", "3")}))
    family = next(family for family in store.families() if family.metric is BUILD_INFO)
    assert family.children() == [(("s", "1", "r", "3"), kept)]


class Unprintable:
    """Has no text."""

    def __str__(self) -> str:
        """Refuse."""
        raise RuntimeError("no")


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (None, "unknown"),
        (5, "5"),
        (b"gpt-\xff", "gpt-\ufffd"),
        ("lone \ud800", "lone ?"),
        ("", ""),
        ("x" * MAX_LABEL_LENGTH, "x" * MAX_LABEL_LENGTH),
        ("x" * 10_000, "x" * (MAX_LABEL_LENGTH - 1) + "…"),
        (Unprintable(), "unknown"),
    ],
    ids=["none", "number", "bytes", "surrogate", "empty", "longest", "too long", "unprintable"],
)
def test_a_label_is_encodable_text_of_bounded_length(given: object, text: str) -> None:
    """Whatever is given as a label's value, a scrape can carry it."""
    assert label_text(given) == text


@pytest.mark.parametrize("model", [None, 5, b"m", "m\ud800", [1], "m" * 10_000], ids=["none", "int", "bytes", "surrogate", "list", "long"])
def test_a_model_of_any_kind_leaves_metrics_readable(instrument: Callable[..., sage_obs.Handle], model: object) -> None:
    """A call whose model is no proper name is counted, and the page is still served."""
    instrument()
    with sage_obs.llm_call("openai", model):  # type: ignore[arg-type]
        pass
    assert len(generate_latest(REGISTRY)) < 200_000
    assert {labels["model"] for labels in children(LLM_CALLS)} == {label_text(model)}


@pytest.mark.parametrize(
    "secret", ["sk-abcdefghijklmnopqrstuv", "eyJhbGciOi.eyJzdWIi.c2ln", "https://u:topsecret99@host/x", "token=topsecret99"]
)
@pytest.mark.parametrize("before", ["", "m " * 55, "m " * 62])
def test_a_label_holds_no_secret(secret: str, before: str) -> None:
    """What looks like a credential is masked in a label value too, wherever the cut falls."""
    text = label_text(f"{before}{secret}")
    assert len(text) <= MAX_LABEL_LENGTH
    assert not [part for part in ("abcdefg", "eyJhbGciOi", "topsecret", "eyJ") if part in text]
