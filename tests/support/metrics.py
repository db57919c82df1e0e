"""Read metrics as a scraper does."""

from __future__ import annotations

from prometheus_client import REGISTRY

from sage_obs.conventions import Metric


def value(metric: Metric, *, suffix: str = "", **labels: str) -> float:
    """The sum of the samples with these labels; what is not there counts 0."""
    name = metric.name + suffix
    return sum(
        sample.value
        for family in REGISTRY.collect()
        for sample in family.samples
        if sample.name == name and all(sample.labels.get(key) == wanted for key, wanted in labels.items())
    )


def children(metric: Metric) -> list[dict[str, str]]:
    """The labels of the samples a scraper sees of a counter or gauge."""
    return [sample.labels for family in REGISTRY.collect() for sample in family.samples if sample.name == metric.name]
