"""What a tool says when it cannot do what it was asked."""

from __future__ import annotations


class ToolError(Exception):
    """Raised by a tool; its message is told to the model, which may try something else.

    Of every other exception the model learns only that there was one: messages hold addresses and secrets.
    """
