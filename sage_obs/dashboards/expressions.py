"""PromQL with Grafana's variables, for panels. Metric names come from the conventions only."""

from __future__ import annotations

from typing import Final

from sage_obs.conventions import Metric
from sage_obs.slo.promql import matchers, quote
from sage_obs.slo.signals import Share, Signal

JOB: Final = 'job=~"$job"'
TARGET: Final = f'{JOB}, instance=~"$instance"'
RATE: Final = "$__rate_interval"


def series(metric: Metric | str, *where: str, suffix: str = "", scope: str = TARGET, window: str = "") -> str:
    """A selector within the board's choice of jobs and instances; recorded series know only the job (`scope=JOB`)."""
    name = metric if isinstance(metric, str) else metric.name
    return f"{name}{suffix}{{{', '.join((scope, *where))}}}" + (f"[{window}]" if window else "")


def rate(metric: Metric, *where: str, by: str = "", suffix: str = "") -> str:
    """Events a second, summed by labels."""
    grouping = f" by ({by})" if by else ""
    return f"sum{grouping} (rate({series(metric, *where, suffix=suffix, window=RATE)}))"


def share(signal: Signal) -> str:
    """The share of bad events over the whole choice, from 0 to 1; 0 where none was bad, nothing without traffic."""
    if not isinstance(signal, Share):
        raise TypeError(f"{type(signal).__name__} is not a share of events")
    bad, total = (rate(selector.metric, *matchers(selector)) for selector in (signal.bad, signal.total))
    return f"({bad} or 0 * {total}) / ({total} > 0)"


def quantile(q: float, metric: Metric, *, by: str = "") -> str:
    """A quantile in seconds over the whole choice, or by labels."""
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile({q:g}, {rate(metric, by=labels, suffix='_bucket')})"


def mean(metric: Metric) -> str:
    """Seconds per observation."""
    return f"{rate(metric, suffix='_sum')} / {rate(metric, suffix='_count')}"


def none_where_no_errors(errors: str, label: str, total: str) -> str:
    """Errors by label, or a line at 0 named `none` while there is traffic without any."""
    return f'{errors} or label_replace(0 * {total}, {quote(label)}, "none", "", "")'
