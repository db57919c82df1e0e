"""PromQL over windows in seconds, for rules: metric names come from the conventions, labels from the caller."""

from __future__ import annotations

from collections.abc import Sequence

from sage_obs.conventions import Metric
from sage_obs.slo.promql import select
from sage_obs.slo.signals import Selector, Share
from sage_obs.slo.windows import duration


def any_of(metric: Metric, **labels: Sequence[str]) -> Selector:
    """Series of a metric whose labels have one of these values."""
    return Selector(metric, include=tuple((name, tuple(values)) for name, values in labels.items()))


def rate(selector: Selector, seconds: float, *, by: str = "job", suffix: str = "") -> str:
    """Events a second."""
    return f"sum by ({by}) (rate({select(selector, suffix=suffix, window=duration(seconds))}))"


def count(selector: Selector, seconds: float, *, by: str = "job", suffix: str = "") -> str:
    """Events within the window."""
    return f"sum by ({by}) (increase({select(selector, suffix=suffix, window=duration(seconds))}))"


def share(signal: Share, seconds: float, *, by: str = "job") -> str:
    """The share of bad events, 0 to 1: 0 where none was bad, nothing without events."""
    bad, total = rate(signal.bad, seconds, by=by), rate(signal.total, seconds, by=by)
    return f"({bad} or 0 * {total}) / ({total} > 0)"


def quantile(q: float, metric: Metric, seconds: float, *, by: str = "job") -> str:
    """A quantile of a histogram; nothing, rather than NaN, where nothing was observed."""
    return f"histogram_quantile({q:g}, {rate(Selector(metric), seconds, by=f'{by}, le', suffix='_bucket')}) >= 0"


def over(part: Metric, whole: Metric, *, by: str = "job") -> str:
    """One gauge as a share of another, both summed."""
    return f"sum by ({by}) ({part.name}) / (sum by ({by}) ({whole.name}) > 0)"
