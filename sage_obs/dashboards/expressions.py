"""PromQL with Grafana's variables, for panels. Metric names come from the conventions only.

Functions that select series take label matchers (`where`); `scope` is what the selection has in common, the chosen jobs and
instances unless it says otherwise; `ago` looks at an earlier time (`1d`).
"""

from __future__ import annotations

from typing import Final

from sage_obs.conventions import RECORD_RELEASE_INFO, REQUESTS_IN_FLIGHT, Metric
from sage_obs.slo.promql import matchers, quote
from sage_obs.slo.signals import Share, Signal

JOB: Final = 'job=~"$job"'
TARGET: Final = f'{JOB}, instance=~"$instance"'
AGENT: Final = 'agent_id=~"$agent_id"'
MODEL: Final = 'model=~"$model"'
RATE: Final = "$__rate_interval"
HOUR: Final = 3600


def series(metric: Metric | str, *where: str, suffix: str = "", scope: str = TARGET, window: str = "", ago: str = "") -> str:
    """A selector within the board's choice of jobs and instances; recorded series know only the job (`scope=JOB`)."""
    name = metric if isinstance(metric, str) else metric.name
    braces = ", ".join(part for part in (scope, *where) if part)
    return f"{name}{suffix}{{{braces}}}" + (f"[{window}]" if window else "") + (f" offset {ago}" if ago else "")


def rate(metric: Metric, *where: str, by: str = "", suffix: str = "", window: str = RATE, ago: str = "") -> str:
    """Events a second, summed by labels."""
    return f"sum{_by(by)} (rate({series(metric, *where, suffix=suffix, window=window, ago=ago)}))"


def increase(metric: Metric, *where: str, by: str = "", window: str = RATE, ago: str = "") -> str:
    """Events within the window, summed by labels."""
    return f"sum{_by(by)} (increase({series(metric, *where, window=window, ago=ago)}))"


def _by(labels: str) -> str:
    return f" by ({labels})" if labels else ""


def over(part: str, whole: str) -> str:
    """A part of a whole; nothing, rather than NaN, where the whole is 0."""
    return f"{part} / ({whole} > 0)"


def or_zero(part: str, whole: str) -> str:
    """The part, or 0 for what there is a whole of but no part yet."""
    return f"({part} or 0 * {whole})"


def share(signal: Signal, *where: str, by: str = "", window: str = RATE, ago: str = "") -> str:
    """The share of bad events, from 0 to 1; 0 where none was bad, nothing without traffic."""
    if not isinstance(signal, Share):
        raise TypeError(f"{type(signal).__name__} is not a share of events")
    bad, total = (
        rate(selector.metric, *matchers(selector), *where, by=by, window=window, ago=ago) for selector in (signal.bad, signal.total)
    )
    return over(or_zero(bad, total), total)


def quantile(q: float, metric: Metric, *where: str, by: str = "", ago: str = "") -> str:
    """A quantile in seconds over the whole choice, or by labels; nothing, rather than NaN, where nothing was observed."""
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile({q:g}, {rate(metric, *where, by=labels, suffix='_bucket', ago=ago)}) >= 0"


def mean(metric: Metric, *where: str, by: str = "") -> str:
    """The mean of a histogram's observations."""
    return over(rate(metric, *where, by=by, suffix="_sum"), rate(metric, *where, by=by, suffix="_count"))


def buckets(metric: Metric, *where: str) -> str:
    """A histogram's increases by bucket, for a heatmap."""
    return f"sum by (le) (increase({series(metric, *where, suffix='_bucket', window=RATE)}))"


def of_agents(metric: Metric, *where: str, suffix: str = "") -> str:
    """Events a second on the instances that serve the chosen agents, for series without an `agent_id`."""
    serving = series(REQUESTS_IN_FLIGHT, AGENT)
    return f"sum (rate({series(metric, *where, suffix=suffix, window=RATE)}) and on (job, instance) {serving})"


def by_version(metric: Metric, *where: str, suffix: str = "", labels: str = "version") -> str:
    """Events a second by the version that each instance runs."""
    return f"sum by ({labels}) (rate({series(metric, *where, suffix=suffix, window=RATE)}) {of_version()})"


def of_version() -> str:
    """Joins the version on to the series of each instance that runs, or ran last, one of the chosen versions."""
    info = series(RECORD_RELEASE_INFO, 'version=~"$version"', scope=TARGET)
    return f"* on (job, instance) group_left (version) {info}"


def none_where_no_errors(errors: str, label: str, total: str) -> str:
    """Errors by label, those that happen; or a line at 0 named `none` while there is traffic without any."""
    return f'{errors} > 0 or on () label_replace(0 * {total}, {quote(label)}, "none", "", "")'
