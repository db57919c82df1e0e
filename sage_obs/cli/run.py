"""`sage-obs run`."""

from __future__ import annotations

import os
import sys

import click


@click.command("run", context_settings={"allow_interspersed_args": False})
@click.option("--service", help="The service's name.")
@click.option("--metrics-port", type=click.IntRange(0, 65535), help="The port /metrics and /health answer on; 0 takes any free one.")
@click.option("--traces-endpoint", metavar="URL", help="The OTLP/HTTP endpoint spans go to.")
@click.option("--sampling-rate", type=click.FloatRange(0, 1), help="The share of new traces that is recorded.")
@click.option("--log-level", help="The least level that is logged.")
@click.argument("program", nargs=-1, required=True, type=click.UNPROCESSED, metavar="CMD [ARG]...")
def command(
    *,
    service: str | None,
    metrics_port: int | None,
    traces_endpoint: str | None,
    sampling_rate: float | None,
    log_level: str | None,
    program: tuple[str, ...],
) -> None:
    """Run a Python program instrumented, without a change to its code: `sage-obs run -- python app.py`.

    CMD is python, or a program written in it such as uvicorn, gunicorn or pytest. Every setting is also a variable of the environment,
    and what CMD starts is instrumented too. The exit code is the program's; 127 if there is no such program, 126 if it is not Python.
    """
    from sage_obs.distro.launch import launch

    said = {
        "OTEL_SERVICE_NAME": service,
        "SAGE_METRICS_PORT": metrics_port,
        "SAGE_TRACING_ENDPOINT": traces_endpoint,
        "SAGE_TRACING_SAMPLING_RATE": sampling_rate,
        "SAGE_LOG_LEVEL": log_level,
    }
    made = launch(program, os.environ, {name: str(value) for name, value in said.items() if value is not None})
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(made.executable, made.argv, made.environ)  # noqa: S606 - becoming the program is what was asked for
