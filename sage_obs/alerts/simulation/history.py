"""An incident that was: the series that rules read, from a Prometheus's HTTP API, one value for every step."""

from __future__ import annotations

import datetime as dt
import itertools
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sage_obs.alerts.simulation.model import Incident, Series
from sage_obs.alerts.simulation.probe import number_text, series_text
from sage_obs.alerts.simulation.reading import LOOKBACK, Read
from sage_obs.errors import ConfigError, UnavailableError
from sage_obs.slo.promql import quote

if TYPE_CHECKING:
    import httpx

TIMEOUT: Final = 60.0
"""Seconds for one answer: a query over hours takes longer than one about now."""
_MOST_SAMPLES: Final = 2_000_000
"""Of all series together, which is some 300 MB of memory here."""
_CHUNK_SAMPLES: Final = 250_000
"""Of one answer, about 10 MB of JSON."""
_CHUNK_POINTS: Final = 10_000
"""Of one series in one answer: Prometheus refuses more than 11,000."""
_MOST_BYTES: Final = 128 * 2**20
"""Of one answer, whatever it was expected to be."""
_HINT: Final = "Check --prometheus: it is the address that Grafana has as its data source."

Labels = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Span:
    """From `start` to `end` (Unix seconds), one value every `step` seconds; what is before `shown` is there to fill windows."""

    start: float
    end: float
    step: float
    shown: float

    @property
    def points(self) -> int:
        """How many values a series can have."""
        return math.floor((self.end - self.start) / self.step + 1e-6) + 1


def span(begin: float, end: float, *, step: float, warmup: float, grid: float) -> Span:
    """The span that shows what was from `begin` to `end`, its start a multiple of `grid` seconds, so that another run has the same times.

    Raises ConfigError for a span that is none, or steps so long that a series would come and go.
    """
    if not begin < end:
        raise ConfigError("--from is not before --to.", hint="Both are times such as 2026-11-30T08:00:00Z, Unix seconds, or now-2h.")
    if not 0 < step <= LOOKBACK:
        raise ConfigError(
            f"--step is {step:g} s, not over 0 and at most {LOOKBACK:g} s.", hint="Take the interval at which targets are scraped."
        )
    return Span(math.floor((begin - warmup) / grid) * grid, end, step, begin)


def fetch(
    url: str,
    reads: Sequence[Read],
    when: Span,
    *,
    jobs: Sequence[str] = (),
    client: httpx.Client | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> tuple[Incident, tuple[str, ...]]:
    """What `reads` select within a span, of these jobs only where some are named; and the metrics that are not there.

    Raises UnavailableError where nobody answers, something else than Prometheus does, there is nothing, or there is too much.
    """
    import httpx

    with client or httpx.Client(timeout=TIMEOUT, trust_env=False) as opened:
        server = _Server(url.rstrip("/"), opened)
        selectors = {_of_jobs(one.selector, jobs): one.metric or one.selector for one in reads}
        sizes = {selector: server.count(selector, when) for selector in selectors}
        _check(sizes, when, server.shown)
        say(f"reading {sum(sizes.values()):,} series of {server.shown} ...")
        series: dict[Labels, list[str | None]] = {}
        for selector, size in sizes.items():
            for found, values in server.values(selector, size, when):
                series.setdefault(found, [None] * when.points)[values.start : values.start + len(values.texts)] = values.texts
    there = {dict(labels).get("__name__", "") for labels in series}
    missing = sorted({name for selector, name in selectors.items() if not sizes[selector] and name not in there})
    notated = tuple(Series(series_text(dict(labels)), notation(values)) for labels, values in sorted(series.items()))
    return Incident(notated, when.step, when.end - when.start, when.start, when.shown - when.start), tuple(missing)


def _of_jobs(selector: str, jobs: Sequence[str]) -> str:
    if not jobs:
        return selector
    wanted = f"job=~{quote('|'.join(re.escape(job) for job in jobs))}"
    name, brace, rest = selector.partition("{")
    return f"{name}{{{wanted}{', ' + rest if brace and rest != '}' else '}'}"


def _check(sizes: Mapping[str, int], when: Span, server: str) -> None:
    total = sum(sizes.values())
    if not total:
        raise UnavailableError(
            f"Prometheus at {server} has none of the {len(sizes)} series that the rules read, from {_utc(when.start)} to {_utc(when.end)}.",
            hint="Check --from, --to and --job; the past may be longer ago than the server keeps it.",
        )
    if total * when.points > _MOST_SAMPLES:
        raise UnavailableError(
            f"{total:,} series with {when.points:,} values each are more than the {_MOST_SAMPLES:,} that can be replayed.",
            hint="Narrow it with --job, a later --from or a shorter --warmup, name fewer --rules, or take a longer --step.",
        )


def _utc(at: float) -> str:
    return dt.datetime.fromtimestamp(at, dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass(frozen=True, slots=True)
class _Values:
    """Values of a series from the step `start` on."""

    start: int
    texts: list[str | None]


@dataclass(frozen=True, slots=True)
class _Server:
    url: str
    client: httpx.Client

    @property
    def shown(self) -> str:
        """The address without the password that may be in it."""
        return re.sub(r"//[^/@]*@", "//", self.url)

    def count(self, selector: str, when: Span) -> int:
        """How many series there were."""
        window = math.ceil(when.end - when.start)
        result = self._ask("query", {"query": f"count(count_over_time({selector}[{window}s]))", "time": f"{when.end:.3f}"})
        try:
            return int(float(result[0]["value"][1])) if result else 0
        except (KeyError, TypeError, ValueError, IndexError) as exc:
            raise self._no_prometheus("its answer has another form") from exc

    def values(self, selector: str, size: int, when: Span) -> Iterator[tuple[Labels, _Values]]:
        """The series with their values, chunk by chunk."""
        length = max(1, min(_CHUNK_POINTS, _CHUNK_SAMPLES // max(1, size)))
        for first in range(0, when.points if size else 0, length):
            last = min(first + length, when.points) - 1
            start = when.start + first * when.step
            span_of = {"start": f"{start:.3f}", "end": f"{when.start + last * when.step:.3f}", "step": f"{when.step:.3f}"}
            for one in self._ask("query_range", {"query": selector, **span_of}):
                yield self._series(one, first, last, start, when.step)

    def _series(self, one: Any, first: int, last: int, start: float, step: float) -> tuple[Labels, _Values]:
        texts: list[str | None] = [None] * (last - first + 1)
        try:
            labels = tuple(sorted((str(name), str(value)) for name, value in one["metric"].items()))
            for at, text in one.get("values", ()):  # a native histogram has none
                float(text)
                texts[round((at - start) / step)] = text
        except (KeyError, TypeError, ValueError, IndexError, AttributeError) as exc:
            raise self._no_prometheus("its answer has another form") from exc
        return labels, _Values(first, texts)

    def _ask(self, endpoint: str, parameters: dict[str, str]) -> list[Any]:
        status, content = self._post(f"{self.url}/api/v1/{endpoint}", parameters)
        try:
            body = json.loads(content)
        except ValueError as exc:
            raise self._no_prometheus(f"status {status}, no JSON") from exc
        if not isinstance(body, dict) or body.get("status") not in ("success", "error"):
            raise self._no_prometheus(f"status {status}")
        if body["status"] == "error":
            raise UnavailableError(
                f"Prometheus at {self.shown} refused `{parameters['query'][:200]}`: {body.get('error', 'no reason given')}.",
                hint="What takes too long or reads too much gets through with a shorter span, a longer --step or --job.",
            )
        result = body["data"].get("result") if isinstance(body.get("data"), dict) else None
        if not isinstance(result, list):
            raise self._no_prometheus("its answer has another form")
        return result

    def _post(self, url: str, parameters: dict[str, str]) -> tuple[int, bytes]:
        import httpx

        content = bytearray()
        try:
            with self.client.stream("POST", url, data=parameters) as response:
                for part in response.iter_bytes():
                    content += part
                    if len(content) > _MOST_BYTES:
                        raise UnavailableError(
                            f"An answer of {self.shown} is longer than {_MOST_BYTES // 2**20} MiB.",
                            hint="Narrow it with --job or a longer --step.",
                        )
        except httpx.TimeoutException as exc:
            raise UnavailableError(f"Prometheus at {self.shown} did not answer within {TIMEOUT:g} s.", hint=_HINT) from exc
        except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as exc:
            why = "connection refused" if "Connection refused" in str(exc) else str(exc) or type(exc).__name__
            raise UnavailableError(f"Cannot reach Prometheus at {self.shown} ({why}).", hint=_HINT) from exc
        return response.status_code, bytes(content)

    def _no_prometheus(self, why: str) -> UnavailableError:
        return UnavailableError(f"{self.shown} does not answer as Prometheus does ({why}).", hint=_HINT)


def notation(values: Sequence[str | None]) -> str:
    """Values in promtool's notation; a series that is not there any more is stale at once."""
    tokens: list[str] = []
    before: str | None = None
    for value in values:
        if value is not None:
            tokens.append(number_text(value))
        else:
            tokens.append("_" if before is None else "stale")
        before = value
    return " ".join(_shortened(tokens))


def _shortened(tokens: Iterable[str]) -> Iterator[str]:
    """Runs of whole numbers and of gaps as one: most gauges stand still."""
    for one, run in itertools.groupby(tokens):
        times = len(list(run))
        if times > 1 and one == "_":
            yield f"_x{times}"
        elif times > 1 and one.isdecimal():
            yield f"{one}x{times - 1}"
        else:
            yield from itertools.repeat(one, times)
