"""What was said before in a conversation, and what is said now."""

from __future__ import annotations

import logging
from http import HTTPStatus

from sage_agent.callers import Caller
from sage_agent.flow.config import SessionsConfig
from sage_agent.messages import Message, Turn
from sage_agent.problems import RETRY_SOON_SECONDS, Problem, invalid
from sage_agent.state.base import SessionKey, Sessions, StateError
from sage_obs.conventions import ErrorType

_log = logging.getLogger("sage_agent")
_LONGEST_ID = 256
"""Characters."""


class Conversations:
    """Remembers messages that belong to a conversation, which are those with a `contextId`."""

    def __init__(self, sessions: Sessions, config: SessionsConfig) -> None:
        self._sessions = sessions
        self._config = config

    def key(self, message: Message, caller: Caller) -> SessionKey | None:
        """Which conversation a message belongs to; None for none. Raises Problem for an id that is too long to be one."""
        if not message.context_id or not self._config.max_turns:
            return None
        if len(message.context_id) > _LONGEST_ID:
            raise invalid(f"`contextId` is longer than {_LONGEST_ID} characters.")
        return SessionKey(caller.tenant, caller.id, message.context_id)

    async def before(self, key: SessionKey) -> tuple[Turn, ...]:
        """The last turns that there is room for, beginning with one of the user's. Raises Problem where they cannot be had.

        An answer that ignores what was said before would look like one that does not.
        """
        try:
            turns = await self._sessions.read(key)
        except StateError as exc:
            _log.warning("a conversation cannot be read", extra={"reason": exc.message})
            raise Problem(
                HTTPStatus.SERVICE_UNAVAILABLE,
                ErrorType.UNAVAILABLE,
                "What was said before in this conversation cannot be read now; try again.",
                retry_after=RETRY_SOON_SECONDS,
            ) from exc
        return _fitting(turns, self._config.max_chars)

    async def add(self, key: SessionKey, question: str, answer: str) -> None:
        """Remember a question and its answer. Where that fails the answer, which is paid for, is given all the same."""
        turns = (Turn("user", question), Turn("assistant", answer))
        try:
            await self._sessions.append(key, turns, keep=self._config.max_turns, seconds=self._config.ttl)
        except StateError as exc:
            _log.warning("an answer is not remembered in its conversation", extra={"reason": exc.message})


def _fitting(turns: tuple[Turn, ...], most: int) -> tuple[Turn, ...]:
    """The last of them that have so many characters together at most."""
    begin, left = len(turns), most
    while begin and len(turns[begin - 1].text) <= left:
        begin -= 1
        left -= len(turns[begin].text)
    while begin < len(turns) and turns[begin].role != "user":
        begin += 1
    return turns[begin:]
