"""Which models are asked, how patiently, and when they are left alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from sage_agent.llm.fallbacks import TargetConfig
from sage_agent.llm.options import LLM_OPTIONS
from sage_obs.errors import ConfigError


@dataclass(frozen=True, slots=True)
class ScriptedConfig:
    """The embedded provider: latency and overhead in seconds, the share of calls that fail, the seed, and forced unreadiness."""

    latency: float
    error_rate: float
    overhead: float
    seed: int
    unready: bool


@dataclass(frozen=True, slots=True)
class BreakerConfig:
    """A target is left alone for `cooldown` seconds once this share of at least `min_calls` failed within `window` seconds."""

    enabled: bool
    failure_share: float
    min_calls: int
    window: float
    cooldown: float


@dataclass(frozen=True, slots=True)
class LlmConfig:
    """Who is asked, in this order. `timeout` is in seconds and covers one call, as `max_wait` one pause, of which there are `rounds`.

    `limiter` is whether fewer calls are made at once where a provider limits the rate.

    `simple` is asked first where a question has at most `simple_max_chars` characters; None where all go to the same.
    """

    targets: tuple[TargetConfig, ...]
    simple: TargetConfig | None
    simple_max_chars: int
    timeout: float
    max_wait: float
    rounds: int
    limiter: bool
    breaker: BreakerConfig
    scripted: ScriptedConfig

    @property
    def first(self) -> TargetConfig:
        """Who is asked where nothing is wrong."""
        return self.targets[0]

    @property
    def for_simple(self) -> LlmConfig:
        """The same for simple questions."""
        return self if self.simple is None else replace(self, targets=(self.simple, *self.targets), simple=None)


def read_llm(plain: Mapping[str, Any]) -> LlmConfig:
    """Read the settings by argument name. Raises ConfigError for a provider that lacks its model or its key."""
    keys = tuple(dict.fromkeys(key for key in (plain["llm_api_key"], *plain["llm_api_keys"]) if key))
    first = TargetConfig(plain["llm_provider"], plain["llm_model"], plain["llm_base_url"], keys)
    fallbacks = [_whole(one, plain, number) for number, one in enumerate(plain["llm_fallbacks"], 1)]
    whole = _whole(first, plain, 0)
    return LlmConfig(
        targets=(whole, *fallbacks),
        simple=_simple(whole, plain),
        simple_max_chars=plain["simple_max_chars"],
        timeout=plain["llm_timeout"],
        max_wait=plain["retry_max_wait"],
        rounds=plain["retry_rounds"],
        limiter=plain["limiter_enabled"],
        breaker=BreakerConfig(**{name: plain[f"breaker_{name}"] for name in BreakerConfig.__dataclass_fields__}),
        scripted=ScriptedConfig(**{name: plain[f"scripted_{name}"] for name in ScriptedConfig.__dataclass_fields__}),
    )


def _simple(first: TargetConfig, plain: Mapping[str, Any]) -> TargetConfig | None:
    """Who is asked simple questions; with the address and keys of the first where it is the same provider's."""
    provider = plain["simple_provider"] or first.provider
    if not plain["simple_model"]:
        if plain["simple_provider"]:
            raise ConfigError("llm.simple.provider is set, and no model of it.", hint="Set llm.simple.model.")
        return None
    if provider == first.provider:
        return replace(first, model=plain["simple_model"])
    return _whole(TargetConfig(provider, plain["simple_model"]), plain, 0)


def _whole(target: TargetConfig, plain: Mapping[str, Any], fallback: int) -> TargetConfig:
    """A target with its provider's own address and key where it does not say its own; `fallback` is its number, 0 for the first."""
    if target.provider == "scripted":
        return TargetConfig("scripted", target.model or "scripted")
    who = f"Fallback {fallback} ({target.provider})" if fallback else f"Provider {target.provider}"
    if not target.model:
        where = f"`model` in fallback {fallback} of llm.fallbacks" if fallback else "llm.model, or SAGE_LLM_MODEL"
        raise ConfigError(f"{who} needs to know which model to ask.", hint=f"Set {where}.")
    own = LLM_OPTIONS[f"{target.provider}_base_url"]
    address = target.base_url or plain[f"{target.provider}_base_url"]
    keys = target.api_keys or tuple(filter(None, [plain[f"{target.provider}_api_key"]]))
    if not keys and address == own.default:
        raise ConfigError(f"{who} needs a key for {address}.", hint=_key_hint(target.provider, fallback))
    return TargetConfig(target.provider, target.model, address, keys)


def _key_hint(provider: str, fallback: int) -> str:
    own = LLM_OPTIONS[f"{provider}_api_key"]
    variables = " or ".join(own.env if fallback else (*own.env, "SAGE_LLM_API_KEY"))
    place = f"`api_key` in fallback {fallback} of llm.fallbacks" if fallback else "llm.api_key"
    server = "`base_url`" if fallback else "llm.base_url"
    return f"Set {variables} (or the path of a file in {own.env[0]}_FILE), or {place}; a server that needs none is named with {server}."
