"""Whether an installed library is of a version an integration knows."""

from __future__ import annotations

import importlib.metadata
import platform
import re
import sys
from typing import Final

from sage_obs.integrations.base import Integration, UnusableLibraryError

_DIGITS: Final = re.compile(r"\d+", re.ASCII)


def numbers(version: str) -> tuple[int, ...]:
    """The release numbers of a version, up to the first part that has none: `0.27.1rc2` is (0, 27, 1)."""
    found = []
    for part in version.split("."):
        match = _DIGITS.match(part)
        if match is None:
            break
        found.append(int(match.group()))
    return tuple(found)


def distribution_of(integration: Integration) -> str:
    """What pip installs for the library: its name, unless the integration says otherwise."""
    found: str = getattr(integration, "distribution", integration.name)
    return found


def is_builtin(library: str) -> bool:
    """Whether Python brings it along."""
    return library in sys.stdlib_module_names


def check(integration: Integration) -> str:
    """The installed version of the integration's library. Raises UnusableLibraryError where it is missing or not known."""
    library = distribution_of(integration)
    try:
        version = platform.python_version() if is_builtin(library) else importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        raise UnusableLibraryError(f"{library} is not installed.", hint=f"Install it: pip install {library}") from None
    first, beyond = integration.versions
    if not numbers(first) <= numbers(version) < numbers(beyond):
        raise UnusableLibraryError(
            f"{library} {version} is not a version this integration knows ({first} up to, not including, {beyond}).",
            hint=f"Install one, or pass disable=['{integration.name}'].",
        )
    return version
