"""Profiles of another process: from the addresses it serves them at, or from outside of it by py-spy."""

from __future__ import annotations

import json
import os
import shutil
import ssl
import subprocess
import sys
import tempfile
import time
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit, urlunsplit

from sage_obs.errors import ConfigError, UnavailableError
from sage_obs.profiling import collapsed, pprof, tasks
from sage_obs.profiling.parameters import MOST_SECONDS
from sage_obs.profiling.profile import Frame, Kind, Profile, folded

DEFAULT_URL: Final = "http://127.0.0.1:6060"
_PATHS: Final = {"cpu": "profile", "wall": "profile", "heap": "heap", "tasks": "goroutine", "block": "block", "mutex": "mutex"}
_HZ: Final = 100
_MARGIN_SECONDS: Final = 30
_MOST_BYTES: Final = 64 * 1024 * 1024
_SAMPLED: Final = ("cpu", "wall")
_DEFAULT_SECONDS: Final = 10


def from_url(url: str, kind: str, *, seconds: int | None, token: str, patience: float | None = None) -> Profile:
    """A profile of the process that serves them at `url`; it is given up after `patience` seconds, or 30 more than asked.

    Raises ConfigError for no URL, UnavailableError where there is no profile.
    """
    parameters = {"mode": "wall"} if kind == "wall" else {}
    if seconds is not None or kind in _SAMPLED:
        parameters["seconds"] = str(seconds or _DEFAULT_SECONDS)
    address = f"{_base(url)}{_PATHS[kind]}"
    patience = patience or (seconds or _DEFAULT_SECONDS) + _MARGIN_SECONDS
    status, body = _got(address, parameters, token, patience)
    if status != HTTPStatus.OK:
        hint = "Set SAGE_PROFILING_TOKEN to the service's." if status == HTTPStatus.UNAUTHORIZED else ""
        raise UnavailableError(f"{address} answers {status}: {body[:300].decode(errors='replace').strip()}", hint=hint)
    try:
        return pprof.decode(body)
    except ValueError as exc:
        raise UnavailableError(f"What {address} answers is no profile: {exc}.") from exc


def _got(address: str, parameters: dict[str, str], token: str, patience: float) -> tuple[int, bytes]:
    """Status and body, neither for longer nor for more than anybody would wait for. Raises UnavailableError."""
    import httpx

    headers = {"authorization": f"Bearer {token}"} if token else {}
    deadline, body = time.monotonic() + patience, bytearray()
    try:
        trust = _trust(address)
        with httpx.stream("GET", address, params=parameters, headers=headers, timeout=patience, trust_env=False, verify=trust) as answer:
            for part in answer.iter_bytes():
                body += part
                if len(body) > _MOST_BYTES or time.monotonic() > deadline:
                    why = f"more than {_MOST_BYTES >> 20} MiB came" if len(body) > _MOST_BYTES else f"it did not end within {patience:g} s"
                    raise UnavailableError(f"Cannot fetch a profile from {address}: {why}.")
    except (httpx.HTTPError, httpx.InvalidURL) as exc:
        reason = str(exc) or type(exc).__name__
        hint = "Is it on? SAGE_PROFILING_ENABLED=true; --url says where, and --pid looks at any Python process."
        raise UnavailableError(f"Cannot fetch a profile from {address}: {reason}.", hint=hint) from exc
    return answer.status_code, bytes(body)


def _trust(address: str) -> ssl.SSLContext | bool:
    """SSL_CERT_FILE's authorities, else the usual ones; none where nothing is encrypted, as reading them is slow."""
    if not address.startswith("https:"):
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    file = os.environ.get("SSL_CERT_FILE")
    return ssl.create_default_context(cafile=file) if file else True


def _base(url: str) -> str:
    parts = urlsplit(url if "://" in url else f"http://{url}")
    if parts.scheme not in {"http", "https"} or not parts.netloc:
        raise ConfigError(f"{url!r} is no address of a service.", hint=f"For example: --url {DEFAULT_URL}")
    path = parts.path if parts.path.rstrip("/").endswith("/debug/pprof") else "/debug/pprof/"
    return urlunsplit((parts.scheme, parts.netloc, f"{path.rstrip('/')}/", "", ""))


def from_process(pid: int, kind: str, *, seconds: int | None, stop: bool = True) -> Profile:
    """A profile of any Python process of this machine, which is stopped for each look, or not, for a few stacks that are torn.

    Raises ConfigError for a kind that is not seen from outside, UnavailableError.
    """
    how = [] if stop else ["--nonblocking"]
    if kind == "tasks":
        return _dumped(pid, how)
    if kind not in _SAMPLED:
        raise ConfigError(
            f"A process's {kind} cannot be seen from outside.", hint="Serve profiles from it (SAGE_PROFILING_ENABLED=true) and use --url."
        )
    with tempfile.TemporaryDirectory(prefix="sage-obs-profile-") as folder:
        output = Path(folder) / "raw"
        length = min(seconds or _DEFAULT_SECONDS, MOST_SECONDS)
        options = ["--format", "raw", "--duration", str(length), "--rate", str(_HZ), "--full-filenames", "--output", str(output), *how]
        _spy("record", pid, [*options, *(["--idle"] if kind == "wall" else [])], seconds=length)
        period = 1_000_000_000 // _HZ
        kinds = (Kind("samples", "count"), Kind(kind, "nanoseconds"))
        text = output.read_text() if output.exists() else ""
    found = collapsed.decode(text, kinds, per_sample=(1, period))
    return Profile(kinds, found.samples, kind, kinds[1], period, duration=length * 1_000_000_000, comments=(f"py-spy, process {pid}",))


def _dumped(pid: int, how: list[str]) -> Profile:
    listed = json.loads(_spy("dump", pid, ["--json", *how], seconds=0))
    rows = [(tuple(map(_frame, one["frames"])), (1,), (("kind", "thread"), ("thread_name", str(one["thread_name"])))) for one in listed]
    comments = (f"py-spy, process {pid}: threads, as tasks are not seen from outside",)
    return Profile((tasks.KIND,), folded(rows), tasks.KIND.type, comments=comments)


def _frame(one: dict[str, Any]) -> Frame:
    return Frame(str(one["name"]), str(one["filename"]), 0, int(one["line"]))


def _spy(command: str, pid: int, options: list[str], *, seconds: int) -> str:
    beside = Path(sys.executable).with_name("py-spy")
    program = str(beside) if beside.exists() else shutil.which("py-spy")
    if program is None:
        raise UnavailableError("py-spy is not installed.", hint="Install it: pip install py-spy")
    try:
        done = subprocess.run(
            [program, command, "--pid", str(pid), *options], capture_output=True, text=True, timeout=seconds + _MARGIN_SECONDS, check=False
        )
    except subprocess.TimeoutExpired as exc:
        raise UnavailableError(f"py-spy never came back from process {pid}.") from exc
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        why = (lines[0] if lines else "it did not say why").removeprefix("Error: ").rstrip(".")
        hint = "Another user's process, or a container without SYS_PTRACE, takes root." if "ermission" in done.stderr else ""
        raise UnavailableError(f"py-spy cannot look at process {pid}: {why}.", hint=hint)
    return done.stdout
