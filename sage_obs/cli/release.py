"""`sage-obs release`: the local platform's releases and the ledger."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import click

from sage_obs.cli.output import print_table
from sage_obs.cli.up import read_config
from sage_obs.conventions import SERVICE
from sage_obs.errors import ExitCode, PlatformError
from sage_obs.platforms.base import Platform, Release
from sage_obs.platforms.ledger import Standing
from sage_obs.platforms.select import open_ledger, open_platform, platform_root
from sage_obs.stack.state import DEFAULT_STATE

_POLL: Final = 0.1
_state = click.option(
    "--state", type=click.Path(path_type=Path, file_okay=False), default=DEFAULT_STATE, show_default=True, help="Where all state lives."
)
_service = click.option("--service", default=SERVICE, show_default=True, help="The service on the platform.")


@click.group("release")
def command() -> None:
    """The releases of the local platform and what is known of them."""


@command.command("list")
@_state
@_service
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def list_releases(*, state: Path, service: str, as_json: bool) -> None:
    """List releases, the last deployed first, with what the ledger says of each."""
    platform, ledger = open_platform("local", state, service=service), open_ledger(state, service=service)
    desired = platform.describe().desired
    for_table = []
    for release in platform.releases():
        standing = ledger.standing(release.digest)
        is_desired = desired is not None and desired.digest == release.digest
        if as_json:
            click.echo(json.dumps({**_fields(release), "standing": standing, "desired": is_desired}))
        for_table.append(("*" if is_desired else "", release.version, standing.value, _when(release.deployed_at), release.digest[:19]))
    for version, why in _corrupt(state, service):
        if as_json:
            click.echo(json.dumps({"version": version, "standing": "corrupt", "desired": False}))
        for_table.append(("", version, "corrupt", "", why))
    if not as_json:
        print_table(("", "version", "standing", "deployed", "digest"), for_table)


def _corrupt(state: Path, service: str) -> Iterator[tuple[str, str]]:
    """Release folders that cannot be used, and why."""
    from sage_obs.platforms.local import releases

    for version in releases.versions(platform_root(state, service)):
        try:
            releases.load(platform_root(state, service), version)
        except PlatformError as exc:
            yield version, exc.message


def _fields(release: Release) -> dict[str, object]:
    return {"version": release.version, "digest": release.digest, "deployed_at": release.deployed_at}


def _when(at: float | None) -> str:
    return "never" if at is None else datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


@command.command("create")
@click.argument("version")
@click.option(
    "--config", type=click.Path(path_type=Path, exists=True, dir_okay=False), required=True, help="The agent's configuration file."
)
@_state
@_service
def create(*, version: str, config: Path, state: Path, service: str) -> None:
    """Store a release of the agent made of a configuration file; deploy it with `release deploy`."""
    from sage_obs.platforms.local import releases
    from sage_obs.stack.up import AGENT_COMMAND

    release = releases.create(platform_root(state, service), version, command=AGENT_COMMAND, files={"config.yaml": read_config(config)})
    click.echo(f"{release.version} {release.digest}")


@command.command("deploy")
@click.argument("version")
@click.option("--timeout", type=float, default=60.0, show_default=True, help="Seconds to wait until it serves.")
@_state
@_service
def deploy(*, version: str, timeout: float, state: Path, service: str) -> None:
    """Make VERSION the desired release and wait until the platform has converged on it."""
    platform = open_platform("local", state, service=service)
    platform.deploy(platform.release(version), by="sage-obs release deploy")
    trouble = wait_converged(platform, timeout=timeout)
    if trouble:
        click.echo(f"Error: {version} does not serve: {trouble}.", err=True)
        raise click.exceptions.Exit(ExitCode.VERIFICATION_FAILED)
    click.echo(f"{version} serves.")


def wait_converged(platform: Platform, *, timeout: float) -> str:
    """Wait up to `timeout` seconds; "" when the platform has converged, else why it has not."""
    deadline = time.monotonic() + timeout
    while True:
        state = platform.describe()
        if state.converged:
            return ""
        if not state.in_progress or time.monotonic() > deadline:
            return state.detail
        time.sleep(_POLL)


@command.command("mark-good")
@click.argument("version")
@click.option("--reason", required=True, help="Why; it is written into the ledger.")
@_state
@_service
def mark_good(*, version: str, reason: str, state: Path, service: str) -> None:
    """Say that VERSION is proven good: rollbacks may go to it."""
    _mark(version, Standing.GOOD, reason=reason, state=state, service=service)


@command.command("mark-bad")
@click.argument("version")
@click.option("--reason", required=True, help="Why; it is written into the ledger.")
@_state
@_service
def mark_bad(*, version: str, reason: str, state: Path, service: str) -> None:
    """Say that VERSION is known to be bad: nothing ever goes back to it."""
    _mark(version, Standing.BAD, reason=reason, state=state, service=service)


def _mark(version: str, standing: Standing, *, reason: str, state: Path, service: str) -> None:
    release = open_platform("local", state, service=service).release(version)
    changed = open_ledger(state, service=service).mark(release, standing, by="sage-obs release", reason=reason)
    click.echo(f"{version} is {'now' if changed else 'already'} {standing.value}.")
