"""PromQL for signals and triggers, so that a rule, a panel and a runbook's query are the same text.

Every expression here yields one series per `(job, version)`. Releases are joined on through `release_info`, which picks the version
that started last on each instance: an instance restarted with another version never matches twice.
"""

from __future__ import annotations

from sage_obs.conventions import (
    RECORD_OVERHEAD_P95,
    RECORD_RELEASE_INFO,
    RELEASE_TIMESTAMP,
    Metric,
)
from sage_obs.slo.signals import QuantileOverReference, Selector, Share, Signal, UnhealthyShare
from sage_obs.slo.triggers import Trigger
from sage_obs.slo.windows import Windows, duration

_INSTANCE = "on (job, instance)"
_VERSION = "by (job, version)"


def quote(value: str) -> str:
    """A PromQL string literal."""
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


def select(selector: Selector, *, suffix: str = "", window: str = "") -> str:
    """A vector selector, or a range selector where a window such as `5m` is given."""
    matchers = [_matcher(name, values, negate=False) for name, values in selector.include]
    matchers += [_matcher(name, values, negate=True) for name, values in selector.exclude]
    braces = "{" + ", ".join(matchers) + "}" if matchers else ""
    return f"{selector.metric.name}{suffix}{braces}" + (f"[{window}]" if window else "")


def _matcher(name: str, values: tuple[str, ...], *, negate: bool) -> str:
    operator = ("!" if negate else "=") + ("=" if negate and len(values) == 1 else "~" if len(values) > 1 else "")
    return f"{name}{operator}{quote('|'.join(values))}"


def recorded(trigger: Trigger, what: str) -> str:
    """The name of the recorded series of a trigger: `what` is `value` or `samples`."""
    return f"job_version:sage_rollback_{trigger.slug.replace('-', '_')}:{what}"


def release_info(windows: Windows) -> str:
    """1 per instance that is a target now, labelled with the version that started there last within the rate window."""
    seen = f"max by (job, instance, version) (last_over_time({RELEASE_TIMESTAMP.name}[{duration(windows.rate)}]))"
    return f"(topk by (job, instance) (1, {seen}) * 0 + 1) and {_INSTANCE} up"


def release_new(windows: Windows, *, info: str = RECORD_RELEASE_INFO) -> str:
    """1 for each version that is here now and was not `novelty` ago, where its job was."""
    before = f"{info} offset {duration(windows.novelty)}"
    return f"max by (job, version) ({info}) unless on (job, version) max by (job, version) ({before}) and on (job) max by (job) ({before})"


def overhead_p95(signal: QuantileOverReference, windows: Windows) -> str:
    """The signal's quantile per job over all versions."""
    return f"histogram_quantile({signal.quantile}, sum by (job, le) (rate({_bucket(signal.histogram)}[{duration(windows.rate)}]))) >= 0"


def reference(signal: QuantileOverReference, windows: Windows) -> str:
    """What the quantile is compared with, per job: its median before anything now new can have started."""
    past = f"{RECORD_OVERHEAD_P95}[{duration(windows.reference)}] offset {duration(windows.novelty)}"
    return (
        f"clamp_min(quantile_over_time(0.5, {past}), {signal.floor:g}) "
        f"or on (job) (max by (job) ({RECORD_RELEASE_INFO}) * 0 + {signal.otherwise:g})"
    )


def value(signal: Signal, windows: Windows, *, info: str = RECORD_RELEASE_INFO) -> str:
    """The signal's value per job and version, in the unit of its triggers; idle versions have no value rather than NaN."""
    match signal:
        case Share(bad, total):
            events = _by_version(f"rate({select(total, window=duration(windows.rate))})", info)
            bad_events = _by_version(f"rate({select(bad, window=duration(windows.rate))})", info)
            return f"({bad_events} or 0 * {events}) / ({events} > 0)"
        case QuantileOverReference(histogram, quantile):
            rates = f"rate({_bucket(histogram)}[{duration(windows.rate)}]) * {_INSTANCE} group_left (version) {_parenthesised(info)}"
            observed = f"(histogram_quantile({quantile}, sum by (job, version, le) ({rates})) >= 0)"
            return f"{observed} / on (job) group_left () ({reference(signal, windows)})"
        case UnhealthyShare(probe):
            worst = f"(min by (job, instance) ({select(probe)}) > bool 0) or {_INSTANCE} (0 * up)"
            healthy = f"(up * {_INSTANCE} ({worst}))"
            return f"1 - avg {_VERSION} ({healthy} * {_INSTANCE} group_left (version) {_parenthesised(info)})"


def samples(signal: Signal, windows: Windows, *, info: str = RECORD_RELEASE_INFO) -> str:
    """How many events, observations or instances the value rests on, per job and version."""
    match signal:
        case Share(_, total):
            return _by_version(f"increase({select(total, window=duration(windows.rate))})", info)
        case QuantileOverReference(histogram):
            return _by_version(f"increase({histogram.name}_count[{duration(windows.rate)}])", info)
        case UnhealthyShare():
            return f"count {_VERSION} (up * {_INSTANCE} group_left (version) {_parenthesised(info)})"


def _by_version(vector: str, info: str) -> str:
    return f"sum {_VERSION} ({vector} * {_INSTANCE} group_left (version) {_parenthesised(info)})"


def _parenthesised(expression: str) -> str:
    return f"({expression})" if " " in expression else expression


def _bucket(metric: Metric) -> str:
    return f"{metric.name}_bucket"


def condition(trigger: Trigger) -> str:
    """The trigger's condition per job and version, new or not, on its recorded series."""
    return f"{recorded(trigger, 'value')} > {trigger.threshold:g} and {recorded(trigger, 'samples')} >= {trigger.min_samples:g}"
