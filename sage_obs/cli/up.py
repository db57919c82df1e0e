"""`sage-obs up`."""

from __future__ import annotations

import json
import math
import time
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import click

from sage_obs.cli.output import print_table
from sage_obs.cli.stopping import stopped_by_signals
from sage_obs.errors import ConfigError, ExitCode
from sage_obs.slo.windows import PROFILES
from sage_obs.stack.ports import MAX_PORT, Policy
from sage_obs.stack.state import DEFAULT_STATE

if TYPE_CHECKING:
    from sage_obs.stack.up import Stack


def _finite(_: click.Context, __: click.Parameter, value: float) -> float:
    if not math.isfinite(value):
        raise click.BadParameter("expected a finite number")
    return value


@click.command("up")
@click.option(
    "--state", type=click.Path(path_type=Path, file_okay=False), default=DEFAULT_STATE, show_default=True, help="Where all state lives."
)
@click.option("--profile", type=click.Choice(sorted(PROFILES)), default="production", show_default=True, help="The rules' time windows.")
@click.option(
    "--ports", "policy", type=click.Choice(get_args(Policy)), default="exact", show_default=True,
    help="When a port is taken: fail, take the next free one, or let the system choose any.",
)  # fmt: skip
@click.option(
    "--port", "ports", multiple=True, metavar="NAME=N", help="The port of one part: agent, metrics, prometheus, alertmanager, responder."
)
@click.option("--config", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="The agent's configuration file.")
@click.option("--version", default="", help="The name of the release made of it, or of one that is stored.")
@click.option("--traffic/--no-traffic", default=True, show_default=True, help="Send a little traffic to the agent.")
@click.option("--rate", type=click.FloatRange(0.1, 200), default=40, callback=_finite, show_default=True, help="Messages a second.")
@click.option("--json", "as_json", is_flag=True, help="Print what runs where as JSON, one object a line.")
def command(
    *,
    state: Path,
    profile: str,
    policy: Policy,
    ports: tuple[str, ...],
    config: Path | None,
    version: str,
    traffic: bool,
    rate: float,
    as_json: bool,
) -> None:
    """Start the whole stack on this machine and keep it running until Ctrl-C.

    The agent, Prometheus with our rules, Alertmanager, the responder and a bounded traffic generator. If one of them dies, all stop.
    Without --config and --version the agent goes on with the release that ran last, else with that of the installed version.
    """
    from sage_obs.stack.up import Options, Stack

    options = Options(
        state=state,
        windows=PROFILES[profile],
        policy=policy,
        ports=parse_ports(ports),
        config=read_config(config) if config else None,
        version=version,
        traffic=traffic,
        rate=rate,
    )
    say = partial(click.echo, err=True)
    with stopped_by_signals(ExitCode.OK) as request, Stack(options, say=say, check=request.check) as stack:
        _show(stack, as_json=as_json)
        click.echo("Ctrl-C stops everything.", err=True)
        while True:
            stack.step()
            time.sleep(0.05)


def parse_ports(pairs: tuple[str, ...]) -> dict[str, int]:
    """`agent=8081` and the like as a mapping. Raises ConfigError for an unknown name or a number that is no port."""
    from sage_obs.stack.parts import PORTS

    ports = {}
    for pair in pairs:
        name, _, number = pair.partition("=")
        if name not in PORTS or not (number.isascii() and number.isdecimal()) or int(number) > MAX_PORT:
            raise ConfigError(
                f"`--port {pair}` is not NAME=N.", hint=f"Names: {', '.join(PORTS)}. Ports: 0 to 65535, where 0 means any free one."
            )
        ports[name] = int(number)
    return ports


def read_config(path: Path) -> str:
    """The text of a configuration file. Raises ConfigError where it cannot be read."""
    try:
        return path.read_text()
    except UnicodeDecodeError as exc:
        raise ConfigError(f"{path} is not UTF-8 text.") from exc


def _show(stack: Stack, *, as_json: bool) -> None:
    rows = stack.rows()
    if as_json:
        for row in rows:
            click.echo(json.dumps(asdict(row)))
    else:
        print_table(("part", "pid", "address", "log"), [(row.part, str(row.pid), row.address, _short(row.log)) for row in rows])


def _short(path: str) -> str:
    try:
        return str(Path(path).relative_to(Path.cwd()))
    except ValueError:
        return path
