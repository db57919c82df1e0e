"""The names everything else relies on."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

from sage_obs import conventions
from sage_obs.conventions import AGENT_METRICS, PUSHED_METRICS, RESPONDER_METRICS, Metric

ROOT = Path(__file__).parents[2]
METRICS = [value for value in vars(conventions).values() if isinstance(value, Metric)]


def test_every_metric_belongs_to_somebody() -> None:
    """A name that nobody exposes cannot be defined."""
    assert sorted(metric.name for metric in METRICS) == sorted(
        metric.name for metric in (*AGENT_METRICS, *PUSHED_METRICS, *RESPONDER_METRICS)
    )


@pytest.mark.parametrize("metric", [one for one in METRICS if one not in PUSHED_METRICS], ids=lambda metric: metric.name)
def test_metrics_are_named_by_the_rules_of_prometheus(metric: Metric) -> None:
    """Counters end in _total, durations in _seconds, buckets ascend, budgeted labels exist; steps are counted, not timed."""
    assert re.fullmatch(r"sage_[a-z_]+", metric.name)
    assert metric.name.endswith("_total") == (metric.kind == "counter")
    assert bool(metric.buckets) == (metric.kind == "histogram")
    assert list(metric.buckets) == sorted(set(metric.buckets))
    assert set(metric.budgeted) <= set(metric.labels)
    assert metric.kind != "histogram" or metric.name.endswith(("_seconds", "_steps"))


def test_the_reference_page_is_what_would_be_rendered_now() -> None:
    """`make generate` was run after the last change of a name."""
    spec = importlib.util.spec_from_file_location("telemetry_reference", ROOT / "tools/telemetry_reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.PAGE.read_text() == module.render()
