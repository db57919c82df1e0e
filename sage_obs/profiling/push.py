"""Profiles of the processor, pushed to a Pyroscope server by its own client."""

from __future__ import annotations

import os
from urllib.parse import urlsplit

from sage_obs.component import Unbuffered
from sage_obs.errors import ConfigError, UnavailableError
from sage_obs.metrics.active import internal_error
from sage_obs.settings import Settings


class PyroscopeComponent(Unbuffered):
    """Runs Pyroscope's client. Its labels are the service's, none a request's: they belong to threads, and asyncio has one."""

    name = "pyroscope"

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._pid = 0

    def start(self) -> str:
        """Push from now on. Raises ConfigError for what is no address, UnavailableError where the client does not start."""
        parts = urlsplit(self._settings.profiling_server)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ConfigError("The Pyroscope server's address is no URL.", hint="Set SAGE_PROFILING_SERVER=http://pyroscope:4040.")
        self._begin()
        host = f"{parts.scheme}://{parts.hostname}{f':{parts.port}' if parts.port else ''}"  # the rest may have a password
        return f"to {host} every 10 s"

    def _begin(self) -> None:
        import pyroscope

        settings = self._settings
        parts = urlsplit(settings.profiling_server)
        started = pyroscope.configure(
            application_name=settings.service_name,
            server_address=parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl(),
            basic_auth_username=parts.username or "",
            basic_auth_password=parts.password or "",
            tags={"agent_id": settings.agent_id, "version": settings.version},
        )
        if started is False:
            raise UnavailableError("Pyroscope's client did not start.", hint="Another part of the program may have started it.")
        self._pid = os.getpid()

    def stop(self, timeout: float) -> None:
        """Push no more."""
        del timeout
        if self._pid == os.getpid():
            import pyroscope

            pyroscope.shutdown()

    def restart_after_fork(self) -> None:
        """The client's threads stayed in the parent."""
        try:
            self._begin()
        except Exception as exc:  # noqa: BLE001 - the child is the application's
            internal_error(self.name, exc)
