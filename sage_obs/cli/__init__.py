"""The `sage-obs` command: every group is imported only when it is used, so that `--help` is instant."""

from __future__ import annotations

import importlib
import sys
from typing import Final

import click

from sage_obs.cli import entry

_COMMANDS: Final = {
    "alerts": ("sage_obs.cli.alerts", "Recording rules, rollback triggers and Alertmanager's configuration."),
    "dashboards": ("sage_obs.cli.dashboards", "Grafana dashboards as code."),
    "doctor": ("sage_obs.cli.doctor", "Find what keeps telemetry from working here, and the remedy."),
    "drill": ("sage_obs.cli.drill", "Break a stack of its own on purpose and score the way back."),
    "profile": ("sage_obs.cli.profile", "Look into a running service: processor, time, memory, tasks, blocked loops, locks."),
    "release": ("sage_obs.cli.release", "The releases of the local platform and what is known of them."),
    "responder": ("sage_obs.cli.responder", "Answer Alertmanager by running runbooks."),
    "run": ("sage_obs.cli.run", "Run a Python program instrumented, without a change to its code."),
    "runbook": ("sage_obs.cli.runbook", "Executable runbooks: incident, rollback."),
    "slo": ("sage_obs.cli.slo", "Objectives: those of the guide, and yours."),
    "up": ("sage_obs.cli.up", "Start the whole stack here: agent, Prometheus, Alertmanager, responder, traffic."),
    "version": ("sage_obs.cli.version", "Print the version."),
}
"""Command name → (module that holds it as `command`, one line of help)."""


class LazyGroup(click.Group):
    """A click group whose commands are imported when they are run; its help comes from the table."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Every command's name, sorted."""
        del ctx
        return sorted(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return a command, or None for an unknown name."""
        del ctx
        if cmd_name not in _COMMANDS:
            return None
        command = importlib.import_module(_COMMANDS[cmd_name][0]).command
        if not isinstance(command, click.Command):
            raise TypeError(f"{_COMMANDS[cmd_name][0]}.command is not a click command")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the table without importing anything."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in sorted(_COMMANDS.items())])


@click.command(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
def group() -> None:
    """Observability and SRE toolkit for services that run AI agents in Python."""


def main() -> None:
    """Run the command line; the one place that turns errors into messages and exit codes."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run with these arguments and return the exit code. Errors people can act on go to stderr without a traceback."""
    return entry.run(group, arguments, name="sage-obs")
