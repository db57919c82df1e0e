"""The interceptors that measure a gRPC server's RPCs, outermost: what they return has the kinds of function it had before."""

from __future__ import annotations

import asyncio
import functools
import inspect
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any, Final, Self

import grpc
import grpc.aio

from sage_obs.genai.requests import recorder
from sage_obs.health.board import board
from sage_obs.integrations.grpc_call import FULL, Call

Behavior = Callable[..., Any]
_UNCOUNTED: Final = "/grpc.health.v1.Health/"
"""Probes, as on the paths of HTTP."""


class _Found(threading.local):
    """The RPC whose handler this thread has found last: a server that is full rejects it next."""

    call: Call | None = None


_found: Final = _Found()


class _Unserialized:
    """Stands for a response that cannot be serialized, until the server tries to."""

    __slots__ = ("error",)

    def __init__(self, error: Exception) -> None:
        self.error = error


class Interceptor(grpc.ServerInterceptor):  # type: ignore[misc]
    """Measures the RPCs of a server with threads, while `on()`."""

    def __init__(self, on: Callable[[], bool]) -> None:
        self._on = on

    def intercept_service(self, continuation: Callable[[Any], Any], handler_call_details: Any) -> Any:
        """The method's handler, measured."""
        handler = continuation(handler_call_details)
        call = _call(handler_call_details) if self._on() else None
        if call is None:
            return handler
        board().started()
        _found.call = call
        return _measured(handler, call)


def rejecting(original: Callable[..., None]) -> Callable[..., None]:
    """The function by which a server with threads rejects what exceeds its `maximum_concurrent_rpcs`."""
    from grpc._cython.cygrpc import StatusCode

    @functools.wraps(original)
    def _reject_rpc(*args: Any) -> None:
        original(*args)
        call, _found.call = _found.call, None
        if call is not None and StatusCode.resource_exhausted in args:
            call.refuse("RESOURCE_EXHAUSTED", operation=call.method, amounts_to=FULL)

    return _reject_rpc


class AioInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[misc]
    """Measures the RPCs of asyncio's server, while `on()`."""

    def __init__(self, on: Callable[[], bool]) -> None:
        self._on = on

    async def intercept_service(self, continuation: Callable[[Any], Awaitable[Any]], handler_call_details: Any) -> Any:
        """The method's handler, measured."""
        handler = await continuation(handler_call_details)
        call = _call(handler_call_details) if self._on() else None
        if call is None:
            return handler
        board().seen(asyncio.get_running_loop())
        return _measured(handler, call)


def _call(details: Any) -> Call | None:
    active = recorder()
    return None if active is None or details.method.startswith(_UNCOUNTED) else Call(active, details)


def _measured(handler: Any, call: Call) -> Any:
    """A handler like this one, for one RPC."""
    if handler is None:
        call.refuse("UNIMPLEMENTED")
        return None
    kind = f"{'stream' if handler.request_streaming else 'unary'}_{'stream' if handler.response_streaming else 'unary'}"
    behavior, make = getattr(handler, kind), getattr(grpc, f"{kind}_rpc_method_handler")
    if getattr(behavior, "experimental_non_blocking", False):  # answers by a callback, and nothing says when it is done
        return handler
    read = handler.request_deserializer if handler.request_streaming else _reading(handler.request_deserializer, call)
    if handler.response_streaming:
        return make(_stream(behavior, call), read, _sending(handler.response_serializer, call))
    return make(_unary(behavior, handler.response_serializer, call), read, _serialized)


def _unary(behavior: Behavior, serializer: Behavior | None, call: Call) -> Behavior:
    if inspect.iscoroutinefunction(behavior):

        @functools.wraps(behavior)
        async def respond(request: Any, context: Any) -> Any:
            call.begin(context)
            try:
                response = await behavior(request, context)
            except BaseException as exc:
                call.fail(exc)
                raise
            return _answer(response, serializer, call)

        return respond

    @functools.wraps(behavior)
    def respond_sync(request: Any, context: Any) -> Any:
        call.begin(context)
        try:
            response = behavior(request, context)
        except BaseException as exc:
            call.fail(exc)
            raise
        return _answer(response, serializer, call)

    return respond_sync


def _answer(response: Any, serializer: Behavior | None, call: Call) -> Any:
    """The response as bytes: that it can be made such belongs to the RPC."""
    try:
        answer = response if serializer is None else serializer(response)
    except Exception as exc:  # noqa: BLE001 - the server hears of it in its own place
        call.broken()
        answer = _Unserialized(exc)
    call.done()
    return answer


def _serialized(answer: Any) -> Any:
    if isinstance(answer, _Unserialized):
        raise answer.error
    return answer


def _stream(behavior: Behavior, call: Call) -> Behavior:
    if inspect.isasyncgenfunction(behavior):
        return _generator(behavior, call)
    if inspect.iscoroutinefunction(behavior):  # writes to its context

        @functools.wraps(behavior)
        async def respond(request: Any, context: Any) -> Any:
            call.begin(context)
            call.watch()
            try:
                answer = await behavior(request, context)
            except BaseException as exc:
                call.fail(exc)
                raise
            call.done()
            return answer

        return respond

    @functools.wraps(behavior)
    def respond_sync(request: Any, context: Any) -> Any:
        call.begin(context)
        call.watch()
        try:
            messages = behavior(request, context)
        except BaseException as exc:
            call.fail(exc)
            raise
        call.leave()
        return _Messages(call, messages)

    return respond_sync


def _generator(behavior: Behavior, call: Call) -> Behavior:
    @functools.wraps(behavior)
    async def respond(request: Any, context: Any) -> AsyncIterator[Any]:
        call.begin(context)
        call.watch()
        messages = behavior(request, context)
        try:
            async for message in messages:
                call.leave()
                yield message
                call.enter()
        except BaseException as exc:
            call.fail(exc)
            raise
        finally:
            await messages.aclose()
        call.done()

    return respond


class _Messages:
    """The responses of a handler; the RPC is the current request while one is made, and at no other time."""

    __slots__ = ("_call", "_made", "_messages")

    def __init__(self, call: Call, messages: Any) -> None:
        self._call = call
        self._made = messages
        self._messages: Iterator[Any] | None = None

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        call = self._call
        call.enter()
        try:
            if self._messages is None:
                self._messages = iter(self._made)
            message = next(self._messages)
        except StopIteration:
            call.done()
            raise
        except BaseException as exc:
            call.fail(exc)
            raise
        call.leave()
        return message


def _sending(serializer: Behavior | None, call: Call) -> Behavior:
    """Serializes the messages of a stream, which go out then."""

    def send(message: Any) -> Any:
        try:
            data = message if serializer is None else serializer(message)
        except Exception:
            call.broken()
            raise
        call.streaming()
        return data

    return send


def _reading(deserializer: Behavior | None, call: Call) -> Behavior | None:
    if deserializer is None:
        return None

    def read(data: Any) -> Any:
        try:
            return deserializer(data)
        except Exception:
            call.refuse("INTERNAL", operation=call.method)
            raise

    return read
