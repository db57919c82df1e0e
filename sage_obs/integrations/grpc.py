"""gRPC: RPCs of servers are requests of the contract, and calls made with channels carry the trace on.

A server is measured if it is made while the layer is on, in threads or in asyncio; the operation is the method. Of clients the methods
of stubs are patched and not the making of channels, so that what was made before is covered, nothing stays behind, and channels keep
their types. It adds one entry of metadata and nothing else.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any, Final

from sage_obs.health.board import board
from sage_obs.integrations.patch import Patch, Patches
from sage_obs.metrics.active import internal_error
from sage_obs.tracing.active import tracing

_TRACEPARENT: Final = "traceparent"
_INTERCEPTORS: Final = 2
"""Where interceptors stand among the arguments of both functions that make a server."""
_METADATA: Final = 2
"""Where metadata stands among the arguments of a stub's methods, after the request and the timeout."""
_CALLS: Final = {
    "_UnaryUnaryMultiCallable": ("__call__", "with_call", "future"),
    "_SingleThreadedUnaryStreamMultiCallable": ("__call__",),
    "_UnaryStreamMultiCallable": ("__call__",),
    "_StreamUnaryMultiCallable": ("__call__", "with_call", "future"),
    "_StreamStreamMultiCallable": ("__call__",),
}
_AIO_CALLS: Final = ("UnaryUnaryMultiCallable", "UnaryStreamMultiCallable", "StreamUnaryMultiCallable", "StreamStreamMultiCallable")


class GrpcIntegration:
    """Measures servers and carries the trace on."""

    name = "grpc"
    distribution = "grpcio"
    module = "grpc"
    versions = ("1.60", "2")

    def __init__(self) -> None:
        self._patches = Patches()

    def install(self) -> None:
        """Patch the making of servers and the methods of stubs."""
        self._patches.install(*self._servers(), *_clients())

    def _servers(self) -> Iterator[Patch]:
        import grpc
        from grpc import _server, aio
        from grpc.aio import _server as aio_server

        from sage_obs.integrations.grpc_server import AioInterceptor, Interceptor, rejecting

        yield Patch(grpc, "server", functools.partial(_intercepted, interceptor=Interceptor(self._on)))
        yield Patch(aio, "server", functools.partial(_intercepted, interceptor=AioInterceptor(self._on)))
        yield Patch(_server._Server, "start", _starting)  # noqa: SLF001 - there is no public class
        yield Patch(_server, "_reject_rpc", rejecting)
        yield Patch(aio_server.Server, "start", _starting_async)

    def _on(self) -> bool:
        return bool(self._patches)

    def uninstall(self) -> None:
        """Put them back. Servers that were made meanwhile go on and are not measured."""
        self._patches.uninstall()


def _clients() -> Iterator[Patch]:
    from grpc import _channel
    from grpc.aio import _channel as aio_channel

    for name, methods in _CALLS.items():
        for method in methods if hasattr(_channel, name) else ():
            yield Patch(getattr(_channel, name), method, _carrying)
    for name in _AIO_CALLS:
        yield Patch(getattr(aio_channel, name), "__call__", _carrying)


def _intercepted(original: Callable[..., Any], *, interceptor: Any) -> Callable[..., Any]:
    """The function that makes a server, with our interceptor before the application's."""

    @functools.wraps(original)
    def server(*args: Any, **kwargs: Any) -> Any:
        board().expect_app()
        if len(args) > _INTERCEPTORS:
            ours = (interceptor, *(args[_INTERCEPTORS] or ()))
            return original(*args[:_INTERCEPTORS], ours, *args[_INTERCEPTORS + 1 :], **kwargs)
        kwargs["interceptors"] = (interceptor, *(kwargs.get("interceptors") or ()))
        return original(*args, **kwargs)

    return server


def _starting(original: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(original)
    def start(self: Any) -> None:
        original(self)
        board().started()

    return start


def _starting_async(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    async def start(self: Any) -> None:
        await original(self)
        board().started()

    return start


def _carrying(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        if len(args) > _METADATA:
            args = (*args[:_METADATA], _carried(args[_METADATA]), *args[_METADATA + 1 :])
        elif (metadata := _carried(given := kwargs.get("metadata"))) is not given:
            kwargs["metadata"] = metadata
        return original(self, *args, **kwargs)

    return call


def _carried(metadata: Any) -> Any:
    """The metadata with `traceparent` where there is a trace to continue, unless the application has put it there; of the same type."""
    try:
        if not (header := tracing().outgoing()):
            return metadata
        entries = tuple(metadata or ())
        if any(entry[0] == _TRACEPARENT for entry in entries):
            return metadata if isinstance(metadata, (tuple, list)) or hasattr(metadata, "get_all") else entries
        return _like(metadata, (*entries, (_TRACEPARENT, header)))
    except Exception as exc:  # noqa: BLE001 - the telemetry must not break the call
        internal_error("grpc", exc)
        return metadata


def _like(metadata: Any, entries: tuple[Any, ...]) -> Any:
    if hasattr(metadata, "get_all"):  # asyncio's own type
        return type(metadata)(*entries)
    return list(entries) if isinstance(metadata, list) else entries


INTEGRATION: Final = GrpcIntegration()
