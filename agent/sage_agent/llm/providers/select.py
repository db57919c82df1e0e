"""Which adapters a target asks for."""

from __future__ import annotations

from sage_agent.llm.config import ScriptedConfig
from sage_agent.llm.fallbacks import TargetConfig
from sage_agent.llm.providers.base import Provider


def open_providers(target: TargetConfig, scripted: ScriptedConfig, *, connections: int) -> tuple[Provider, ...]:
    """A provider for each key, over one pool of connections. HTTP is imported only where it is spoken."""
    if target.provider == "scripted":
        from sage_agent.llm.providers.scripted import ScriptedProvider

        return (ScriptedProvider(scripted, model=target.model),)
    from sage_agent.llm.providers.http import HttpProvider, open_client
    from sage_agent.llm.providers.wires import wire_of

    wire, client = wire_of(target.provider, target.base_url), open_client(connections=connections)
    keys = target.api_keys or ("",)
    return tuple(HttpProvider(wire, client, model=target.model, base_url=target.base_url, api_key=key) for key in keys)


def wire_name(provider: str) -> str:
    """What metrics and prices know a provider as."""
    return "gcp.gemini" if provider == "gemini" else provider
