"""Libraries of versions that no integration knows."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator

from sage_obs.doctor.findings import Finding, World
from sage_obs.integrations import base
from sage_obs.integrations.base import UnusableLibraryError
from sage_obs.integrations.versions import check


def versions(world: World) -> Iterator[Finding]:
    """What is installed and outside what its integration knows: it runs, and is not measured."""
    del world
    for name in base.NAMES:
        integration = base.load(name)
        try:
            check(integration)
        except UnusableLibraryError as exc:
            if is_installed(getattr(integration, "distribution", integration.name)):
                yield Finding("library", exc.message, exc.hint)


def is_installed(package: str) -> bool:
    """Whether a package is installed, by its name in the registry: a module of that name may be somebody else's."""
    try:
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True
