from __future__ import annotations

import gzip
import threading
from collections.abc import Callable
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

import sage_obs
from sage_obs.conventions import (
    AGENT_METRICS,
    BUILD_INFO,
    ERRORS,
    EXPERIENCE,
    RELEASE_TIMESTAMP,
    REQUEST_DURATION,
    REQUESTS,
    ErrorType,
    Experience,
)
from sage_obs.errors import UnavailableError
from sage_obs.metrics.collector import StoreCollector
from sage_obs.metrics.exposition import expose
from sage_obs.metrics.store import Store
from tests.support.metrics import children, value

OPENMETRICS = "application/openmetrics-text; version=1.0.0"


@pytest.fixture
def store() -> Store:
    """A store with a counter and a histogram in use."""
    store = Store()
    store.cell(REQUESTS, "a1", 'say "hi"\n', "http", "success").add(3)
    store.histogram(REQUEST_DURATION, "a1", "op", "http").observe(0.02)
    store.histogram(REQUEST_DURATION, "a1", "op", "http").observe_traced(500.0, "ab" * 16)
    return store


@pytest.fixture
def registry(store: Store) -> CollectorRegistry:
    """A registry that reads the store."""
    registry = CollectorRegistry()
    registry.register(StoreCollector(store, refresh=lambda: None))
    return registry


def _samples(text: str, parse: Callable[[str], Any]) -> dict[tuple[str, tuple[str, ...]], Any]:
    return {(sample.name, tuple(sorted(sample.labels.values()))): sample for family in parse(text) for sample in family.samples}


def test_text_and_openmetrics_are_read_back_by_prometheus_client(registry: CollectorRegistry) -> None:
    """Both formats parse, labels survive quoting, buckets are cumulative and end at +Inf."""
    for accept, parse in (("", parse_text), (OPENMETRICS, parse_openmetrics)):
        shown = expose(accept=accept, accept_encoding="", registry=registry)
        samples = _samples(shown.body.decode(), parse)
        assert samples[REQUESTS.name, tuple(sorted(("a1", 'say "hi"\n', "http", "success")))].value == 3
        buckets = [sample.value for (name, _), sample in samples.items() if name == f"{REQUEST_DURATION.name}_bucket"]
        assert max(buckets) == 2
        assert len(buckets) == len(REQUEST_DURATION.buckets) + 1


def test_exemplars_are_shown_to_those_who_ask_for_openmetrics(registry: CollectorRegistry) -> None:
    """The trace of a sampled request stands beside its bucket in OpenMetrics, and nowhere in the plain format."""
    assert b'trace_id="' + b"ab" * 16 in expose(accept=OPENMETRICS, accept_encoding="", registry=registry).body
    assert b"trace_id" not in expose(accept="text/plain", accept_encoding="", registry=registry).body


@pytest.mark.parametrize("kind", ["text/plain; version=1.0.0", OPENMETRICS])
@pytest.mark.parametrize("escaping", ["dots", "values"])
def test_a_scraper_that_wants_other_names_gets_them(store: Store, kind: str, escaping: str) -> None:
    """Where prometheus_client would change our names for the scraper, it renders them itself."""
    registry, ours = CollectorRegistry(), StoreCollector(store, refresh=lambda: None)
    registry.register(ours)
    accept = f"{kind}; escaping={escaping}"
    shown = expose(accept=accept, accept_encoding="", registry=registry, ours=ours)
    assert shown == expose(accept=accept, accept_encoding="", registry=registry)


def test_what_the_registry_shows_to_others_is_whole_after_a_scrape(store: Store) -> None:
    """Our families are left out only in the thread that renders them, and only meanwhile."""
    registry, ours = CollectorRegistry(), StoreCollector(store, refresh=lambda: None)
    registry.register(ours)
    with ours.left_out():
        assert not list(registry.collect())
        seen: list[int] = []
        other = threading.Thread(target=lambda: seen.append(len(list(registry.collect()))))
        other.start()
        other.join()
    assert seen == [2]
    assert len(list(registry.collect())) == 2


@pytest.mark.parametrize(
    ("accepted", "encoding"),
    [("gzip", "gzip"), ("deflate, gzip;q=0.5", "gzip"), ("gzip;q=0", ""), ("gzip; q=0.0", ""), ("br", ""), ("", "")],
)
def test_gzip_is_used_where_it_is_accepted(registry: CollectorRegistry, accepted: str, encoding: str) -> None:
    """A refusal by q=0 counts, and what is compressed is the same page."""
    plain = expose(accept="", accept_encoding="", registry=registry).body
    shown = expose(accept="", accept_encoding=accepted, registry=registry)
    assert shown.encoding == encoding
    assert (gzip.decompress(shown.body) if encoding else shown.body) == plain


def test_everything_with_a_bounded_label_is_there_at_zero_from_the_start(instrument: Callable[..., sage_obs.Handle]) -> None:
    """Before the first request the agent's errors and experiences exist at 0: or the first rise would not be seen."""
    instrument()
    assert {labels["error_type"] for labels in children(ERRORS)} == {kind.value for kind in ErrorType}
    assert {labels["outcome"] for labels in children(EXPERIENCE)} == {kind.value for kind in Experience}
    assert value(ERRORS) == value(EXPERIENCE) == 0


def test_the_release_is_named(instrument: Callable[..., sage_obs.Handle]) -> None:
    """Build info and the release's start are there for joins."""
    instrument("shop", version="1.2.3", revision="abc")
    assert value(BUILD_INFO, service="shop", version="1.2.3", revision="abc") == 1
    assert value(RELEASE_TIMESTAMP, version="1.2.3") > 1_700_000_000


def test_only_metrics_of_the_catalogue_are_exposed(instrument: Callable[..., sage_obs.Handle]) -> None:
    """Every series that starts with sage_ is in the conventions, and none ends in _created."""
    from prometheus_client import REGISTRY

    instrument()
    known = {name for metric in AGENT_METRICS for name in metric.series}
    names = {sample.name for family in REGISTRY.collect() for sample in family.samples}
    assert {name for name in names if name.startswith("sage_")} <= known
    assert not [name for name in names if name.endswith("_created")]


def test_the_applications_own_metrics_are_there_too_and_stay(instrument: Callable[..., sage_obs.Handle]) -> None:
    """What the application registers with prometheus_client is exposed beside ours, without `_created` while the layer is on."""
    from prometheus_client import REGISTRY

    own = Counter("shop_orders", "Orders.")
    try:
        own.inc()
        instrument()
        page = expose(accept="", accept_encoding="").body
        assert b"shop_orders_total 1.0" in page
        assert b"sage_agent_errors_total" in page
        assert b"shop_orders_created" not in page
        sage_obs.uninstrument()
        page = expose(accept="", accept_encoding="").body
        assert b"shop_orders_total 1.0" in page
        assert b"sage_" not in page
        assert b"shop_orders_created" in page
    finally:
        REGISTRY.unregister(own)


def test_a_clash_of_names_switches_the_metrics_off_with_the_reason(instrument: Callable[..., sage_obs.Handle]) -> None:
    """Where the application has a metric of one of our names, its metric wins and status says why ours are off."""
    from prometheus_client import REGISTRY

    theirs = Histogram(REQUEST_DURATION.name, "Theirs.")
    try:
        handle = instrument(strict=False, logs=False)
        assert not handle.status()["metrics"].on
        assert "Duplicated timeseries" in handle.status()["metrics"].why
        with pytest.raises(UnavailableError):
            instrument("other", strict=True, logs=False)
    finally:
        REGISTRY.unregister(theirs)
