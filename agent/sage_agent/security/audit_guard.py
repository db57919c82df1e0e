"""A guard that has the audit log say who was not let in."""

from __future__ import annotations

from http import HTTPStatus
from typing import Final

from sage_agent.callers import Caller
from sage_agent.problems import Problem
from sage_agent.security.audit import Audit
from sage_agent.web.guard import Guard
from sage_agent.web.wire import Scope, head_of

_OUTCOMES: Final = {HTTPStatus.UNAUTHORIZED: "not proved", HTTPStatus.FORBIDDEN: "not allowed"}


class AuditGuard:
    """Implements `Guard` around another; who is let in costs nothing."""

    def __init__(self, inner: Guard, audit: Audit) -> None:
        self._inner = inner
        self._audit = audit

    async def identify(self, scope: Scope) -> Caller:
        """As the one inside."""
        try:
            return await self._inner.identify(scope)
        except Problem as problem:
            self._note(scope, problem)
            raise

    async def verify(self, scope: Scope, body: bytes, caller: Caller) -> Caller:
        """As the one inside."""
        try:
            return await self._inner.verify(scope, body, caller)
        except Problem as problem:
            self._note(scope, problem)
            raise

    def _note(self, scope: Scope, problem: Problem) -> None:
        """Where it came from and by what it was tried; never the credential."""
        outcome = _OUTCOMES.get(problem.status)
        if outcome is None:
            return
        head, peer = head_of(scope), scope.get("client")
        tried = next((name.decode() for name in (b"signature-input", b"authorization", b"x-api-key") if name in head), "nothing")
        forwarded = head.get(b"x-forwarded-for", b"").decode("latin-1")
        self._audit.refused(outcome, path=scope["path"], peer=str(peer[0]) if peer else "", forwarded=forwarded, tried=tried)
