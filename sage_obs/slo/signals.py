"""What a trigger looks at, as data.

A signal is evaluated by three readers that share these definitions: PromQL text (`sage_obs.slo.promql`), a live Prometheus and a
direct scrape of /metrics (both in `sage_obs.signals`).
"""

from __future__ import annotations

from dataclasses import dataclass

from sage_obs.conventions import Metric


@dataclass(frozen=True, slots=True)
class Selector:
    """Series of one metric. `include` and `exclude` map a label to the values it must or must not have."""

    metric: Metric
    include: tuple[tuple[str, tuple[str, ...]], ...] = ()
    exclude: tuple[tuple[str, tuple[str, ...]], ...] = ()

    def accepts(self, labels: dict[str, str]) -> bool:
        """Whether a series with these labels belongs to the selection."""
        return all(labels.get(name, "") in values for name, values in self.include) and all(
            labels.get(name, "") not in values for name, values in self.exclude
        )


@dataclass(frozen=True, slots=True)
class Share:
    """The share of `bad` events among `total` events over the window, a ratio from 0 to 1; its samples are the total events."""

    bad: Selector
    total: Selector


@dataclass(frozen=True, slots=True)
class QuantileOverReference:
    """A histogram's quantile over the window divided by a reference in the histogram's unit; its samples are the observations.

    The reference is the same quantile before the release, at least `floor`; where nothing was observed then, it is `otherwise`.
    """

    histogram: Metric
    quantile: float
    floor: float
    otherwise: float


@dataclass(frozen=True, slots=True)
class UnhealthyShare:
    """The share of instances, from 0 to 1, that cannot be scraped or whose probe says 0; its samples are the instances."""

    probe: Selector


Signal = Share | QuantileOverReference | UnhealthyShare
