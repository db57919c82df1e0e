"""Profiling as a component of the layer."""

from __future__ import annotations

import hashlib
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
from sage_obs.profiling.succession import Succession
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
        self._tls: ssl.SSLContext | None = None
        self._server: OpsServer | None = None
        self._siblings: Siblings | None = None
        self._succession: Succession | None = None

    @property
    def port(self) -> int | None:
        """The port it answers on, None while it does not."""
        server = self._server  # another thread may take the port over
        return None if server is None else server.port

    def start(self) -> str:
        """Arm the samplers and listen.

        Raises UnavailableError for a port that is taken, ConfigError for a certificate that is none and for an open address without a
        token.
        """
        settings = self._settings
        self._tls = _tls(settings.profiling_certificate, settings.profiling_key)
        try:
            self._listen(settings.profiling_host, settings.profiling_port, self._tls)
        except UnavailableError:
            if self._has_siblings:
                self._wait_beside()
            elif settings.sources["profiling_port"].source == "default":
                self._listen(settings.profiling_host, 0, self._tls)
            else:
                raise
        return f"{self._place()}; {self._sources.start()}"

    @property
    def _has_siblings(self) -> bool:
        """Whether this is one of several processes of a service, as far as can be seen."""
        return prefork.parent() is not None or bool(self._settings.multiprocess_dir)

    def _family(self) -> str:
        """What the processes of this service have in common: a folder for their metrics, or who has started them."""
        if folder := self._settings.multiprocess_dir:
            return hashlib.sha256(os.path.realpath(folder).encode()).hexdigest()[:16]
        return str(prefork.parent() or os.getpid())

    def _place(self) -> str:
        host = self._settings.profiling_host if self._succession is None else _LOOPBACK
        return f"http{'s' if self._tls else ''}://{f'[{host}]' if ':' in host else host}:{self.port}{PREFIX}"

    def _listen(self, host: str, port: int, tls: ssl.SSLContext | None) -> None:
        """Listen, and let siblings know where this process alone can be asked: on loopback, without TLS."""
        guard = Guard(self._settings.profiling_host, self._settings.profiling_token)
        siblings = self._siblings or Siblings(self._family())
        server = OpsServer(ProfilePages(self._sources, guard, siblings), host=host, port=port, purpose=_PURPOSE, tls=tls)
        self._siblings, self._server = siblings, server
        if self._has_siblings:
            try:
                siblings.tell(server.port)
            except OSError as exc:
                _log.warning("other processes of this service cannot be asked for profiles: %s", exc)

    def _wait_beside(self) -> None:
        """Answer on a port of this process's own, until the one that is known is free."""
        self._listen(_LOOPBACK, 0, None)
        self._succession = Succession(self._take_over) if self._settings.profiling_port else None

    def _take_over(self) -> bool:
        before = self._server
        try:
            self._listen(self._settings.profiling_host, self._settings.profiling_port, self._tls)
        except SageObsError:
            return False
        if before is not None:
            before.close()
        return True

    def finish(self, timeout: float) -> bool:
        """Close the windows: once the interpreter has put signals back, the next tick would end the process."""
        del timeout
        self._sources.sampler.disarm()
        return True

    def stop(self, timeout: float) -> None:
        """Give up what is being taken, stop listening, and put everything back."""
        del timeout
        self._sources.stop()
        succession, self._succession = self._succession, None
        if succession is not None:
            succession.close()
        siblings, self._siblings = self._siblings, None
        if siblings is not None:
            siblings.leave()
        server, self._server = self._server, None
        if server is not None:
            server.close()

    def restart_after_fork(self) -> None:
        """A forked worker answers on a port of its own, and is asked by way of who has the port; other children rest."""
        server, self._server = self._server, None
        if server is not None:
            server.abandon()
        self._siblings = self._succession = None
        self._sources.restart_after_fork()
        if not self._has_siblings:
            return
        try:
            self._wait_beside()
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
