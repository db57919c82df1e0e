"""What `sage-obs dashboards push` says and asks."""

from __future__ import annotations

import json
import os
import sys
import urllib.parse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from sage_obs.errors import ConfigError, ExitCode

if TYPE_CHECKING:
    from sage_obs.dashboards.push import Step

_SHOWN: Final = 12
"""Lines of difference shown of a board."""
_MESSAGE: Final = "sage-obs dashboards push"


@dataclass(frozen=True, slots=True)
class Asked:
    """What the command was asked for."""

    url: str
    token: str
    token_file: Path | None
    folder: str
    dry_run: bool
    yes: bool
    runbooks: str
    as_json: bool


def push(asked: Asked) -> int:
    """Look, show, ask, save. Returns the exit code."""
    import httpx

    from sage_obs.dashboards.push import Action, Grafana, apply, plan
    from sage_obs.dashboards.render import boards

    token = read_token(asked)
    with httpx.Client(follow_redirects=False) as client:
        grafana = Grafana(client, _checked(asked.url), token)
        steps = plan(boards(runbooks=asked.runbooks), grafana)
        _show(steps, as_json=asked.as_json)
        if asked.dry_run or all(step.action is Action.UNCHANGED for step in steps):
            return ExitCode.OK
        if not asked.yes and not sys.stdin.isatty():
            click.echo("Nothing was changed: --yes does it.", err=True)
            return ExitCode.WAITING_FOR_APPROVAL
        if not asked.yes and not click.confirm("Save them?", err=True):
            return ExitCode.WAITING_FOR_APPROVAL
        for uid, path in apply(steps, grafana, folder=asked.folder, message=_MESSAGE):
            click.echo(f"saved {uid}: {asked.url.rstrip('/')}{path}", err=True)
    return ExitCode.OK


def read_token(asked: Asked) -> str:
    """The token: as given, from the environment, or from a file. Raises ConfigError, which never repeats it."""
    path = asked.token_file or Path(os.environ.get("SAGE_GRAFANA_TOKEN_FILE") or "/")
    token = asked.token or ("" if asked.token_file else os.environ.get("SAGE_GRAFANA_TOKEN", ""))
    if not token and path != Path("/"):
        try:
            token = path.read_text()
        except (OSError, UnicodeDecodeError) as exc:
            raise ConfigError(f"Cannot read the token's file {path} ({type(exc).__name__}).") from exc
    token = token.strip()
    if not token:
        raise ConfigError("No token for Grafana.", hint="Set SAGE_GRAFANA_TOKEN, or pass --token-file PATH.")
    if not (token.isascii() and token.isprintable() and " " not in token):
        raise ConfigError(
            "The token for Grafana has characters that no token has.", hint="Look at where it comes from; it is not shown here."
        )
    return token


def _checked(url: str) -> str:
    """The address. Raises ConfigError for what is none, and for one with a password, which would be shown."""
    parts = urllib.parse.urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ConfigError("--url is not an address such as https://grafana.example:3000.")
    if "@" in parts.netloc:
        raise ConfigError("--url has a user or a password in it, which would be shown.", hint="Use a service account's token.")
    return url


def _show(steps: Sequence[Step], *, as_json: bool) -> None:
    for step in steps:
        if as_json:
            click.echo(json.dumps({"uid": step.uid, "action": step.action.value, "changes": list(step.lines)}, ensure_ascii=False))
            continue
        click.echo(f"{step.action.value:<10} {step.uid}")
        for line in step.lines[:_SHOWN]:
            click.echo(f"  {line}")
        if len(step.lines) > _SHOWN:
            click.echo(f"  … and {len(step.lines) - _SHOWN} more")
