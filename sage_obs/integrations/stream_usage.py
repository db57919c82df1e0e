"""Asking a server for the usage of a stream where the caller has not said whether to, for as long as the server takes the question."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

_OPTION: Final = "stream_options"
_REFUSAL_STATUS: Final = frozenset({400, 422})
_REFUSING_AT_MOST: Final = 100


class StreamUsage:
    """What to add to questions, by server; one that has refused it is not asked again."""

    def __init__(self) -> None:
        self._refusing: set[str] = set()

    def wanted(self, server: str, body: Mapping[str, Any]) -> dict[str, object]:
        """What to add to the body of a stream so that it ends with its usage; nothing where the caller has decided."""
        given = body.get(_OPTION)
        if body.get("stream") is not True or (given is not None and not isinstance(given, Mapping)) or server in self._refusing:
            return {}
        return {} if "include_usage" in (given or {}) else {_OPTION: {**(given or {}), "include_usage": True}}

    def refused(self, server: str, error: BaseException) -> bool:
        """Whether this error is about what was added."""
        if getattr(error, "status_code", 0) not in _REFUSAL_STATUS or _OPTION not in str(error):
            return False
        if len(self._refusing) < _REFUSING_AT_MOST:
            self._refusing.add(server)
        return True
