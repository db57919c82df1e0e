"""Identity around the work: who it is for and which conversation it belongs to, on every log line and span within."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Final, Self

from sage_obs.tracing.context import ambient_var

TENANT: Final = "tenant"
CONVERSATION_ID: Final = "conversation_id"
_EMPTY: Final[Mapping[str, str]] = {}


def ambient() -> Mapping[str, str]:
    """What the contexts around this point say."""
    return ambient_var.get() or _EMPTY


class context:  # noqa: N801 - reads as a verb where it is used: with sage_obs.context(tenant="acme")
    """Say who the work inside is for. Inner contexts add to outer ones; labels of metrics are never touched.

    Keys are `tenant` and `conversation_id`; None leaves what an outer context said.
    """

    __slots__ = ("_before", "_said")

    def __init__(self, *, tenant: str | None = None, conversation_id: str | None = None) -> None:
        said = {TENANT: tenant, CONVERSATION_ID: conversation_id}
        self._said = {key: str(value) for key, value in said.items() if value is not None}
        self._before: Mapping[str, str] | None = None

    def __enter__(self) -> Self:
        self._before = ambient_var.get()
        ambient_var.set({**ambient(), **self._said})
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        ambient_var.set(self._before)
