"""How much of what is said to and by models and tools goes on spans. The least is the default, and what is not understood is the least."""

from __future__ import annotations

import enum
from typing import Final


class Content(enum.StrEnum):
    """The levels. `metadata_only` keeps who said how much of what kind, `no_tool_content` all but what goes into tools and comes out."""

    OFF = "off"
    METADATA_ONLY = "metadata_only"
    NO_TOOL_CONTENT = "no_tool_content"
    FULL = "full"


LEVELS: Final = tuple(level.value for level in Content)
_OTEL: Final = {"true": Content.FULL, "span_only": Content.FULL, "span_and_event": Content.FULL}
"""The values of OpenTelemetry's variable that ask for content on spans: the boolean of the older conventions, and those of the newer."""


def level_of(given: object) -> Content | None:
    """The level a word stands for, None where it stands for none."""
    try:
        return Content(str(given).strip().lower()) if isinstance(given, str) else None
    except ValueError:
        return None


def of_otel(text: str) -> str:
    """What OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT asks for; events are not made here, so EVENT_ONLY is nothing."""
    return _OTEL.get(text.strip().lower(), Content.OFF).value


class _Active:
    __slots__ = ("level",)

    def __init__(self) -> None:
        self.level = Content.OFF


_active: Final = _Active()


def use(level: Content) -> None:
    """Capture this much from now on, where nothing nearer says otherwise."""
    _active.level = level


def in_use() -> Content:
    """The level of the process."""
    return _active.level
