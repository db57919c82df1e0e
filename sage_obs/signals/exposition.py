"""One scrape of a service's /metrics, as values that can be subtracted from each other."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from sage_obs.conventions import METRICS_PATH, RELEASE_TIMESTAMP
from sage_obs.errors import UnavailableError

Labels = frozenset[tuple[str, str]]
Series = Mapping[tuple[str, Labels], float]
_HINT: Final = "Check the address: it is where the service shows its metrics, such as http://localhost:9090."


@dataclass(frozen=True, slots=True)
class Exposition:
    """What one instance showed: its series, the release it runs and when that started there (Unix time)."""

    version: str
    started_at: float
    series: Series


def metrics_url(target: str) -> str:
    """The URL of /metrics for a target given with or without a path or a scheme."""
    url = target if "://" in target else f"http://{target}"
    return url if url.rstrip("/").endswith(METRICS_PATH) else url.rstrip("/") + METRICS_PATH


def parse(text: str, *, source: str) -> Exposition:
    """Read the text format. Raises UnavailableError when it is something else."""
    from prometheus_client.parser import text_string_to_metric_families

    try:
        samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    except (ValueError, KeyError, IndexError) as exc:
        raise UnavailableError(f"{source} does not show metrics in Prometheus's text format ({exc}).", hint=_HINT) from exc
    series = {(sample.name, frozenset(sample.labels.items())): float(sample.value) for sample in samples}
    releases = [(value, dict(labels).get("version", "")) for (name, labels), value in series.items() if name == RELEASE_TIMESTAMP.name]
    started_at, version = max(releases, default=(0.0, ""))
    return Exposition(version, started_at, series)


def fetcher() -> Callable[[str], str]:
    """A function that GETs a target's metrics as text and raises UnavailableError."""
    from sage_obs.signals.http import get, new_client

    client = new_client()

    def fetch(target: str) -> str:
        response = get(client, metrics_url(target), what="the service's metrics", hint=_HINT)
        if response.status_code != 200:  # noqa: PLR2004 - HTTP's OK
            raise UnavailableError(f"{metrics_url(target)} answered with status {response.status_code}.", hint=_HINT)
        return response.text

    return fetch


def increases(earlier: Exposition | None, later: Exposition) -> Series:
    """How much each series rose between two scrapes of one instance.

    A counter starts at 0 with its process: where the release or its start differ, where the earlier scrape is missing, or where a
    value fell, what is counted is all there is since the restart.
    """
    same = earlier is not None and (earlier.version, earlier.started_at) == (later.version, later.started_at)
    before = earlier.series if earlier is not None and same else {}
    return {key: value - before.get(key, 0.0) if value >= before.get(key, 0.0) else value for key, value in later.series.items()}
