"""The settings of everything that asks a model, as a table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from sage_agent.llm.fallbacks import PROVIDERS, parse_fallbacks, parse_keys, parse_url
from sage_obs.settings import Option, parse_bool, parse_choice, parse_int, parse_ratio, parse_seconds, parse_text


def parse_deadline(value: object) -> float:
    """A duration in seconds that is longer than nothing."""
    seconds = parse_seconds(value)
    if seconds <= 0:
        raise ValueError("expected a duration of more than 0 seconds")
    return seconds


def parse_share(value: object) -> float:
    """A share that is more than nothing, up to 1."""
    share = parse_ratio(value)
    if not share:
        raise ValueError("expected a number over 0, up to 1")
    return share


_OWN: Final = {
    "openai": (("OPENAI_API_KEY",), ("OPENAI_BASE_URL",), "https://api.openai.com/v1", "up to and including /v1"),
    "anthropic": (("ANTHROPIC_API_KEY",), ("ANTHROPIC_BASE_URL",), "https://api.anthropic.com", "without /v1"),
    "gemini": (
        ("GEMINI_API_KEY", "GOOGLE_API_KEY"),
        ("GOOGLE_GEMINI_BASE_URL",),
        "https://generativelanguage.googleapis.com",
        "without /v1beta",
    ),
}
"""By provider: the variables of its key and of its address, and the default address with how far it goes."""


def _own_options() -> dict[str, Option]:
    """What each provider has of its own; `llm.api_key` and `llm.base_url` beat them for the first one asked."""
    options = {}
    for provider, (keys, urls, address, extent) in _OWN.items():
        options[f"{provider}_api_key"] = Option(f"llm.{provider}.api_key", keys, parse_text, "", f"the key for {provider}", secret=True)
        options[f"{provider}_base_url"] = Option(
            f"llm.{provider}.base_url", urls, parse_url, address, f"the address of {provider}, {extent}"
        )
    return options


LLM_OPTIONS: Final[Mapping[str, Option]] = {
    "llm_provider": Option("llm.provider", ("SAGE_LLM_PROVIDER",), parse_choice(*PROVIDERS), "scripted", "who answers"),
    "llm_model": Option("llm.model", ("SAGE_LLM_MODEL",), parse_text, "", "the model that is asked; `scripted` needs none"),
    "llm_base_url": Option("llm.base_url", ("SAGE_LLM_BASE_URL",), parse_url, "", "the address of the provider; none means its own"),
    "llm_api_key": Option("llm.api_key", ("SAGE_LLM_API_KEY",), parse_text, "", "the key; none means the provider's own", secret=True),
    "llm_api_keys": Option(
        "llm.api_keys", ("SAGE_LLM_API_KEYS",), parse_keys, (), "more keys, for when one is rate limited: a list, or by commas", secret=True
    ),
    "llm_fallbacks": Option(
        "llm.fallbacks",
        ("SAGE_LLM_FALLBACKS",),
        parse_fallbacks,
        (),
        "who is asked next when the provider fails: a list of {provider, model, base_url, api_key}",
        secret=True,
    ),
    **_own_options(),
    "simple_model": Option(
        "llm.simple.model", ("SAGE_LLM_SIMPLE_MODEL",), parse_text, "", "a cheaper model for simple questions; none: all go to the same"
    ),
    "simple_provider": Option(
        "llm.simple.provider", ("SAGE_LLM_SIMPLE_PROVIDER",), parse_choice("", *PROVIDERS), "", "whose it is; none: the provider's"
    ),
    "simple_max_chars": Option(
        "llm.simple.max_chars",
        ("SAGE_LLM_SIMPLE_MAX_CHARS",),
        parse_int(1, 1_000_000),
        400,
        "how long a question may be to be simple, with what was said before, in characters",
    ),
    "llm_timeout": Option(
        "llm.timeout", ("SAGE_LLM_TIMEOUT",), parse_deadline, 60.0, "the longest one call to the model may take, in seconds"
    ),
    "llm_max_tokens": Option("llm.max_tokens", ("SAGE_LLM_MAX_TOKENS",), parse_int(1, 1_000_000), 1024, "the longest answer, in tokens"),
    "llm_max_input_tokens": Option(
        "llm.max_input_tokens",
        ("SAGE_LLM_MAX_INPUT_TOKENS",),
        parse_int(0, 100_000_000),
        0,
        "the longest question with what was said before, in tokens as they are estimated; 0: no limit",
    ),
    "llm_system_prompt": Option("llm.system_prompt", ("SAGE_LLM_SYSTEM_PROMPT",), parse_text, "", "what the model is told before all else"),
    "retry_max_wait": Option(
        "llm.retry.max_wait",
        ("SAGE_LLM_RETRY_MAX_WAIT",),
        parse_seconds,
        30.0,
        "the longest pause before all are asked again, in seconds; 0 asks each once",
    ),
    "retry_rounds": Option(
        "llm.retry.rounds", ("SAGE_LLM_RETRY_ROUNDS",), parse_int(0, 1000), 3, "how many times all are asked again, where there is time"
    ),
    "limiter_enabled": Option(
        "llm.limiter.enabled",
        ("SAGE_LLM_LIMITER_ENABLED",),
        parse_bool,
        True,
        "whether fewer calls are made at once where a provider limits the rate, and more again when it does not",
    ),
    "breaker_enabled": Option(
        "llm.breaker.enabled", ("SAGE_LLM_BREAKER_ENABLED",), parse_bool, True, "whether a failing provider is left alone for a while"
    ),
    "breaker_failure_share": Option(
        "llm.breaker.failure_share", ("SAGE_LLM_BREAKER_FAILURE_SHARE",), parse_share, 0.5, "the share of calls that fail, over 0 to 1"
    ),
    "breaker_min_calls": Option(
        "llm.breaker.min_calls", ("SAGE_LLM_BREAKER_MIN_CALLS",), parse_int(1, 1_000_000), 10, "of at least so many calls"
    ),
    "breaker_window": Option("llm.breaker.window", ("SAGE_LLM_BREAKER_WINDOW",), parse_deadline, 30.0, "in the last so many seconds"),
    "breaker_cooldown": Option(
        "llm.breaker.cooldown", ("SAGE_LLM_BREAKER_COOLDOWN",), parse_deadline, 15.0, "how long it is left alone, in seconds"
    ),
    "scripted_latency": Option(
        "llm.scripted.latency", ("SAGE_LLM_SCRIPTED_LATENCY",), parse_seconds, 0.02, "how long a scripted call takes, in seconds"
    ),
    "scripted_error_rate": Option(
        "llm.scripted.error_rate", ("SAGE_LLM_SCRIPTED_ERROR_RATE",), parse_ratio, 0.0, "the share of scripted calls that fail, 0 to 1"
    ),
    "scripted_overhead": Option(
        "llm.scripted.overhead",
        ("SAGE_LLM_SCRIPTED_OVERHEAD",),
        parse_seconds,
        0.0,
        "how long a request takes outside the scripted call, in seconds",
    ),
    "scripted_seed": Option(
        "llm.scripted.seed", ("SAGE_LLM_SCRIPTED_SEED",), parse_int(0, 2**32 - 1), 0, "what scripted answers depend on"
    ),
    "scripted_unready": Option(
        "llm.scripted.unready", ("SAGE_LLM_SCRIPTED_UNREADY",), parse_bool, False, "whether the agent reports itself not ready"
    ),
}
"""By argument name."""
