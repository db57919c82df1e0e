"""OpenTelemetry around us: who wins, what is named and missing, and what would measure a second time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from sage_obs.distro.duplicates import ours
from sage_obs.distro.exporters import GRPC, PROTOCOL, SIGNALS, installed, missing, variable_of
from sage_obs.distro.selection import NAME, STOCK, VARIABLES, contested, found
from sage_obs.doctor.findings import Finding, World, entry_points
from sage_obs.doctor.libraries import is_installed

_COUNTERS: Final = ("prometheus-fastapi-instrumentator", "starlette-exporter", "starlette-prometheus")


def selection(world: World) -> Iterator[Finding]:
    """Another distribution in our place, for programs that OpenTelemetry's command starts.

    Between ours and the stock one, which comes with us, the command takes ours by itself.
    """
    for group, variable in VARIABLES.items():
        names, wanted, remedy = found(group), world.environ.get(variable, ""), f"Set {variable}={NAME}."
        if wanted and wanted not in names:
            yield Finding("distro", f"{variable} is {wanted}, and nothing of that name is installed.", remedy)
        elif wanted and wanted != NAME:
            yield Finding("distro", f"{variable} selects {wanted} instead of ours.", remedy)
        elif not wanted and contested(group) and names[0] != NAME:
            kind = group.removeprefix("opentelemetry_")
            yield Finding("distro", f"`{names[0]}` is the first {kind} that is found, so it wins over ours.", remedy)
    yield from _stock_default(world)


def _stock_default(world: World) -> Iterator[Finding]:
    """What the stock distribution sets where nothing is set is an exporter that it does not bring."""
    if world.environ.get("OTEL_PYTHON_DISTRO") not in STOCK or world.environ.get("OTEL_PYTHON_CONFIGURATOR") == NAME:
        return
    then = {PROTOCOL: GRPC, **{variable_of(signal): "otlp" for signal in SIGNALS}, **world.environ}
    if set(missing(then, installed())) - set(missing(world.environ, installed())):
        what = "The stock distribution sets OTLP by gRPC, which is not installed: OpenTelemetry's command would start nothing."
        yield Finding("exporter", what, f"Set OTEL_PYTHON_DISTRO={NAME}, or the OTEL_*_EXPORTER and {PROTOCOL}.")


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
    if said.strip() == "grpc" and not world.environ.get("OTEL_TRACES_EXPORTER") and world.setting("traces_endpoint").value:
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
    left_out = world.environ.get("OTEL_PYTHON_DISTRO") == NAME
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
        if is_installed(package):
            yield Finding(
                "duplicate", f"{package} is installed: it measures every request a second time.", f"Remove it: pip uninstall {package}"
            )
