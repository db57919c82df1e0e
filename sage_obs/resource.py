"""Who sends spans and metrics, as OpenTelemetry has it. Imported where something is sent: the SDK takes a quarter of a second to load."""

from __future__ import annotations

import importlib.metadata
import os
import uuid
from typing import Final

from opentelemetry.sdk.resources import Resource

from sage_obs.settings import Settings

_INSTANCE: Final = "service.instance.id"


def resource_of(settings: Settings, *, forked: bool = False) -> Resource:
    """The resource of this process. OTEL_RESOURCE_ATTRIBUTES adds to it.

    Each process is an instance of its own, as its counters begin at its own zero: in a `forked` child an id that was given ends in the
    child's process id, and where none was given each process makes one, a random UUID as the conventions have it.
    """
    resource = Resource.create(
        {
            "service.name": settings.service_name,
            "service.version": settings.version,
            "sage.agent_id": settings.agent_id,
            "telemetry.distro.name": "sage-obs",
            "telemetry.distro.version": importlib.metadata.version("sage-obs"),
        }
    )
    given = resource.attributes.get(_INSTANCE)
    if given and not forked:
        return resource
    return resource.merge(Resource({_INSTANCE: f"{given}-{os.getpid()}" if given else str(uuid.uuid4())}))
