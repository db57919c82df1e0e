"""The exporters that OpenTelemetry's variables name, against those that are installed.

What is named and missing makes the SDK fail, and the failure is swallowed: the application runs without telemetry.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Final

SIGNALS: Final = ("traces", "metrics", "logs")
HTTP: Final = "http/protobuf"
GRPC: Final = "grpc"
PROTOCOL: Final = "OTEL_EXPORTER_OTLP_PROTOCOL"
_BY_PROTOCOL: Final = {GRPC: "otlp_proto_grpc", HTTP: "otlp_proto_http"}
_OTLP: Final = "otlp"
_NONE: Final = "none"
OURS: Final = frozenset({_OTLP, _BY_PROTOCOL[HTTP]})
"""What the layer exports spans by itself."""

Installed = Mapping[str, frozenset[str]]


@dataclass(frozen=True, slots=True)
class Missing:
    """An exporter that `variable` asks for and that is not installed; `name` is its entry point."""

    signal: str
    variable: str
    name: str


def installed() -> Installed:
    """The names of the exporters of each signal that are installed."""
    groups = {signal: importlib.metadata.entry_points(group=f"opentelemetry_{signal}_exporter") for signal in SIGNALS}
    return {signal: frozenset(entry.name for entry in found) for signal, found in groups.items()}


def variable_of(signal: str) -> str:
    """The variable that names a signal's exporters."""
    return f"OTEL_{signal.upper()}_EXPORTER"


def named(signal: str, environ: Mapping[str, str]) -> tuple[str, ...]:
    """The exporters a signal is to have, as its variable says; nothing and `none` are none."""
    names = tuple(name.strip() for name in environ.get(variable_of(signal), "").split(","))
    return tuple(name for name in names if name and name.lower() != _NONE)


def protocol_of(signal: str, environ: Mapping[str, str]) -> str:
    """The OTLP protocol that is set for a signal, "" for none."""
    return (environ.get(f"OTEL_EXPORTER_OTLP_{signal.upper()}_PROTOCOL") or environ.get(PROTOCOL, "")).strip()


def entry_of(name: str, signal: str, environ: Mapping[str, str]) -> str:
    """The entry point a name stands for: `otlp` is one by the protocol, gRPC if none is set, as the SDK has it."""
    return _BY_PROTOCOL.get(protocol_of(signal, environ) or GRPC, name) if name == _OTLP else name


def missing(environ: Mapping[str, str], there: Installed) -> Iterable[Missing]:
    """What is asked for and not there."""
    for signal in SIGNALS:
        for name in named(signal, environ):
            if (entry := entry_of(name, signal, environ)) not in there[signal]:
                yield Missing(signal, variable_of(signal), entry)


def settle(environ: MutableMapping[str, str], there: Installed) -> list[Missing]:
    """Make the variables name only what is installed, and OTLP the protocol that is; what had to be left out is returned."""
    if not protocol_of("traces", environ) and (found := _protocol(there)):
        environ[PROTOCOL] = found
    left_out = list(missing(environ, there))
    for signal in {one.signal for one in left_out}:
        gone = {one.name for one in left_out if one.signal == signal}
        kept = [name for name in named(signal, environ) if entry_of(name, signal, environ) not in gone]
        environ[variable_of(signal)] = ",".join(kept) or _NONE
    return left_out


def _protocol(there: Installed) -> str:
    return next((protocol for protocol in (HTTP, GRPC) if _BY_PROTOCOL[protocol] in there["traces"]), "")


def is_stock_default(environ: Mapping[str, str], there: Installed) -> bool:
    """Whether the variables are what the stock distribution sets where nothing was set: OTLP by gRPC, which it does not bring."""
    otlp = all(named(signal, environ) == (_OTLP,) for signal in SIGNALS)
    return otlp and environ.get(PROTOCOL) == GRPC and _BY_PROTOCOL[GRPC] not in there["traces"]


def forget_stock_default(environ: MutableMapping[str, str]) -> None:
    """Take back what the stock distribution has set."""
    for name in (PROTOCOL, *map(variable_of, SIGNALS)):
        environ.pop(name, None)


def needs_the_sdk(environ: Mapping[str, str]) -> bool:
    """Whether anything is asked for that the layer does not do by itself: only spans by OTLP over HTTP it does."""
    if environ.get("OTEL_CONFIG_FILE") or any(named(signal, environ) for signal in ("metrics", "logs")):
        return True
    traces = named("traces", environ)
    return any(name not in OURS or entry_of(name, "traces", environ) == _BY_PROTOCOL[GRPC] for name in traces)
