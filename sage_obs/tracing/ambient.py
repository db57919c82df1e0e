"""Identity around the work: who it is for and which conversation it belongs to, on every log line and span within."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Final, Self

from sage_obs.metrics.active import internal_error
from sage_obs.tracing.context import ambient_var

TENANT: Final = "tenant"
CONVERSATION_ID: Final = "conversation_id"
_EMPTY: Final[Mapping[str, str]] = {}


def ambient() -> Mapping[str, str]:
    """What the contexts around this point say."""
    return ambient_var.get() or _EMPTY


def ambient_content() -> object:
    """The level of content that the contexts around this point ask for, None where none does."""
    return getattr(ambient_var.get(), "content", None)


class _Said(dict[str, str]):
    """What a context and those around it say; it knows the one it was said in."""

    __slots__ = ("around", "content")

    def __init__(self, said: Mapping[str, str], content: object, around: Mapping[str, str] | None) -> None:
        super().__init__({**(around or _EMPTY), **said})
        self.around = around
        self.content = getattr(around, "content", None) if content is None else content


def _text(value: object) -> str | None:
    """The value as text; None where it cannot be made one, which is no reason to break the work inside."""
    try:
        return str(value)
    except Exception as exc:  # noqa: BLE001 - it is the caller's code
        internal_error("traces", exc)
        return None


class context:  # noqa: N801 - reads as a verb where it is used: with sage_obs.context(tenant="acme")
    """Say who the work inside is for. Inner contexts add to outer ones; labels of metrics are never touched.

    Keys are `tenant` and `conversation_id`; None leaves what an outer context said. `content` is how much of what is said inside to and
    by models and tools goes on spans (see `sage_obs.privacy.content`); a word that is none of the levels means nothing of it. Ended
    somewhere else than where it began, as that of an abandoned generator is, it changes nothing there.
    """

    __slots__ = ("_content", "_here", "_said")

    def __init__(self, *, tenant: str | None = None, conversation_id: str | None = None, content: str | None = None) -> None:
        self._content = content
        said = {TENANT: tenant, CONVERSATION_ID: conversation_id}
        self._said = {key: text for key, value in said.items() if value is not None and (text := _text(value)) is not None}
        self._here: _Said | None = None

    def __enter__(self) -> Self:
        self._here = _Said(self._said, self._content, ambient_var.get())
        ambient_var.set(self._here)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        here, found = self._here, ambient_var.get()
        while found is not None and found is not here:
            found = getattr(found, "around", None)
        if here is not None and found is here:
            ambient_var.set(here.around)
