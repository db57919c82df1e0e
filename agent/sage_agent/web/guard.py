"""The seam between HTTP and who may ask."""

from __future__ import annotations

from typing import Final, Protocol

from sage_agent.callers import ANONYMOUS, Caller
from sage_agent.web.wire import Scope

Headers = tuple[tuple[bytes, bytes], ...]
_ALSO: Final = "sage_agent.headers"


def say_also(scope: Scope, headers: Headers) -> None:
    """Have these headers on the answer, whatever it is, in place of those of the same names from before."""
    names = {name for name, _ in headers}
    scope[_ALSO] = (*(line for line in said_also(scope) if line[0] not in names), *headers)


def said_also(scope: Scope) -> Headers:
    """The headers that guards want on the answer."""
    found: Headers = scope.get(_ALSO, ())
    return found


class Guard(Protocol):
    """Says who sends a request, in two steps: by its head, before a byte of its body is read, and with the body, which may be signed."""

    async def identify(self, scope: Scope) -> Caller:
        """Who this is by the head alone. Raises Problem (401, 403, 429)."""

    async def verify(self, scope: Scope, body: bytes, caller: Caller) -> Caller:
        """Who this is now that the body is known. Raises Problem (401, 403)."""


class OpenGuard:
    """Implements `Guard` for an agent that asks nobody who they are."""

    async def identify(self, scope: Scope) -> Caller:
        """Anybody."""
        del scope
        return ANONYMOUS

    async def verify(self, scope: Scope, body: bytes, caller: Caller) -> Caller:
        """Whoever it was."""
        del scope, body
        return caller
