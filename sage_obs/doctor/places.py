"""Places in this machine: the metrics port, and the folder of prometheus_client's multi-process mode."""

from __future__ import annotations

import errno
import http.client
import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from sage_obs.conventions import BUILD_INFO, METRICS_PATH
from sage_obs.doctor.findings import Finding, World
from sage_obs.stack.ports import owner

_MULTIPROC: Final = "PROMETHEUS_MULTIPROC_DIR"
_PID: Final = re.compile(r"_(\d+)\.db$", re.ASCII)
_SECONDS: Final = 2.0


def metrics_port(world: World) -> Iterator[Finding]:
    """A metrics port that somebody else has. Where the service itself answers there, all is well."""
    host, port = world.setting("metrics_host").value, world.setting("metrics_port").value
    if not port or not (world.setting("metrics").value or world.setting("health").value):
        return
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:  # bound, not listened on: it is nobody's loss
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
            return
    except OSError as exc:
        if exc.errno != errno.EADDRINUSE:
            yield Finding(
                "metrics-port", f"{host}:{port} cannot be listened on: {exc.strerror}.", "Set SAGE_METRICS_HOST and SAGE_METRICS_PORT."
            )
            return
    if not _is_us(port, world.setting("service_name").value):
        yield Finding(
            "metrics-port", f"Port {port} is taken by {owner(port)}.", "Stop it, or set SAGE_METRICS_PORT; 0 takes any free port."
        )


def _is_us(port: int, service: str) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_SECONDS)
    try:
        connection.request("GET", METRICS_PATH)
        body = connection.getresponse().read().decode("utf-8", "replace")
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
    return any(line.startswith(f"{BUILD_INFO.name}{{") and f'service="{service}"' in line for line in body.splitlines())


def multiprocess_folder(world: World) -> Iterator[Finding]:
    """A folder that is missing, cannot be written to, or holds the counts of an earlier run."""
    if not (given := world.environ.get(_MULTIPROC) or world.environ.get(_MULTIPROC.lower(), "")):
        return
    folder = world.folder / given
    if not folder.is_dir():
        yield Finding(
            "multiprocess", f"{_MULTIPROC} names {given}, which is not a folder.", f"Create it before the service starts: mkdir -p {given}"
        )
    elif not os.access(folder, os.W_OK | os.X_OK):
        yield Finding("multiprocess", f"{_MULTIPROC} names {given}, which cannot be written to.", "Give the service's user the right to.")
    elif (count := _left_over(folder)) > 0:
        yield Finding(
            "multiprocess",
            f"{given} holds {count} files of processes that no longer run: totals would begin with theirs.",
            f"Empty it before the service starts: rm {given}/*.db",
        )


def _left_over(folder: Path) -> int:
    """The files of an earlier run; 0 while any of the processes that wrote them lives, as its dead workers still count."""
    pids = [int(found.group(1)) for file in folder.glob("*.db") if (found := _PID.search(file.name))]
    return 0 if any(Path(f"/proc/{pid}").exists() for pid in set(pids)) else len(pids)
