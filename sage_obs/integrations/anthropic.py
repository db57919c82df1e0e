"""anthropic: messages of every client, each call counted once."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, Final

from sage_obs.genai.calls import LlmCall
from sage_obs.genai.transcript import Transcript
from sage_obs.genai.usage import NOTHING, of_anthropic, part
from sage_obs.integrations.anthropic_content import Events, answers_of, asked
from sage_obs.integrations.stainless import Clients, Question

_MESSAGES: Final = "/v1/messages"
_PROVIDERS: Final = (("Bedrock", "aws.bedrock"), ("Vertex", "gcp.vertex_ai"), ("Foundry", "azure.ai.inference"))
"""Where else the models run, by the name of the client's class, in the conventions' words."""


def provider_of(client: Any) -> str:
    """Who runs the models a client asks."""
    names = [kind.__name__ for kind in type(client).__mro__]
    return next((provider for part_of_name, provider in _PROVIDERS if any(part_of_name in name for name in names)), "anthropic")


class _Dialect:
    name = "anthropic"

    def question(self, client: Any, path: str, body: Mapping[str, Any], *, raw: bool) -> Question | None:
        del raw
        if path != _MESSAGES:
            return None
        model = body.get("model") or "unknown"
        return Question(provider_of(client), model, "chat", _Messages(), {}, functools.partial(asked, body=body))

    def traces_itself(self, client: Any) -> bool:
        """Its own spans of a kind the caller must have chosen: with content, or to a provider of their own (from version 2 on)."""
        chosen = getattr(client, "open_telemetry", None)
        return part(chosen, "tracer_provider") is not None or part(chosen, "traces", "content_mode") == "content"

    def refused(self, client: Any, error: Exception) -> bool:
        del client, error
        return False


class _Messages:
    """Reads one message. A stream says at its start what the prompt used, and at its end what the answer did."""

    __slots__ = ("_events", "_usage")

    def __init__(self) -> None:
        self._usage = NOTHING
        self._events: Events | None = None

    def whole(self, call: LlmCall, answer: Any) -> None:
        self._begun(call, answer)
        call.capture.say(lambda transcript: transcript.answered(answers_of(answer)))

    def _begun(self, call: LlmCall, answer: Any) -> None:
        call.response(model=part(answer, "model"), id=part(answer, "id"), finish_reasons=(part(answer, "stop_reason"),))
        self._used(call, part(answer, "usage"))

    def piece(self, call: LlmCall, item: Any) -> bool:
        kind = part(item, "type")
        if call.capture.on:
            call.capture.say(lambda transcript: self._follow(transcript, item))
        if kind == "message_start":
            self._begun(call, part(item, "message"))
        elif kind == "content_block_delta":
            call.first_token()
        elif kind == "message_delta":
            call.response(finish_reasons=(part(item, "delta", "stop_reason"),))
            self._used(call, part(item, "usage"))
        return True

    def _follow(self, transcript: Transcript, item: Any) -> None:
        if self._events is None:
            self._events = Events()
            transcript.following(self._events.messages)
        self._events.add(item)

    def _used(self, call: LlmCall, sent: object) -> None:
        if sent is not None:
            self._usage = self._usage.grown(of_anthropic(sent))
            call.used(self._usage)


class AnthropicIntegration:
    """Counts the calls of every Anthropic client, synchronous and asynchronous, Bedrock's and Vertex's included."""

    name = "anthropic"
    module = "anthropic"
    versions = ("0.49", "3")

    def __init__(self) -> None:
        self._clients = Clients("anthropic", _Dialect())

    def install(self) -> None:
        """Patch both clients."""
        self._clients.install()

    def uninstall(self) -> None:
        """Put them back."""
        self._clients.uninstall()


INTEGRATION: Final = AnthropicIntegration()
