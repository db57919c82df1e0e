"""Profiling as a component of the layer."""

from __future__ import annotations

import logging
import os
import ssl
from typing import Final

from sage_obs.component import Unbuffered
from sage_obs.errors import ConfigError, SageObsError, UnavailableError
from sage_obs.metrics import prefork
from sage_obs.metrics.active import internal_error
from sage_obs.ops.server import OpsServer, Purpose
from sage_obs.profiling.guard import Guard
from sage_obs.profiling.pages import PREFIX, ProfilePages
from sage_obs.profiling.siblings import Siblings
from sage_obs.profiling.sources import Sources
from sage_obs.settings import Settings

_log = logging.getLogger("sage_obs")
_PURPOSE: Final = Purpose("profiling", "profiles", "SAGE_PROFILING", 64)
_LOOPBACK: Final = "127.0.0.1"


class ProfilingComponent(Unbuffered):
    """Serves profiles of this process. Of several processes of one service the first has the port, and asks the others by `?pid=`."""

    name = "profiling"

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._sources = Sources(locks=settings.profiling_locks)
        self._server: OpsServer | None = None
        self._siblings: Siblings | None = None
        self._words = ""

    @property
    def port(self) -> int | None:
        """The port it answers on, None while it does not."""
        return None if self._server is None else self._server.port

    @property
    def words(self) -> str:
        """What it does."""
        return self._words

    def start(self) -> str:
        """Arm the samplers and listen.

        Raises UnavailableError for a port that is taken, ConfigError for a certificate that is none and for an open address without a
        token.
        """
        settings = self._settings
        tls = _tls(settings.profiling_certificate, settings.profiling_key)
        try:
            self._listen(settings.profiling_host, settings.profiling_port, tls)
        except UnavailableError:
            if prefork.parent() is not None:
                self._listen(_LOOPBACK, 0, None)
            elif settings.sources["profiling_port"].source == "default":
                self._listen(settings.profiling_host, 0, tls)
            else:
                raise
        self._words = f"{self._place(tls)}; {self._sources.start()}"
        return self._words

    def _place(self, tls: ssl.SSLContext | None) -> str:
        host = self._settings.profiling_host
        return f"http{'s' if tls else ''}://{f'[{host}]' if ':' in host else host}:{self.port}{PREFIX}"

    def _listen(self, host: str, port: int, tls: ssl.SSLContext | None) -> None:
        parent = prefork.parent()
        self._siblings = Siblings(os.getpid() if parent is None else parent)
        guard = Guard(self._settings.profiling_host, self._settings.profiling_token)
        pages = ProfilePages(self._sources, guard, self._siblings)
        self._server = OpsServer(pages, host=host, port=port, purpose=_PURPOSE, tls=tls)
        try:
            if parent is not None:
                self._siblings.tell(self._server.port)
        except OSError as exc:
            _log.warning("other processes of this service cannot be asked for profiles: %s", exc)

    def finish(self, timeout: float) -> bool:
        """Close the windows: once the interpreter has put signals back, the next tick would end the process."""
        del timeout
        self._sources.sampler.disarm()
        return True

    def stop(self, timeout: float) -> None:
        """Give up what is being taken, stop listening, and put everything back."""
        del timeout
        self._sources.stop()
        siblings, self._siblings = self._siblings, None
        if siblings is not None:
            siblings.leave()
        server, self._server = self._server, None
        if server is not None:
            server.close()

    def restart_after_fork(self) -> None:
        """A forked worker answers on a port of its own, and is asked by way of its parent's; other children rest."""
        server, self._server = self._server, None
        if server is not None:
            server.abandon()
        self._sources.restart_after_fork()
        if prefork.parent() is None:
            return
        try:
            self._listen(_LOOPBACK, 0, None)
        except SageObsError as exc:
            internal_error(self.name, exc)


def _tls(certificate: str, key: str) -> ssl.SSLContext | None:
    if not certificate:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(certificate, key or None)
    except (OSError, ssl.SSLError) as exc:
        raise ConfigError(
            f"The certificate for profiles, {certificate}, cannot be used: {exc}.",
            hint="Set SAGE_PROFILING_CERTIFICATE and SAGE_PROFILING_KEY to PEM files.",
        ) from exc
    return context
