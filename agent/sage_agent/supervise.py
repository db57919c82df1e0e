"""`sage-agent serve --workers N`: a supervisor, and N copies of the agent on its socket."""

from __future__ import annotations

import logging
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from sage_agent.config import AgentConfig
from sage_agent.serve import log_plainly, require_server
from sage_agent.server.sockets import open_listener
from sage_agent.server.workers import Crew, share_of

_log = logging.getLogger("sage_agent")
_MEMORY: Final = Path("/dev/shm")  # noqa: S108 - the folder in it is made by mkdtemp, for its owner only


def supervise(config: AgentConfig, *, file: Path | None, environ: MutableMapping[str, str]) -> int:
    """Supervise until every worker has drained; the exit code. Raises SageObsError where nothing can be started."""
    require_server()
    log_plainly()
    listener = open_listener(config.server.host, config.server.port, environ=environ)
    command = [sys.executable, "-m", "sage_agent", "serve", *(["--config", str(file)] if file is not None else []), "--workers", "1"]
    with _shared_metrics(config, environ) as metrics:
        crew = Crew(
            command,
            config.server.workers,
            listener.sock.fileno(),
            {**environ, **_shares(config), **metrics},
        )
        _log.info("agent supervised", extra={"port": listener.port, "workers": config.server.workers})
        code = crew.run()
    _log.info("agent ended", extra={"exit_code": code})
    return code


def _shares(config: AgentConfig) -> dict[str, str]:
    """The bounds of one worker: they are the agent's, and its workers share them."""
    bounds, workers = config.concurrency, config.server.workers
    return {
        "SAGE_WORKER_POOL_SIZE": str(share_of(bounds.worker_pool_size, workers)),
        "SAGE_MAX_CONCURRENT": str(share_of(bounds.max_concurrent, workers)),
        "SAGE_QUEUE_SIZE": str(share_of(bounds.queue_size, workers)),
    }


@contextmanager
def _shared_metrics(config: AgentConfig, environ: MutableMapping[str, str]) -> Iterator[dict[str, str]]:
    """Where the workers count together, and the one port on which one of them answers for all."""
    port = config.layer.metrics_port or _free_port(config.layer.metrics_host)
    found = {"SAGE_METRICS_PORT": str(port)}
    if config.layer.multiprocess_dir or environ.get("SAGE_MULTIPROCESS_DIR"):
        yield found
        return
    folder = tempfile.mkdtemp(prefix="sage-agent-", dir=_MEMORY if _MEMORY.is_dir() else None)
    try:
        yield {**found, "SAGE_MULTIPROCESS_DIR": folder}
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _free_port(host: str) -> int:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as sock:
        sock.bind((host, 0))
        return int(sock.getsockname()[1])
