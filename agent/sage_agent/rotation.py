"""A secret that changes where it is kept is used from then on, without a restart."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import sage_obs
from sage_agent.config import AgentConfig
from sage_obs.conventions import SECRET_AGE
from sage_obs.errors import SageObsError

_log = logging.getLogger("sage_agent")


class Rotation:
    """Looks at the secrets of a configuration; when one has changed, `apply` is given the configuration with it."""

    def __init__(self, config: AgentConfig, apply: Callable[[AgentConfig], None]) -> None:
        self._config = config
        self._apply = apply
        self._due = False
        self._failing = False

    async def run(self) -> None:
        """Look again and again; returns at once where nothing is kept elsewhere."""
        while len(self._config.secrets):
            await self.look()
            await asyncio.sleep(self._config.secrets_refresh)

    async def look(self) -> None:
        """Look once. Files are read in a thread. A configuration that cannot be used leaves everything as it was, until it can."""
        try:
            await self._look()
        except Exception as exc:  # noqa: BLE001 - whatever it is, the next look is made
            if not self._failing:
                reason = str(exc) if isinstance(exc, SageObsError) else type(exc).__name__  # others' messages may quote a secret
                _log.warning("a changed secret cannot be used, the one before stays", extra={"reason": reason})
            self._failing = True

    async def _look(self) -> None:
        self._due = await asyncio.to_thread(self._config.secrets.refresh) or self._due
        for name, age in self._config.secrets.ages().items():
            sage_obs.series(SECRET_AGE, name).set(age)
        if not self._due:
            return
        self._apply(await asyncio.to_thread(self._config.again))
        self._due = self._failing = False
        _log.info("secrets renewed")
