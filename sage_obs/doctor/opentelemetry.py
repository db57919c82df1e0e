"""OpenTelemetry around us: who wins, what is named and missing, and what would measure a second time."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator
from pathlib import PurePath
from typing import Final

from sage_obs.distro.duplicates import ours
from sage_obs.distro.exporters import installed, missing
from sage_obs.doctor.findings import Finding, World, entry_points

_NAME: Final = "sage_obs"
_COMMAND: Final = "opentelemetry-instrument"
_SELECT: Final = {"opentelemetry_distro": "OTEL_PYTHON_DISTRO", "opentelemetry_configurator": "OTEL_PYTHON_CONFIGURATOR"}
_STOCK: Final = frozenset({"distro", "configurator"})
_COUNTERS: Final = ("prometheus-fastapi-instrumentator", "starlette-exporter", "starlette-prometheus")


def selection(world: World) -> Iterator[Finding]:
    """Another distribution in our place, for programs that OpenTelemetry's command starts.

    The stock one comes with us, and is worth a word only where that command is used.
    """
    for group, variable in _SELECT.items():
        names = [entry.name for entry in entry_points(group)]
        wanted = world.environ.get(variable, "")
        remedy = f"Set {variable}={_NAME}."
        if wanted and wanted not in names:
            yield Finding("distro", f"{variable} is {wanted}, and nothing of that name is installed.", remedy)
        elif wanted and wanted != _NAME:
            yield Finding("distro", f"{variable} selects {wanted} instead of ours.", remedy)
        elif not wanted and names and names[0] != _NAME and (_uses_the_command(world) or names[0] not in _STOCK):
            yield Finding(
                "distro", f"`{names[0]}` is the first {group.removeprefix('opentelemetry_')} that is found, so it wins over ours.", remedy
            )


def _uses_the_command(world: World) -> bool:
    return any(PurePath(word).name == _COMMAND for word in world.command)


def exporters(world: World) -> Iterator[Finding]:
    """An exporter or a protocol that is named and not installed: the SDK would fail, in silence."""
    for one in missing(world.environ, installed()):
        what = f"{one.variable} needs the exporter {one.name}, which is not installed."
        if one.name == "otlp_proto_grpc":
            yield Finding(
                "exporter", what, "Set OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf, or pip install opentelemetry-exporter-otlp-proto-grpc."
            )
        else:
            yield Finding("exporter", what, f"Install the package that brings it, or correct {one.variable}.")


def protocol(world: World) -> Iterator[Finding]:
    """OTLP by gRPC is asked for, where the layer's own exporter speaks HTTP only."""
    said = world.environ.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") or world.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL", "")
    named = world.environ.get("OTEL_TRACES_EXPORTER")
    if said.strip() == "grpc" and not named and world.setting("traces_endpoint").value:
        yield Finding(
            "exporter",
            "OTEL_EXPORTER_OTLP_PROTOCOL is grpc, and the layer sends spans by OTLP over HTTP.",
            "Set it to http/protobuf and the endpoint to the collector's HTTP port, usually 4318.",
        )


def disabled(world: World) -> Iterator[Finding]:
    """The switch that leaves no spans at all."""
    if world.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        yield Finding(
            "sdk-disabled", "OTEL_SDK_DISABLED is set: there are no spans.", "Unset it; metrics, logs and health are on all the same."
        )


def duplicates(world: World) -> Iterator[Finding]:
    """Instrumentors that make our spans again, and packages that count every request again."""
    switched_off = {name.strip() for name in world.environ.get("OTEL_PYTHON_DISABLED_INSTRUMENTATIONS", "").split(",")}
    left_out = world.environ.get("OTEL_PYTHON_DISTRO") == _NAME
    for entry in entry_points("opentelemetry_instrumentor"):
        name = ours(entry.name)
        if name is not None and not left_out and not {entry.name, "*"} & switched_off:
            brought = f" ({entry.dist.name})" if entry.dist is not None else ""
            yield Finding(
                "duplicate",
                f"The instrumentor {entry.name}{brought} makes the same spans as our integration {name} in a program that calls it.",
                f"Uninstall it, or leave out the call, or pass disable=['{name}'] to instrument().",
            )
    for package in _COUNTERS:
        if _is_installed(package):
            yield Finding(
                "duplicate", f"{package} is installed: it measures every request a second time.", f"Remove it: pip uninstall {package}"
            )


def _is_installed(package: str) -> bool:
    try:
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True
