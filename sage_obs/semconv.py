"""The names of GenAI facts on spans and on pushed metrics, written once, and by which of OpenTelemetry's conventions they are said.

A constant is today's name (`semantic-conventions-genai`, and what opentelemetry-semantic-conventions 0.66b knows). `legacy` is what
tools from version 1.36 of the conventions and before look for: those names are said beside today's, and what came later with another
meaning is left out. `latest` says today's names only, `both` all of them. The two that are required, operation and provider, are
always there by today's names.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal, TypeVar, cast

Convention = Literal["legacy", "latest", "both"]
CONVENTIONS: Final[tuple[Convention, ...]] = ("legacy", "latest", "both")
V = TypeVar("V")

OPERATION: Final = "gen_ai.operation.name"
PROVIDER: Final = "gen_ai.provider.name"
REQUEST_MODEL: Final = "gen_ai.request.model"
RESPONSE_MODEL: Final = "gen_ai.response.model"
RESPONSE_ID: Final = "gen_ai.response.id"
FINISH_REASONS: Final = "gen_ai.response.finish_reasons"
TIME_TO_FIRST_CHUNK: Final = "gen_ai.response.time_to_first_chunk"
INPUT_TOKENS: Final = "gen_ai.usage.input_tokens"
OUTPUT_TOKENS: Final = "gen_ai.usage.output_tokens"
CACHE_READ_TOKENS: Final = "gen_ai.usage.cache_read.input_tokens"
CACHE_CREATION_TOKENS: Final = "gen_ai.usage.cache_creation.input_tokens"
REASONING_TOKENS: Final = "gen_ai.usage.reasoning.output_tokens"
TOKEN_TYPE: Final = "gen_ai.token.type"  # noqa: S105 - no secret, a name
CONVERSATION: Final = "gen_ai.conversation.id"
AGENT_NAME: Final = "gen_ai.agent.name"
TOOL_NAME: Final = "gen_ai.tool.name"
TOOL_ARGUMENTS: Final = "gen_ai.tool.call.arguments"
TOOL_RESULT: Final = "gen_ai.tool.call.result"
TOOL_DEFINITIONS: Final = "gen_ai.tool.definitions"
SYSTEM_INSTRUCTIONS: Final = "gen_ai.system_instructions"
INPUT_MESSAGES: Final = "gen_ai.input.messages"
OUTPUT_MESSAGES: Final = "gen_ai.output.messages"

OLDER: Final = {
    PROVIDER: "gen_ai.system",
    INPUT_TOKENS: "gen_ai.usage.prompt_tokens",
    OUTPUT_TOKENS: "gen_ai.usage.completion_tokens",
}
"""Today's names, and those that came before them: the system until 1.36, the others until 1.26."""
OLDER_PROVIDERS: Final = {"x_ai": "xai"}
"""Providers that `gen_ai.system` had other values for."""
NEWER: Final = frozenset({TIME_TO_FIRST_CHUNK})
"""What `legacy` leaves out."""
OPT_IN: Final = "gen_ai_latest_experimental"
"""The word in OTEL_SEMCONV_STABILITY_OPT_IN that chooses `latest`."""


class _Active:
    __slots__ = ("convention",)

    def __init__(self) -> None:
        self.convention: Convention = "legacy"


_active: Final = _Active()


def use(convention: Convention) -> None:
    """Say facts by these conventions from now on."""
    _active.convention = convention


def said(facts: Mapping[str, V]) -> dict[str, V]:
    """Facts under today's names, as the conventions in use say them."""
    convention = _active.convention
    if convention == "latest":
        return dict(facts)
    older = {OLDER[name]: _older(name, value) for name, value in facts.items() if name in OLDER}
    return {**{name: value for name, value in facts.items() if convention == "both" or name not in NEWER}, **older}


def _older(name: str, value: V) -> V:
    return cast("V", OLDER_PROVIDERS.get(value, value)) if name == PROVIDER and isinstance(value, str) else value
