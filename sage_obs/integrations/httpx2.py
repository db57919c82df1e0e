"""httpx2, on which newer clients of language models stand: calls made with it carry the trace on."""

from __future__ import annotations

from typing import Final

from sage_obs.integrations.httpx import HttpxIntegration

INTEGRATION: Final = HttpxIntegration("httpx2", ("2", "3"))
