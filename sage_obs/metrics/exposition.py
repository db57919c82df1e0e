"""What /metrics answers: our metrics, and whatever else is in prometheus_client's registry."""

from __future__ import annotations

import gzip
from dataclasses import dataclass

from prometheus_client import REGISTRY
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from sage_obs.metrics.collector import StoreCollector

_OPENMETRICS = "application/openmetrics-text"
_RENAMING = ("escaping=dots", "escaping=values")
"""A scraper that asks for one of these gets other names, with every underscore doubled, which ours are not prepared for."""


@dataclass(frozen=True, slots=True)
class Exposition:
    """A scrape's answer. `encoding` is `gzip`, or empty for plain bytes."""

    content_type: str
    encoding: str
    body: bytes


def expose(*, accept: str, accept_encoding: str, registry: Collector = REGISTRY, ours: StoreCollector | None = None) -> Exposition:
    """Render the registry in the best format the scraper takes; OpenMetrics is the one with exemplars.

    `ours` is registered there and renders itself, many times faster. Compression is level 1: level 9 takes ten times as long for a
    tenth less.
    """
    encode, content_type = choose_encoder(accept)
    if ours is None or content_type.endswith(_RENAMING):
        body = encode(registry)
    else:
        with ours.left_out():
            rest = encode(registry)  # which ends an OpenMetrics page
        body = ours.render(openmetrics=content_type.startswith(_OPENMETRICS)) + rest
    if _takes_gzip(accept_encoding):
        return Exposition(content_type, "gzip", gzip.compress(body, compresslevel=1))
    return Exposition(content_type, "", body)


def _takes_gzip(accept_encoding: str) -> bool:
    """Whether `gzip` is among the codings and not refused by `q=0` (RFC 9110, 12.5.3)."""
    for part in accept_encoding.split(","):
        coding, _, quality = part.replace(" ", "").lower().partition(";")
        if coding == "gzip":
            return quality not in {"q=0", "q=0.0", "q=0.00", "q=0.000"}
    return False
