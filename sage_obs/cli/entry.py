"""Running a click command so that errors become messages and exit codes, in one place for every program of the project."""

from __future__ import annotations

import os
import sys

import click

from sage_obs.errors import ExitCode, SageObsError


def run(command: click.Command, arguments: list[str], *, name: str) -> int:
    """Run `command` as the program `name` and return its exit code.

    A SageObsError goes to stderr as its message and its hint, without a traceback, and its `exit_code` is returned.
    """
    try:
        result = command.main(args=arguments, prog_name=name, standalone_mode=False)
    except click.ClickException as exc:
        exc.show()
        return exc.exit_code
    except click.Abort:
        click.echo("Interrupted.", err=True)
        return ExitCode.INTERRUPTED
    except SageObsError as exc:
        click.echo(f"Error: {exc.message}", err=True)
        if exc.hint:
            click.echo(f"  {exc.hint}", err=True)
        return exc.exit_code
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains when it flushes at exit
        return ExitCode.OK
    except OSError as exc:
        about = f" {exc.filename}" if exc.filename else ""
        click.echo(f"Error: {name} cannot go on: {exc.strerror or exc}{about}.", err=True)
        return ExitCode.FAILED
    return result if isinstance(result, int) else ExitCode.OK
