"""Measurements from a Prometheus, or anything that speaks its HTTP API.

Recorded series are read where the rules are loaded; where they are not, the expressions behind them are evaluated instead.
"""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sage_obs.conventions import (
    ERRORS,
    JOB,
    LLM_CALLS,
    LLM_ERRORS,
    RECORD_OVERHEAD_P95,
    RECORD_RELEASE_CHANGED,
    RECORD_RELEASE_INFO,
    RELEASE_TIMESTAMP,
    REQUESTS,
)
from sage_obs.errors import UnavailableError
from sage_obs.signals.base import Facts, provider_failures, shares
from sage_obs.signals.http import get, new_client
from sage_obs.slo import promql
from sage_obs.slo.signals import QuantileOverReference, Signal
from sage_obs.slo.triggers import TRIGGERS, Measurement, Trigger
from sage_obs.slo.windows import Windows, duration

if TYPE_CHECKING:
    import httpx

_HINT: Final = "Start it with `sage-obs up`, or pass --target URL to scrape the service directly."
_STEPS: Final = 60
"""How many points a range or a subquery is sampled at."""


@dataclass(frozen=True, slots=True)
class Row:
    """One series of an answer."""

    labels: Mapping[str, str]
    value: float


class PrometheusSignals:
    """Implements `Signals` over the HTTP API at `url` for the services scraped as `job`."""

    def __init__(
        self,
        url: str,
        windows: Windows,
        *,
        job: str = JOB,
        client: httpx.Client | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._url = url.rstrip("/")
        self._windows = windows
        self._job = job
        self._client = client or new_client()
        self._clock = clock

    @property
    def name(self) -> str:
        """See `Signals.name`."""
        return f"Prometheus at {self._url}"

    def measure(self, trigger: Trigger, *, version: str, at: float | None = None) -> Measurement:
        """See `Signals.measure`. Empty and NaN answers are None; several series for one release raise UnavailableError."""
        samples = self._one(self._rows(trigger, "samples", at), version)
        value = self._one(self._rows(trigger, "value", at), version)
        return Measurement(value, samples)

    def _rows(self, trigger: Trigger, what: str, at: float | None) -> list[Row]:
        rows = self._query(f"{promql.recorded(trigger, what)}{{job={promql.quote(self._job)}}}", at)
        return rows or [row for row in self._query(expression(trigger, what, self._windows), at) if row.labels.get("job") == self._job]

    def _one(self, rows: list[Row], version: str) -> float | None:
        values = [row.value for row in rows if row.labels.get("version") == version]
        if len(values) > 1:
            raise UnavailableError(
                f"{self.name} has {len(values)} series for job {self._job} and version {version}, where one is expected.",
                hint="Ask a Prometheus that holds one copy of each series.",
            )
        return values[0] if values and math.isfinite(values[0]) else None

    def versions(self, *, at: float | None = None) -> tuple[str, ...]:
        """See `Signals.versions`."""
        rows = self._query(f"max by (version) ({RELEASE_TIMESTAMP.name}{{job={promql.quote(self._job)}}})", at)
        latest = sorted(rows, key=lambda row: (-row.value, row.labels.get("version", "")))
        return tuple(row.labels["version"] for row in latest if row.labels.get("version"))

    def facts(self, *, at: float | None = None) -> Facts:
        """See `Signals.facts`."""
        requests = self._increases(REQUESTS.name, "", at)
        calls = self._increases(LLM_CALLS.name, "provider", at)
        failures = self._increases(LLM_ERRORS.name, "provider, error_type", at)
        errors = self._increases(ERRORS.name, "error_type", at)
        return Facts(
            requests_per_second=requests[0].value / self._windows.rate if requests else None,
            errors=shares({row.labels["error_type"]: row.value for row in errors}),
            providers=provider_failures(
                {(row.labels["provider"], row.labels["error_type"]): row.value for row in failures},
                {row.labels["provider"]: row.value for row in calls},
            ),
        )

    def _increases(self, metric: str, by: str, at: float | None) -> list[Row]:
        selector = f"{metric}{{job={promql.quote(self._job)}}}[{duration(self._windows.rate)}]"
        wanted = {label.strip() for label in by.split(",") if label.strip()}
        rows = self._query(f"sum by ({by}) (increase({selector}))", at)
        return [row for row in rows if math.isfinite(row.value) and wanted <= set(row.labels)]

    def snapshot(self, *, seconds: float) -> str:
        """See `Signals.snapshot`."""
        end = self._clock()
        span = {"start": f"{end - seconds:.3f}", "end": f"{end:.3f}", "step": f"{max(seconds / _STEPS, 1.0):.3f}"}
        answers = {
            name: self._ask("query_range", {"query": name, **span})
            for trigger in TRIGGERS
            for name in (promql.recorded(trigger, "value"), promql.recorded(trigger, "samples"))
        }
        return json.dumps({"source": self.name, **span, "series": answers}, indent=2, sort_keys=True) + "\n"

    def _query(self, query: str, at: float | None) -> list[Row]:
        parameters = {"query": query} if at is None else {"query": query, "time": f"{at:.3f}"}
        try:
            return [Row(one["metric"], float(one["value"][1])) for one in self._ask("query", parameters)]
        except (KeyError, TypeError, ValueError, IndexError) as exc:
            raise self._not_prometheus("its answer has another form") from exc

    def _ask(self, endpoint: str, parameters: dict[str, str]) -> Any:
        response = get(self._client, f"{self._url}/api/v1/{endpoint}", what="Prometheus", hint=_HINT, params=parameters)
        try:
            body = response.json()
        except ValueError as exc:
            raise self._not_prometheus(f"status {response.status_code}, no JSON") from exc
        if not isinstance(body, dict) or body.get("status") not in ("success", "error"):
            raise self._not_prometheus(f"status {response.status_code}")
        if body["status"] == "error":
            raise UnavailableError(f"{self.name} refused a query: {body.get('error', 'no reason given')}.", hint="Its log says more.")
        data = body.get("data")
        return data.get("result", []) if isinstance(data, dict) else []

    def _not_prometheus(self, why: str) -> UnavailableError:
        return UnavailableError(f"{self._url} does not answer as Prometheus does ({why}).", hint=_HINT)


def expression(trigger: Trigger, what: str, windows: Windows) -> str:
    """The expression behind a trigger's recorded series, with the expressions behind every other recorded series it needs."""
    info = f"({promql.release_info(windows)})"
    render = promql.value if what == "value" else promql.samples
    text = render(trigger.signal, windows, info=info)
    text = re.sub(rf"{re.escape(RECORD_OVERHEAD_P95)}\[(\w+)\]", lambda found: _subquery(trigger.signal, windows, found[1]), text)
    text = text.replace(RECORD_RELEASE_CHANGED, f"({promql.release_changed(windows)})")
    return text.replace(RECORD_RELEASE_INFO, info)


def _subquery(signal: Signal, windows: Windows, window: str) -> str:
    if not isinstance(signal, QuantileOverReference):
        raise TypeError("only a quantile has a reference")
    return f"({promql.overhead_p95(signal, windows)})[{window}:{duration(max(windows.reference / _STEPS, windows.evaluation))}]"
