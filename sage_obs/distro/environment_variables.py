"""The variables that set the layer up, for `opentelemetry-instrument`, which asks every module of this kind for its names.

It makes an option of every name that starts with `OTEL_`; those of the SDK have theirs already, and a second one would end it. So there
are none. But it asks before it starts a program, and that is when our distribution is selected, as nothing later can be: the stock one is
often found first, and fails in silence where nothing is set.
"""

from __future__ import annotations

import os
import sys
from pathlib import PurePath
from typing import Final

from sage_obs.distro.selection import COMMAND, select
from sage_obs.settings import OPTIONS

SAGE_VARIABLES: Final = tuple(sorted({name for option in OPTIONS.values() for name in option.env if name.startswith("SAGE_")}))
"""Every variable of ours."""


def __dir__() -> list[str]:
    if PurePath(sys.argv[0]).name == COMMAND:
        select(os.environ)
    return ["SAGE_VARIABLES"]
