"""Who sends spans and metrics, as OpenTelemetry has it. Imported where something is sent: the SDK takes a quarter of a second to load."""

from __future__ import annotations

import importlib.metadata
import os
import uuid
from typing import Final

from opentelemetry.sdk.resources import Resource

from sage_obs.settings import Settings

_INSTANCE: Final = "service.instance.id"


def resource_of(settings: Settings) -> Resource:
    """The resource of this process, to which OTEL_RESOURCE_ATTRIBUTES adds. An instance that is not named gets a random UUID.

    (OpenTelemetry's conventions for `service.instance.id`.)
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
    return resource if resource.attributes.get(_INSTANCE) else resource.merge(Resource({_INSTANCE: str(uuid.uuid4())}))


def forked(resource: Resource) -> Resource:
    """That of a forked child, which is an instance of its own, as its counters begin at its own zero: its id ends in the process id."""
    return resource.merge(Resource({_INSTANCE: f"{resource.attributes.get(_INSTANCE)}-{os.getpid()}"}))
