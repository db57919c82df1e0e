from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage_obs.signals.quantile import histogram_quantile

INF = math.inf


@pytest.mark.parametrize(
    ("quantile", "buckets", "expected"),
    [
        (0.5, {1.0: 10, 2.0: 20, INF: 20}, 1.0),
        (0.75, {1.0: 10, 2.0: 20, INF: 20}, 1.5),
        (0.95, {0.1: 100, INF: 100}, 0.095),
        (0.95, {0.1: 10, INF: 100}, 0.1),
        (0.5, {-1.0: 10, 1.0: 10, INF: 10}, -1.0),
        (0.5, {1.0: 10, 2.0: 8, INF: 20}, 1.0),
    ],
    ids=["at a bound", "within a bucket", "first bucket starts at 0", "beyond the last bound", "negative bound", "not monotonic"],
)
def test_it_is_promqls(quantile: float, buckets: dict[float, float], expected: float) -> None:
    """The cases of PromQL's documentation."""
    assert histogram_quantile(quantile, buckets) == pytest.approx(expected)


@pytest.mark.parametrize(
    "buckets", [{}, {INF: 5}, {1.0: 5, 2.0: 5}, {1.0: 0, INF: 0}], ids=["none", "only +Inf", "no +Inf", "no observations"]
)
def test_without_observations_there_is_no_quantile(buckets: dict[float, float]) -> None:
    """None, not zero and not NaN."""
    assert histogram_quantile(0.95, buckets) is None


@given(
    counts=st.lists(st.integers(0, 1000), min_size=2, max_size=8).filter(any),
    low=st.floats(0, 1),
    high=st.floats(0, 1),
)
def test_it_grows_with_the_quantile_and_stays_within_the_bounds(counts: list[int], low: float, high: float) -> None:
    """A higher quantile is never lower, and none lies outside the finite buckets."""
    bounds = [*(0.1 * 2**i for i in range(len(counts) - 1)), INF]
    buckets = {bound: float(sum(counts[: i + 1])) for i, bound in enumerate(bounds)}
    first, second = (histogram_quantile(q, buckets) for q in sorted((low, high)))
    assert first is not None
    assert second is not None
    assert 0 <= first <= second <= bounds[-2]
