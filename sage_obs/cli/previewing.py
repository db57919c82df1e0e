"""What `sage-obs dashboards preview` puts together."""

from __future__ import annotations

import json
import os
import time
import webbrowser
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sage_obs.cli.boards import board_files, read_text
from sage_obs.cli.stopping import stopped_by_signals
from sage_obs.errors import ConfigError, ExitCode

if TYPE_CHECKING:
    from sage_obs.dashboards.preview.server import Profiles

_TICK = 0.1


def preview(files: Sequence[Path], *, prometheus: str, port: int, profiles: str, opens: bool, state: Path, runbooks: str) -> None:
    """Serve the page until Ctrl-C."""
    import httpx

    from sage_obs.dashboards.preview.server import Preview, serving

    shown = _of_files(files) if files else _own(runbooks)
    limits = httpx.Limits(max_keepalive_connections=8)
    asked = _prometheus(prometheus, state)
    with (
        stopped_by_signals(ExitCode.OK) as request,
        httpx.Client(trust_env=False, limits=limits) as client,
        serving(Preview(shown, asked, client, profiles_of(profiles)), port=port) as url,
    ):
        click.echo(url)
        click.echo("Ctrl-C stops it.", err=True)
        if opens:
            webbrowser.open(url)
        while True:
            request.check()
            time.sleep(_TICK)


def _own(runbooks: str) -> dict[str, dict[str, Any]]:
    from sage_obs.dashboards.render import boards

    return {board["uid"]: board for board in boards(runbooks=runbooks)}


def _of_files(paths: Sequence[Path]) -> dict[str, dict[str, Any]]:
    """Boards by their uids, or by their files' names. Raises ConfigError for what is no dashboard."""
    from sage_obs.dashboards.lint.model import parse

    found: dict[str, dict[str, Any]] = {}
    for path in board_files(paths):
        text = read_text(path)
        parse(text, where=str(path))
        data = json.loads(text)
        board: dict[str, Any] = data.get("dashboard", data)
        found[str(board.get("uid") or path.stem)] = board
    return found


def _prometheus(url: str, state: Path) -> str:
    """Where Prometheus is: as given, or the running stack's. Raises ConfigError."""
    from sage_obs.dashboards.sources import DEFAULT_PROMETHEUS
    from sage_obs.stack.state import read_note

    note = None if url else read_note(state)
    found = url or (note.prometheus_url if note and note.prometheus_url else DEFAULT_PROMETHEUS)
    if not found.startswith(("http://", "https://")) or "@" in found:
        raise ConfigError(f"{found!r} is no address of a Prometheus.", hint=f"For example: --prometheus {DEFAULT_PROMETHEUS}")
    return found


def profiles_of(where: str) -> Profiles | None:
    """What gives collapsed stacks: a service, a file, or nothing. Raises ConfigError for a file that is no profile."""
    from sage_obs.profiling import collapsed, fetch, formats

    if not where:
        return None
    if not Path(where).is_file():
        token = os.environ.get("SAGE_PROFILING_TOKEN", "")
        return lambda kind, seconds: collapsed.encode(
            fetch.from_url(where, kind, seconds=seconds if kind in {"cpu", "wall"} else None, token=token)
        )
    try:
        text = collapsed.encode(formats.read(Path(where).read_bytes()))
    except ValueError as exc:
        raise ConfigError(f"{where} is no profile: {exc}.") from exc
    return lambda kind, seconds: text  # noqa: ARG005 - a file says one thing
