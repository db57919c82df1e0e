from __future__ import annotations

from collections.abc import Callable

import pytest
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes

import sage_obs
from sage_obs import semconv, testing
from sage_obs.errors import ConfigError
from sage_obs.semconv import CONVENTIONS, OLDER
from sage_obs.settings import Settings

NEW = {"gen_ai.provider.name", "gen_ai.usage.input_tokens", "gen_ai.usage.output_tokens"}
OLD = {"gen_ai.system", "gen_ai.usage.prompt_tokens", "gen_ai.usage.completion_tokens"}
FIRST = {"gen_ai.response.time_to_first_chunk"}


@pytest.mark.parametrize(
    ("convention", "there", "absent"), [("legacy", NEW | OLD, FIRST), ("latest", NEW | FIRST, OLD), ("both", NEW | OLD | FIRST, set())]
)
def test_facts_are_said_by_the_names_that_were_chosen(convention: str, there: set[str], absent: set[str]) -> None:
    """`latest` leaves out the older names, `legacy` what came later, and `both` nothing."""
    with testing.capture(semconv=convention) as telemetry, sage_obs.llm_call("x_ai", "grok") as call:
        call.first_token()
        call.usage(input=3, output=2)
    found = telemetry.span("chat grok").attributes
    assert there <= set(found)
    assert not absent & set(found)
    assert (found["gen_ai.provider.name"], found.get("gen_ai.system", "xai")) == ("x_ai", "xai")


def test_every_name_is_one_that_the_conventions_know() -> None:
    """Today's names and the older ones stand in OpenTelemetry's own table."""
    known = {value for name, value in vars(gen_ai_attributes).items() if name.startswith("GEN_AI_")}
    ours = {value for value in vars(semconv).values() if isinstance(value, str) and value.startswith("gen_ai.")}
    assert ours | set(OLDER.values()) <= known


@pytest.mark.parametrize(
    ("environ", "convention"),
    [
        ({}, "legacy"),
        ({"SAGE_SEMCONV": "both"}, "both"),
        ({"OTEL_SEMCONV_STABILITY_OPT_IN": "http, gen_ai_latest_experimental"}, "latest"),
        ({"OTEL_SEMCONV_STABILITY_OPT_IN": "http/dup"}, "legacy"),
        ({"SAGE_SEMCONV": "legacy", "OTEL_SEMCONV_STABILITY_OPT_IN": "gen_ai_latest_experimental"}, "legacy"),
    ],
)
def test_opentelemetrys_variable_chooses_too(environ: dict[str, str], convention: str) -> None:
    """The opt-in to the latest conventions is heard among others; ours beats it."""
    assert Settings.load(environ=environ).semconv == convention


def test_an_unknown_convention_is_an_error_that_names_the_choices(instrument: Callable[..., sage_obs.Handle]) -> None:
    """A slip is not taken for the default."""
    with pytest.raises(ConfigError, match=r"expected one of legacy, latest, both.*did you mean `latest`"):
        instrument(semconv="lastest")
    assert CONVENTIONS == ("legacy", "latest", "both")


@pytest.mark.parametrize(
    ("environ", "level"),
    [
        ({}, "off"),
        ({"SAGE_CAPTURE_CONTENT": "No_Tool_Content"}, "no_tool_content"),
        ({"OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT": "true"}, "full"),
        ({"OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT": "SPAN_ONLY"}, "full"),
        ({"OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT": "SPAN_AND_EVENT"}, "full"),
        ({"OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT": "EVENT_ONLY"}, "off"),
        ({"OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT": "everything"}, "off"),
        ({"SAGE_CAPTURE_CONTENT": "off", "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT": "true"}, "off"),
    ],
)
def test_the_level_of_content_comes_from_either_variable(environ: dict[str, str], level: str) -> None:
    """Ours beats OpenTelemetry's, whose unknown words mean nothing."""
    assert Settings.load(environ=environ).content == level


def test_an_unknown_level_is_an_error_that_names_the_choices() -> None:
    """The setting is not guessed."""
    with pytest.raises(ConfigError, match="expected one of off, metadata_only, no_tool_content, full"):
        Settings.load(environ={"SAGE_CAPTURE_CONTENT": "everything"})
