"""Run by every Python that finds this folder on PYTHONPATH, before its program: the program's own sitecustomize first, then the layer."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import logging
import os
import sys


def _run_the_next_one() -> None:
    """Run the sitecustomize that this one hides, in its place; what it raises is Python's to report."""
    here = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120 - pathlib would load half the standard library into every child
    sys.path[:] = [entry for entry in sys.path if os.path.abspath(entry) != here]  # noqa: PTH100 - the same
    spec = importlib.machinery.PathFinder.find_spec("sitecustomize")
    if spec is not None and spec.loader is not None:
        module = importlib.util.module_from_spec(spec)
        sys.modules["sitecustomize"] = module
        spec.loader.exec_module(module)


def _start() -> None:
    try:
        from sage_obs.distro.autostart import start
    except ImportError:  # a child may be of another environment, which has no sage_obs and goes without
        return
    try:
        start()
    except Exception:  # the program must run whatever is wrong with its telemetry
        logging.getLogger("sage_obs").warning("telemetry is off", exc_info=True)


try:
    _run_the_next_one()
finally:
    _start()
