"""Every check, one after the other; one that fails is a finding and keeps nothing else from being found."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final

from sage_obs.doctor import endpoint, libraries, opentelemetry, order, places, variables
from sage_obs.doctor.findings import Finding, World

Check = Callable[[World], Iterable[Finding]]

CHECKS: Final[tuple[Check, ...]] = (
    opentelemetry.selection,
    opentelemetry.duplicates,
    opentelemetry.exporters,
    opentelemetry.protocol,
    opentelemetry.disabled,
    order.order,
    libraries.versions,
    variables.unknown,
    variables.unusable,
    variables.log_output,
    places.multiprocess_folder,
    places.metrics_port,
    endpoint.reachable,
)
"""What is looked for, in the order it is told."""


def examine(world: World, checks: Iterable[Check] = CHECKS) -> tuple[Finding, ...]:
    """Every finding."""
    return tuple(finding for check in checks for finding in _run(check, world))


def _run(check: Check, world: World) -> Iterator[Finding]:
    try:
        yield from check(world)
    except Exception as exc:  # noqa: BLE001 - whatever is wrong with the surroundings, the other checks tell more
        name = f"{check.__module__.rpartition('.')[2]}.{check.__name__}"
        yield Finding("doctor", f"The check {name} failed: {type(exc).__name__}.", "Please report it.")
