"""How much is done at once."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ConcurrencyConfig:
    """How many model calls run at once, how many requests are served at once, and how many more may wait."""

    worker_pool_size: int
    max_concurrent: int
    queue_size: int
