"""Measurements without a Prometheus: the services' own /metrics, scraped twice, and the same definitions applied to the difference."""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from sage_obs.conventions import ERRORS, LLM_CALLS, LLM_ERRORS, REQUESTS, Metric
from sage_obs.errors import UnavailableError
from sage_obs.signals.base import NO_FACTS, Facts, provider_failures, shares
from sage_obs.signals.exposition import Exposition, Series, fetcher, increases, parse
from sage_obs.signals.quantile import histogram_quantile
from sage_obs.slo.signals import QuantileOverReference, Selector, Share, UnhealthyShare
from sage_obs.slo.triggers import TRIGGERS, Measurement, Trigger
from sage_obs.slo.windows import Windows

_FRESH: Final = 0.5
"""Seconds for which a scrape answers further questions, so that all triggers are judged by the same numbers."""
_NOTHING: Final = Measurement(None, None)


@dataclass(frozen=True, slots=True)
class _Scrape:
    """All targets at one moment (monotonic seconds); a target that did not answer has None and the reason in `failures`."""

    at: float
    instances: Mapping[str, Exposition | None]
    failures: Mapping[str, UnavailableError]


class ScrapeSignals:
    """Implements `Signals` over what `targets()` names: addresses with or without `/metrics`.

    The first question takes `windows.rate` seconds, for there must be two scrapes that far apart; later ones slide that window on.
    It has no past: `at` an earlier time it knows nothing, and latency is compared with the trigger's fixed reference.
    """

    def __init__(
        self,
        targets: Callable[[], Sequence[str]],
        windows: Windows,
        *,
        fetch: Callable[[str], str] | None = None,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._targets = targets
        self._window = windows.rate
        self._fetch = fetch or fetcher()
        self._sleep = sleep
        self._clock = clock
        self._history: list[_Scrape] = []

    @property
    def name(self) -> str:
        """See `Signals.name`."""
        return f"direct scrape of {', '.join(self._targets()) or 'nothing'}, two readings {self._window:g} s apart (no Prometheus)"

    def measure(self, trigger: Trigger, *, version: str, at: float | None = None) -> Measurement:
        """See `Signals.measure`."""
        if at is not None:
            return _NOTHING
        earlier, later = self._pair()
        match trigger.signal:
            case Share(bad, total):
                rises = self._rises(earlier, later, version)
                events = _total(rises, total)
                return Measurement(_total(rises, bad) / events if events > 0 else None, events)
            case QuantileOverReference() as signal:
                return _quantile(signal, self._rises(earlier, later, version))
            case UnhealthyShare(probe):
                return _unhealthy(probe, self._of(later, version), self._gone(later, version))

    def versions(self, *, at: float | None = None) -> tuple[str, ...]:
        """See `Signals.versions`."""
        if at is not None:
            return ()
        shown = [one for one in self._pair()[1].instances.values() if one is not None and one.version]
        newest = {one.version: one.started_at for one in sorted(shown, key=lambda one: one.started_at)}
        return tuple(sorted(newest, key=lambda version: (-newest[version], version)))

    def facts(self, *, at: float | None = None) -> Facts:
        """See `Signals.facts`."""
        if at is not None:
            return NO_FACTS
        earlier, later = self._pair()
        rises = [increases(earlier.instances.get(name), one) for name, one in later.instances.items() if one is not None]
        seconds = later.at - earlier.at
        calls = _grouped(rises, LLM_CALLS, "provider")
        failures = _grouped(rises, LLM_ERRORS, "provider", "error_type")
        return Facts(
            requests_per_second=_total(rises, Selector(REQUESTS)) / seconds if seconds > 0 else None,
            errors=shares({kind: rise for (kind,), rise in _grouped(rises, ERRORS, "error_type").items()}),
            providers=provider_failures(
                {(provider, kind): rise for (provider, kind), rise in failures.items()},
                {provider: rise for (provider,), rise in calls.items()},
            ),
        )

    def snapshot(self, *, seconds: float) -> str:
        """See `Signals.snapshot`. There is no past to show: it holds the last window."""
        del seconds
        measured = {version: {one.slug: _shown(self.measure(one, version=version)) for one in TRIGGERS} for version in self.versions()}
        return json.dumps({"source": self.name, "measured": measured}, indent=2, sort_keys=True) + "\n"

    def _pair(self) -> tuple[_Scrape, _Scrape]:
        """Two scrapes at least the window apart, the later one fresh."""
        history = self._history
        if not history:
            history.append(self._scrape())
        wait = history[0].at + self._window - self._clock()
        if wait > 0:
            self._sleep(wait)
        if len(history) == 1 or self._clock() - history[-1].at > _FRESH:
            history.append(self._scrape())
        while len(history) > 2 and history[1].at <= history[-1].at - self._window:  # noqa: PLR2004 - a pair
            del history[0]
        return history[0], history[-1]

    def _scrape(self) -> _Scrape:
        instances: dict[str, Exposition | None] = {}
        failures: dict[str, UnavailableError] = {}
        for target in self._targets():
            try:
                instances[target] = parse(self._fetch(target), source=target)
            except UnavailableError as exc:
                instances[target], failures[target] = None, exc
        if not instances:
            raise UnavailableError("There is nothing to scrape.", hint="Pass --target URL, the address of the service's metrics.")
        if not self._history and len(failures) == len(instances):
            raise next(iter(failures.values()))
        return _Scrape(self._clock(), instances, failures)

    def _of(self, scrape: _Scrape, version: str) -> list[Exposition]:
        return [one for one in scrape.instances.values() if one is not None and one.version == version]

    def _gone(self, later: _Scrape, version: str) -> int:
        """How many targets do not answer that ran this release when they last did, or never did."""
        return sum(1 for name, one in later.instances.items() if one is None and self._last_version(name) in (version, None))

    def _last_version(self, target: str) -> str | None:
        seen = (scrape.instances.get(target) for scrape in reversed(self._history))
        return next((one.version for one in seen if one is not None), None)

    def _rises(self, earlier: _Scrape, later: _Scrape, version: str) -> list[Series]:
        shown = ((name, one) for name, one in later.instances.items() if one is not None and one.version == version)
        return [increases(earlier.instances.get(name), one) for name, one in shown]


def _matching(series: Iterable[Series], selector: Selector, suffix: str = "") -> Iterable[tuple[dict[str, str], float]]:
    for one in series:
        for (name, labels), value in one.items():
            if name == selector.metric.name + suffix and not math.isnan(value) and selector.accepts(dict(labels)):
                yield dict(labels), value


def _total(series: Iterable[Series], selector: Selector, suffix: str = "") -> float:
    return sum(value for _, value in _matching(series, selector, suffix))


def _grouped(series: Iterable[Series], metric: Metric, *labels: str) -> dict[tuple[str, ...], float]:
    groups: defaultdict[tuple[str, ...], float] = defaultdict(float)
    for found, value in _matching(series, Selector(metric)):
        groups[tuple(found.get(label, "") for label in labels)] += value
    return dict(groups)


def _quantile(signal: QuantileOverReference, rises: list[Series]) -> Measurement:
    selector = Selector(signal.histogram)
    buckets: defaultdict[float, float] = defaultdict(float)
    for labels, rise in _matching(rises, selector, "_bucket"):
        with contextlib.suppress(KeyError, ValueError):  # a bucket without a bound is no bucket
            buckets[float(labels["le"])] += rise
    observed = histogram_quantile(signal.quantile, buckets)
    return Measurement(None if observed is None else observed / signal.otherwise, _total(rises, selector, "_count"))


def _unhealthy(probe: Selector, shown: list[Exposition], gone: int) -> Measurement:
    instances = len(shown) + gone
    failing = sum(1 for one in shown if any(value <= 0 for _, value in _matching([one.series], probe)))
    return Measurement((failing + gone) / instances, instances) if instances else _NOTHING


def _shown(measurement: Measurement) -> dict[str, float | None]:
    return {"value": measurement.value, "samples": measurement.samples}
