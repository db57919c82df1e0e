"""`sage-agent serve --workers N`: a supervisor, and N copies of the agent on its socket."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from sage_agent.config import AgentConfig
from sage_agent.observing import log_plainly
from sage_agent.serve import require_server
from sage_agent.server.sockets import open_listener
from sage_agent.server.workers import Crew, share_of
from sage_obs.errors import UnavailableError

_log = logging.getLogger("sage_agent")
_ENDING_SECONDS: Final = 5.0
"""What a worker may take to end beside its drain and the flush of its telemetry: cut requests say so, stores are closed."""
_PREFIX: Final = "sage-agent-"
_YOUNG_SECONDS: Final = 60.0
"""How long it may be until whoever has made a folder holds it."""
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
            patience=config.server.drain_timeout + config.layer.exit_timeout + _ENDING_SECONDS,
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
    known = bool(config.layer.multiprocess_dir or environ.get("SAGE_MULTIPROCESS_DIR"))
    asked = config.layer.metrics_port
    found = {"SAGE_METRICS_PORT": str(asked if known and asked else _free_port(config))}
    if known:  # others of this service may have the port
        yield found
        return
    above = _MEMORY if _MEMORY.is_dir() else Path(tempfile.gettempdir())
    _sweep(above)
    folder = tempfile.mkdtemp(prefix=_PREFIX, dir=above)
    held = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield {**found, "SAGE_MULTIPROCESS_DIR": folder}
    finally:
        os.close(held)
        shutil.rmtree(folder, ignore_errors=True)


def _sweep(above: Path) -> None:
    """Remove what supervisors left that were killed: it is memory. A folder that one still holds, or has just made, stays."""
    for folder in above.glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):
            held = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if time.time() - os.fstat(held).st_mtime > _YOUNG_SECONDS:
                    shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(held)


def _free_port(config: AgentConfig) -> int:
    """The port of metrics and health, or any. Raises UnavailableError where it is taken: each worker would believe another has it."""
    host, port = config.layer.metrics_host, config.layer.metrics_port
    if port and not (config.layer.metrics or config.layer.health):
        return port
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((host, port))
        except OSError as exc:
            raise UnavailableError(
                f"Metrics and health cannot be served on {host}:{port} ({exc.strerror}).",
                hint="Stop whoever has the port, or choose another with SAGE_METRICS_PORT.",
            ) from exc
        return int(sock.getsockname()[1])
