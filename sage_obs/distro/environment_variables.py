"""The variables that set the layer up, for the programs that read OpenTelemetry's list of them.

`opentelemetry-instrument` makes an option of every name here that starts with `OTEL_`; those of the SDK have theirs already, and a
second one would end it. So there are none.
"""

from __future__ import annotations

from typing import Final

from sage_obs.settings import OPTIONS

SAGE_VARIABLES: Final = tuple(sorted({name for option in OPTIONS.values() for name in option.env if name.startswith("SAGE_")}))
"""Every variable of ours."""
