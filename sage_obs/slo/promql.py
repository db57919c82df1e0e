"""PromQL for signals and triggers, so that a rule, a panel and a runbook's query are the same text.

Values and samples have one series per `(job, version)`. Releases are joined on through `release_info`, which picks the version that
started last on each instance: an instance restarted with another version never matches twice, and is judged by what happened since
(`release_changed`), so that a release is never blamed for the one it replaced.
"""

from __future__ import annotations

import re
from typing import Final

from sage_obs.conventions import (
    RECORD_OVERHEAD_P95,
    RECORD_RELEASE_CHANGED,
    RECORD_RELEASE_INFO,
    RELEASE_TIMESTAMP,
)
from sage_obs.slo.signals import QuantileOverReference, Selector, Share, Signal, UnhealthyShare
from sage_obs.slo.triggers import Trigger
from sage_obs.slo.windows import Windows, duration

_INSTANCE: Final = "on (job, instance)"
_SPECIAL: Final = re.compile(r"[\\.+*?()|\[\]{}^$]")
_ESCAPED: Final = r"\\\g<0>"


def quote(value: str) -> str:
    """A PromQL string literal."""
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


def select(selector: Selector, *, suffix: str = "", window: str = "") -> str:
    """A vector selector, or a range selector where a window such as `5m` is given."""
    braces = "{" + ", ".join(matchers(selector)) + "}" if selector.include or selector.exclude else ""
    return f"{selector.metric.name}{suffix}{braces}" + (f"[{window}]" if window else "")


def matchers(selector: Selector) -> tuple[str, ...]:
    """The label matchers of a selection."""
    included = (_matcher(name, values, negate=False) for name, values in selector.include)
    return (*included, *(_matcher(name, values, negate=True) for name, values in selector.exclude))


def _matcher(name: str, values: tuple[str, ...], *, negate: bool) -> str:
    sign = "!" if negate else "="
    if len(values) == 1:
        return f"{name}{'!=' if negate else '='}{quote(values[0])}"
    return f"{name}{sign}~{quote('|'.join(_SPECIAL.sub(_ESCAPED, value) for value in values))}"


def recorded(trigger: Trigger, what: str) -> str:
    """The name of the recorded series of a trigger: `what` is `value` or `samples`."""
    return f"job_version:sage_rollback_{trigger.slug.replace('-', '_')}:{what}"


def release_info(windows: Windows) -> str:
    """1 per instance that is a target now, labelled with the version that started there last, up to `novelty` ago.

    The long look back keeps an instance that no longer answers with its release for as long as that release is new.
    """
    seen = f"max by (job, instance, version) (last_over_time({RELEASE_TIMESTAMP.name}[{duration(windows.novelty)}]))"
    return f"(topk by (job, instance) (1, {seen}) * 0 + 1) and {_INSTANCE} up"


def release_changed(windows: Windows) -> str:
    """How many versions ran on an instance within the rate window, where there was more than one."""
    return f"count by (job, instance) (last_over_time({RELEASE_TIMESTAMP.name}[{duration(windows.rate)}])) > 1"


def release_new(windows: Windows, *, info: str = RECORD_RELEASE_INFO) -> str:
    """1 for each version that is here now and was not `novelty` ago, where its job was."""
    before = f"{_parenthesised(info)} offset {duration(windows.novelty)}"
    return f"max by (job, version) ({info}) unless on (job, version) max by (job, version) ({before}) and on (job) max by (job) ({before})"


def overhead_p95(signal: QuantileOverReference, windows: Windows) -> str:
    """The signal's quantile per job over all versions."""
    buckets = select(Selector(signal.histogram), suffix="_bucket", window=duration(windows.rate))
    return f"histogram_quantile({signal.quantile}, sum by (job, le) (rate({buckets}))) >= 0"


def reference(signal: QuantileOverReference, windows: Windows) -> str:
    """What the quantile is compared with, per job: its median before anything now new can have started."""
    past = f"{RECORD_OVERHEAD_P95}[{duration(windows.reference)}] offset {duration(windows.novelty)}"
    return (
        f"clamp_min(quantile_over_time(0.5, {past}), {signal.floor:g}) "
        f"or on (job) (max by (job) ({RECORD_RELEASE_INFO}) * 0 + {signal.otherwise:g})"
    )


def events(selector: Selector, windows: Windows, *, suffix: str = "") -> str:
    """How much each selected counter rose within the rate window, on an instance that changed its version: since it did.

    A counter starts at 0 with its process, so there its value is what happened since.
    """
    now = select(selector, suffix=suffix)
    rise = f"increase({select(selector, suffix=suffix, window=duration(windows.rate))})"
    return f"({now} and {_INSTANCE} {RECORD_RELEASE_CHANGED} or {rise} unless {_INSTANCE} {RECORD_RELEASE_CHANGED})"


def value(signal: Signal, windows: Windows, *, info: str = RECORD_RELEASE_INFO) -> str:
    """The signal's value per job and version, in the unit of its triggers; idle versions have no value rather than NaN."""
    match signal:
        case Share(bad, total):
            all_events = _sum(events(total, windows), info)
            return f"({_sum(events(bad, windows), info)} or 0 * {all_events}) / ({all_events} > 0)"
        case QuantileOverReference(histogram, quantile):
            buckets = _sum(events(Selector(histogram), windows, suffix="_bucket"), info, by="job, version, le")
            return f"(histogram_quantile({quantile}, {buckets}) >= 0) / on (job) group_left () ({reference(signal, windows)})"
        case UnhealthyShare(probe):
            passing = f"(min by (job, instance) ({select(probe)}) > bool 0 or {_INSTANCE} up)"
            return f"1 - {_aggregate('avg', passing, info)}"


def samples(signal: Signal, windows: Windows, *, info: str = RECORD_RELEASE_INFO) -> str:
    """How many events, observations or instances the value rests on, per job and version."""
    match signal:
        case Share(_, total):
            return _sum(events(total, windows), info)
        case QuantileOverReference(histogram):
            return _sum(events(Selector(histogram), windows, suffix="_count"), info)
        case UnhealthyShare():
            return _aggregate("count", "up", info)


def _sum(vector: str, info: str, *, by: str = "job, version") -> str:
    return _aggregate("sum", vector, info, by=by)


def _aggregate(operator: str, vector: str, info: str, *, by: str = "job, version") -> str:
    """Join the version on to each instance's series, then aggregate."""
    return f"{operator} by ({by}) ({vector} * {_INSTANCE} group_left (version) {_parenthesised(info)})"


def _parenthesised(expression: str) -> str:
    return f"({expression})" if " " in expression else expression


def condition(trigger: Trigger) -> str:
    """The trigger's condition per job and version, new or not, on its recorded series."""
    return f"{recorded(trigger, 'value')} > {trigger.threshold:g} and {recorded(trigger, 'samples')} >= {trigger.min_samples:g}"
