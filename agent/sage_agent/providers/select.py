"""Which adapter a configuration asks for."""

from __future__ import annotations

from sage_agent.config import AgentConfig
from sage_agent.providers.base import Provider


def open_provider(config: AgentConfig) -> Provider:
    """The configured provider. HTTP is imported only where it is spoken."""
    if config.llm.provider == "openai":
        from sage_agent.providers.openai import OpenAIProvider

        return OpenAIProvider(config.llm, connections=config.concurrency.worker_pool_size)
    from sage_agent.providers.scripted import ScriptedProvider

    return ScriptedProvider(config.llm.scripted, model=config.llm.model)
