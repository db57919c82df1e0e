"""What a service is doing, on /metrics."""

from __future__ import annotations

import asyncio
from typing import Final

import sage_obs
from sage_agent.flow.service import Service
from sage_obs.conventions import QUEUE_CAPACITY, QUEUE_DEPTH, WORKERS, WORKERS_BUSY

_EVERY_SECONDS: Final = 0.5


def report(service: Service, agent: str) -> None:
    """Say how full its gates are."""
    sage_obs.series(QUEUE_DEPTH, agent).set(service.slots.waiting)
    sage_obs.series(QUEUE_CAPACITY, agent).set(service.slots.queue or 0)
    sage_obs.series(WORKERS, agent).set(service.workers.size)
    sage_obs.series(WORKERS_BUSY, agent).set(service.workers.inside)


async def keep_reporting(service: Service, agent: str) -> None:
    """Say so twice a second."""
    while True:
        report(service, agent)
        await asyncio.sleep(_EVERY_SECONDS)
