"""Where the process's own output goes, which is where our lines go too."""

from __future__ import annotations

import sys
from typing import Any


def is_terminal(stream: Any) -> bool:
    """Whether what is written to a stream comes out on stdout or stderr, whatever these are."""
    if any(stream is one for one in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__)):
        return stream is not None
    try:
        return stream.fileno() in {1, 2}
    except (AttributeError, OSError, TypeError, ValueError):
        return False
