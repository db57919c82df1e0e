"""Starting the layer by the environment alone, in whatever process this is."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from sage_obs.distro.supervisors import supervises, works

if TYPE_CHECKING:  # every Python comes here first, and not all of them go on
    from sage_obs.lifecycle import Handle

STARTED_BY: Final = "_SAGE_OBS_STARTED_BY"
"""The process that was instrumented from outside first, by its id: its children know by it that they are children."""
_DISABLED: Final = "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS"
_WILDCARD: Final = "*"
_SPAWNED: Final = "--multiprocessing-fork"


class _Process:
    """What has been arranged in this process."""

    def __init__(self) -> None:
        self.waits_for_forks = False
        self.started = False


_process: Final = _Process()


def start() -> Handle | None:
    """Start the layer by the environment, once; None where it starts in this process's children instead.

    It never takes the place of a layer that runs already, and the program may still call `instrument()` with settings of its own.
    """
    if not works(sys.orig_argv):
        return None
    if supervises(sys.orig_argv, os.environ):
        _start_in_forked_children()
        return None
    return _start()


def _start_in_forked_children() -> None:
    """A supervisor's workers are its forks, or are started anew and come to `start` by themselves."""
    if not _process.waits_for_forks:
        _process.waits_for_forks = True
        os.register_at_fork(after_in_child=_start_in_child)


def _start_in_child() -> None:
    """Once on the way down from the supervisor: a worker's own children have what it has, which may be nothing by now."""
    if not _process.started:
        _process.started = True
        _start()


def _start() -> Handle:
    from sage_obs.lifecycle import instrument, running

    if (handle := running()) is not None:
        return handle
    nested = _is_nested(os.environ)
    os.environ.setdefault(STARTED_BY, str(os.getpid()))
    off = disabled(os.environ)
    if nested and not _port_is_free():
        off = (*off, "ops")
    return instrument(log_output=_log_output() if nested else None, disable=off)


def _is_nested(environ: Mapping[str, str]) -> bool:
    return environ.get(STARTED_BY, str(os.getpid())) != str(os.getpid())


def _log_output() -> str | None:
    """Where a child's lines go if nothing is set: its stdout may be what its parent reads an answer from."""
    return None if os.environ.get("SAGE_LOG_OUTPUT") or _SPAWNED in sys.orig_argv else "stderr"


def _port_is_free() -> bool:
    """Whether a child may have the port: where its parent serves there is nothing to say about it.

    It is bound and not listened on, which keeps it from nobody who asks at the same time.
    """
    from sage_obs.errors import SageObsError
    from sage_obs.settings import Settings

    try:
        settings = Settings.load()
        with socket.socket(socket.AF_INET6 if ":" in settings.metrics_host else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((settings.metrics_host, settings.metrics_port))
    except (OSError, SageObsError):
        return False
    return True


def disabled(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Our integrations among those that OpenTelemetry's variable switches off; `*` is all of them."""
    from sage_obs.integrations import base

    names = {name.strip() for name in environ.get(_DISABLED, "").split(",")}
    return tuple(name for name in base.NAMES if name in names or _WILDCARD in names)
