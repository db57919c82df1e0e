"""`sage-obs responder`."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sage_obs.conventions import DEFAULT_RESPONDER_PORT, SERVICE
from sage_obs.errors import ConfigError, ExitCode
from sage_obs.slo.windows import PROFILES
from sage_obs.stack.state import DEFAULT_STATE

if TYPE_CHECKING:
    from sage_obs.runbooks.responder.service import Responder


@click.group("responder")
def command() -> None:
    """Answer Alertmanager by running runbooks."""


@command.command("serve")
@click.option(
    "--state", type=click.Path(path_type=Path, file_okay=False), default=DEFAULT_STATE, show_default=True, help="Where all state lives."
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=DEFAULT_RESPONDER_PORT, show_default=True, help="0 takes any free one.")
@click.option("--prometheus", metavar="URL", default="", help="Measure through this Prometheus.  [default: scrape the service directly]")
@click.option("--profile", type=click.Choice(sorted(PROFILES)), default="production", show_default=True, help="Time windows.")
@click.option("--platform", type=click.Choice(["auto", "local"]), default="auto", show_default=True, help="Where the service runs.")
@click.option("--service", default=SERVICE, show_default=True, help="The service to look after.")
@click.option("--token-file", type=click.Path(path_type=Path), help="File with the bearer token that Alertmanager must show.")
def serve_(
    *, state: Path, host: str, port: int, prometheus: str, profile: str, platform: str, service: str, token_file: Path | None
) -> int:
    """Take alerts by Alertmanager's webhook (POST /alerts) and run the incident runbook for those that ask for a rollback.

    Answers 202 once an alert is on disk, then works by itself. Runs that a crash or a stop interrupted go on at the next start. A file
    `automation.off` in the state folder keeps every run from changing anything.
    """
    from sage_obs.cli.world import Asked, open_world
    from sage_obs.runbooks.responder.service import Address, Responder
    from sage_obs.runbooks.world import nobody

    asked = Asked(state, prometheus, (), None, profile, "local" if platform == "auto" else platform, service)
    responder = Responder(
        open_world(asked, approve=nobody),
        Address(host, port, _token(token_file)),
        parameters={"service": service, "platform": asked.platform},
        say=lambda text: click.echo(text, err=True),
    )
    return _serve(responder)


def _serve(responder: Responder) -> int:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: responder.request_stop())
    responder.start()
    click.echo(f"The responder listens on {responder.url}")
    try:
        responder.wait()
    finally:
        responder.stop()
    return ExitCode.OK


def _token(path: Path | None) -> str:
    if path is None:
        return ""
    try:
        token = path.read_text().strip()
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigError(f"Cannot read the token file {path}: {exc}.") from exc
    if not token:
        raise ConfigError(f"The token file {path} is empty.", hint="Write a long random text into it, readable by its owner only.")
    return token
