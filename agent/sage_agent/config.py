"""The runtime's configuration: flag > environment > `config.<SAGE_ENV>.yaml` > `config.yaml` > default."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from sage_agent.a2a.config import A2aConfig, read_a2a
from sage_agent.flow.config import ConcurrencyConfig, FlowConfig, read_flow
from sage_agent.llm.config import LlmConfig, read_llm
from sage_agent.options import AGENT_OPTIONS
from sage_agent.references import References
from sage_agent.secrets import Secrets
from sage_agent.security.config import SecurityConfig, read_security
from sage_agent.security.did_config import DidConfig, read_did
from sage_agent.server.config import ServerConfig
from sage_agent.server.tls import read_tls
from sage_agent.state.config import StateConfig, read_state
from sage_agent.tools.config import ToolsConfig, read_tools
from sage_obs.errors import ConfigError
from sage_obs.settings import OPTIONS, Option, Settings, Value, resolve

DEFAULT_FILE: Final = Path("config.yaml")
_KEYS: Final = ("openai_api_key", "anthropic_api_key", "gemini_api_key", "llm_api_key", "llm_api_keys")
_JAEGER: Final = re.compile(r"(https?://[^/]+):14268/api/traces/?", re.ASCII)


@dataclass(frozen=True, slots=True)
class AgentConfig:
    """Everything `sage-agent serve` works with.

    `layer` is what the observability layer is switched on with, `settings` every value of both tables under its path, and `notices`
    what the operator should know about the configuration. `secrets` are those kept elsewhere, looked at every `secrets_refresh`
    seconds; `again` reads the same configuration with what they are by then.
    """

    protocol: str
    llm: LlmConfig
    server: ServerConfig
    concurrency: ConcurrencyConfig
    flow: FlowConfig
    security: SecurityConfig
    state: StateConfig
    a2a: A2aConfig
    did: DidConfig
    tools: ToolsConfig
    layer: Settings
    settings: Mapping[str, Value]
    notices: tuple[str, ...]
    secrets: Secrets
    secrets_refresh: float
    again: Callable[[], AgentConfig] = field(repr=False)


def load(
    *,
    file: Path | None,
    environ: Mapping[str, str],
    arguments: Mapping[str, object] | None = None,
    secrets: Secrets | None = None,
) -> AgentConfig:
    """Read the configuration. `file` is what was asked for by name, else `config.yaml` here if there is one.

    Secrets that are known already are not read again. Raises ConfigError for an unknown key, a value out of range, an unreadable
    file, and for a provider that lacks what it needs.
    """
    files = find_files(file, environ)
    secrets = Secrets() if secrets is None else secrets
    again = functools.partial(load, file=file, environ=dict(environ), arguments=arguments, secrets=secrets)
    references = References(secrets)
    environ = references.environ(AGENT_OPTIONS, environ)
    options = references.options(AGENT_OPTIONS)
    values = resolve(options, arguments=arguments, environ=environ, file=files, foreign=_paths(OPTIONS))
    values = {name: references.told(options[name], value) for name, value in values.items()}
    layer = _profiled(references.filled(OPTIONS, Settings.load(environ=environ, file=files, foreign=_paths(AGENT_OPTIONS))))
    endpoint, moved = _otlp_endpoint(layer.traces_endpoint)
    plain = {name: value.value for name, value in values.items()}
    llm = read_llm(plain)
    state = read_state(values)
    notices = (*moved, *_idle_key(llm, values), *_apart(state, plain["workers"]))
    return AgentConfig(
        protocol=plain["protocol"],
        llm=llm,
        server=ServerConfig(**{name: plain[name] for name in ServerConfig.__dataclass_fields__ if name != "tls"}, tls=read_tls(plain)),
        security=read_security(plain),
        concurrency=ConcurrencyConfig(**{name: plain[name] for name in ConcurrencyConfig.__dataclass_fields__}),
        flow=read_flow(plain),
        state=state,
        a2a=read_a2a(plain),
        did=read_did(plain),
        tools=read_tools(plain),
        layer=replace(layer, traces_endpoint=endpoint),
        settings=_by_path(values, layer.sources),
        notices=notices,
        secrets=secrets,
        secrets_refresh=plain["secrets_refresh"],
        again=again,
    )


def find_files(file: Path | None, environ: Mapping[str, str]) -> tuple[Path, ...]:
    """The files to read, the strongest first: `<name>.<SAGE_ENV>.yaml` beside the base file, then the base file.

    Raises ConfigError for a file asked for by name that is not there, and for an environment's name that is not a plain word.
    """
    base = file or DEFAULT_FILE
    if file is not None and not file.is_file():
        raise ConfigError(f"There is no configuration file {file}.", hint="Give an existing one with --config, or leave the option out.")
    environment = environ.get("SAGE_ENV", "")
    if environment and not re.fullmatch(r"[A-Za-z0-9_-]+", environment, re.ASCII):
        raise ConfigError(f"SAGE_ENV={environment!r} cannot be part of a file's name.", hint="Use letters, digits, - and _.")
    overlay = base.with_name(f"{base.stem}.{environment}{base.suffix}")
    candidates = (overlay, base) if environment else (base,)
    return tuple(one for one in candidates if one.is_file())


def _paths(options: Mapping[str, Option]) -> Iterator[str]:
    for option in options.values():
        yield from (option.path, *option.aliases)


def _by_path(values: Mapping[str, Value], layer: Mapping[str, Value]) -> dict[str, Value]:
    merged = {AGENT_OPTIONS[name].path: value for name, value in values.items()}
    merged |= {OPTIONS[name].path: value for name, value in layer.items()}
    return dict(sorted(merged.items()))


def _otlp_endpoint(endpoint: str) -> tuple[str, tuple[str, ...]]:
    match = _JAEGER.fullmatch(endpoint)
    if match is None:
        return endpoint, ()
    moved = f"{match.group(1)}:4318/v1/traces"
    return moved, (f"{endpoint} is Jaeger's own protocol; spans go to its OTLP address {moved} instead.",)


def _profiled(layer: Settings) -> Settings:
    """In the agent profiles are served unless somebody does not want them."""
    if layer.sources["profiling"].source != "default":
        return layer
    return replace(layer, profiling=True, sources={**layer.sources, "profiling": Value(value=True, source="default")})


def _apart(state: StateConfig, workers: int) -> tuple[str, ...]:
    """Several processes, and nothing that they share."""
    if state.kind != "memory" or workers == 1:
        return ()
    return (f"State in memory is each worker's own: {workers} workers admit {workers} times what a rate limit or a budget says.",)


def _idle_key(llm: LlmConfig, values: Mapping[str, Value]) -> tuple[str, ...]:
    """A key is set, and nobody is asked with it."""
    if any(target.provider != "scripted" for target in llm.targets):
        return ()
    idle = [(name, values[name].source) for name in _KEYS if values[name].value]
    if not idle:
        return ()
    name, source = idle[0]
    provider = "openai" if name.startswith("llm_") else name.removesuffix("_api_key")
    return (f"A key is set ({source}) but answers are scripted: set SAGE_LLM_PROVIDER={provider} and SAGE_LLM_MODEL to ask a model.",)
