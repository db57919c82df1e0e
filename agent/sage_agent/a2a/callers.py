"""Who asks, as the SDK passes it along."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from a2a.auth.user import User
from a2a.extensions.common import HTTP_EXTENSION_HEADER, get_requested_extensions
from a2a.server.context import ServerCallContext
from a2a.server.routes.common import ServerCallContextBuilder

from sage_agent.callers import ANONYMOUS, Caller, Role
from sage_agent.state.base import Owner

if TYPE_CHECKING:
    from starlette.requests import Request

_CALL: Final = "sage_agent.call"


@dataclass(slots=True)
class Call:
    """One request: its caller, when its answer is due (the event loop's time), whether it is streamed, and the work on it."""

    caller: Caller
    deadline: float
    streamed: bool
    work: asyncio.Task[None] | None = None


class CallerUser(User):
    """A caller, in the SDK's terms."""

    def __init__(self, caller: Caller) -> None:
        self.caller = caller

    @property
    def is_authenticated(self) -> bool:
        """Whether it is known who asks."""
        return self.caller.how != "anonymous"

    @property
    def user_name(self) -> str:
        """The owner of what is stored."""
        return self.caller.owner


class CallContexts(ServerCallContextBuilder):
    """Builds the SDK's contexts. Of the headers it gets A2A's own only: credentials are none of its business."""

    def build(self, request: Request) -> ServerCallContext:
        """The context of a request."""
        call: Call = request.scope[_CALL]
        headers = {name: value for name, value in request.headers.items() if name.startswith(("a2a-", "x-a2a-"))}
        extensions = get_requested_extensions(request.headers.getlist(HTTP_EXTENSION_HEADER))
        return ServerCallContext(user=CallerUser(call.caller), state={_CALL: call, "headers": headers}, requested_extensions=extensions)


def owner_of(context: ServerCallContext) -> Owner:
    """Whose tasks a request is about: the caller's; a viewer, who has none, looks at those of its tenant.

    Callers without a tenant have nothing in common: among them a viewer sees its own, that is none.
    """
    user = context.user
    caller = user.caller if isinstance(user, CallerUser) else ANONYMOUS
    everybodys = caller.role is Role.VIEWER and caller.tenant
    return Owner(caller.tenant, None if everybodys else caller.id)


def call_of(context: ServerCallContext) -> Call:
    """The request behind a context."""
    call: Call = context.state[_CALL]
    return call


def with_call(scope: dict[str, object], call: Call) -> dict[str, object]:
    """A scope that knows its request."""
    return {**scope, _CALL: call}
