from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text
from prometheus_client.utils import floatToGoString

from sage_obs.conventions import (
    BUILD_INFO,
    HEALTH_STATUS,
    LLM_COST,
    LOGS_DROPPED,
    REQUEST_DURATION,
    REQUEST_OVERHEAD,
    REQUESTS,
)
from sage_obs.metrics.collector import StoreCollector
from sage_obs.metrics.exposition import expose
from sage_obs.metrics.store import Store
from sage_obs.metrics.wire import number, numbers

HOSTILE = st.one_of(
    st.sampled_from(['"', "\n", "\\", '\\n"', "a=b,c", "}", "#", " # {", "%s %d", "{}", "né", "漢字", "🙂", "\u2028", ""]), st.text()
)
NUMBERS = st.floats() | st.integers(0, 10**18).map(float) | st.sampled_from([1e6, 999_999.9, 1e16, -1e7, 0.1, 5e-324])
AMOUNTS = st.floats(0, 1e12, allow_nan=False)
FORMATS = pytest.mark.parametrize(
    ("accept", "parse"),
    [
        ("", parse_text),
        ("text/plain; version=1.0.0; escaping=allow-utf-8", parse_text),
        ("application/openmetrics-text; version=1.0.0", parse_openmetrics),
        ("application/openmetrics-text; version=1.0.0; escaping=allow-utf-8", parse_openmetrics),
    ],
    ids=["text", "text with UTF-8 names", "OpenMetrics", "OpenMetrics with UTF-8 names"],
)


def _content(page: bytes, parse: Callable[[str], Any]) -> dict[str, tuple[str, str, list[str]]]:
    """What a parser makes of a page, by family; values as text, where NaN is itself."""
    found = {}
    for family in parse(page.decode()):
        assert family.name not in found, "a family is there twice"
        samples = [repr((one.name, sorted(one.labels.items()), one.value, one.exemplar)) for one in family.samples]
        found[family.name] = (family.type, family.documentation, samples)
    return found


def _store(labels: list[str], numbers: list[float], amounts: list[float]) -> Store:
    """A store in which each kind of family has children with these label values and numbers."""
    store = Store(budget=3)
    store.cell(LOGS_DROPPED)
    for label, value in zip(labels, numbers, strict=False):
        store.cell(HEALTH_STATUS, label, "readiness", label).set(value)
        store.cell(BUILD_INFO, label, label, "r", "3").set(value)
    for label, amount in zip(labels, amounts, strict=False):
        store.cell(REQUESTS, "a1", label, "http", "success").add(amount)
        store.cell(LLM_COST, label, label).add(amount)
        store.histogram(REQUEST_DURATION, label, label, "http").observe(amount)
        store.histogram(REQUEST_OVERHEAD, "a1", label).observe_traced(amount, "ab" * 16)
    return store


@FORMATS
@given(labels=st.lists(HOSTILE, max_size=5), numbers=st.lists(NUMBERS, max_size=5), amounts=st.lists(AMOUNTS, max_size=5))
def test_our_pages_say_what_prometheus_client_would_say(
    accept: str, parse: Callable[[str], Any], labels: list[str], numbers: list[float], amounts: list[float]
) -> None:
    """Whatever labels and values are, prometheus_client's parsers read the same from our page as from its own."""
    registry = CollectorRegistry()
    ours = StoreCollector(_store(labels, numbers, amounts), refresh=lambda: None)
    registry.register(ours)
    Counter("shop_orders", "Orders.", ["kind"], registry=registry).labels('"x"').inc(3)
    Gauge("shop_open", "Open.", registry=registry).set(float("nan"))
    Histogram("shop_wait_seconds", "Waits.", registry=registry).observe(0.3)
    theirs = expose(accept=accept, accept_encoding="", registry=registry)
    fast = expose(accept=accept, accept_encoding="", registry=registry, ours=ours)
    assert fast.content_type == theirs.content_type
    assert _content(fast.body, parse) == _content(theirs.body, parse)
    assert sorted(fast.body.splitlines()) == sorted(theirs.body.splitlines())
    assert expose(accept=accept, accept_encoding="", registry=registry, ours=ours) == fast, "what is kept changes nothing"


@given(st.lists(NUMBERS, min_size=1))
def test_a_number_is_written_as_prometheus_client_writes_it(values: list[float]) -> None:
    """Infinities, NaN and what Go writes with an exponent included, one by one and many at once."""
    expected = [floatToGoString(value) for value in values]  # type: ignore[no-untyped-call]
    assert [number(value) for value in values] == expected
    assert [written.decode() for written in numbers(values)] == expected
