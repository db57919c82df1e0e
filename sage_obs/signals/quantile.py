"""PromQL's `histogram_quantile`, for histograms that were scraped directly."""

from __future__ import annotations

import math
from collections.abc import Mapping


def histogram_quantile(quantile: float, buckets: Mapping[float, float]) -> float | None:
    """The quantile (0 to 1) of cumulative counts by upper bound, in the bounds' unit; None where nothing was observed.

    As in PromQL: linear within a bucket, the lowest bucket starts at 0 where its bound is positive, a quantile in the +Inf bucket is
    the highest finite bound, and counts that are not monotonic (a scrape between two increments) are made so.
    """
    bounds = sorted(buckets)
    if not bounds[:-1] or bounds[-1] != math.inf:
        return None
    counts = _monotonic([buckets[bound] for bound in bounds])
    if not counts[-1] > 0:
        return None
    rank = quantile * counts[-1]
    index = next(i for i, count in enumerate(counts) if count >= rank)
    if index == len(bounds) - 1:
        return bounds[-2]
    return _interpolate(bounds, counts, index, rank)


def _monotonic(counts: list[float]) -> list[float]:
    highest, result = 0.0, []
    for count in counts:
        highest = max(highest, count)
        result.append(highest)
    return result


def _interpolate(bounds: list[float], counts: list[float], index: int, rank: float) -> float:
    end = bounds[index]
    if index == 0 and end <= 0:
        return end
    start, below = (bounds[index - 1], counts[index - 1]) if index else (0.0, 0.0)
    within = counts[index] - below
    return end if within <= 0 else start + (end - start) * (rank - below) / within
