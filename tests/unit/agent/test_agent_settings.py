"""Every setting, by each of its names, changes something: one line for each key. A new setting without a line fails here."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from sage_agent import config
from sage_agent.callers import Role
from sage_agent.config import AgentConfig
from sage_agent.options import AGENT_OPTIONS, VARIABLES
from sage_agent.state.base import Rate
from sage_obs.errors import ConfigError
from sage_obs.privacy.content import Content
from sage_obs.settings import OPTIONS, Option

_KEY: Final = "sk-0123456789abcdef"
_SHA: Final = "0" * 64


@dataclass(frozen=True)
class Row:
    """A setting: what is written, what is looked at in the loaded configuration, what that must be, and what else has to be set."""

    written: Any
    look: Callable[[AgentConfig], Any]
    expected: Any
    beside: Mapping[str, Any] = field(default_factory=dict)


def _at(path: str) -> Callable[[AgentConfig], Any]:
    """What stands there; of a part that is not configured, None."""

    def look(loaded: AgentConfig) -> Any:
        found: Any = loaded
        for name in path.split("."):
            found = None if found is None else getattr(found, name)
        return found

    return look


def _same(written: Any, path: str, **beside: Any) -> Row:
    return Row(written, _at(path), written, {name.replace("__", "."): value for name, value in beside.items()})


_OPENAI: Final = {"llm.provider": "openai", "llm.model": "m", "llm.base_url": "http://h/v1"}
_REMOTE: Final = {"storage.type": "postgres"}
_JWT: Final = {"security.jwt.issuer": "i", "security.jwt.audience": "a", "security.jwt.jwks": "/k"}
_DID: Final = {"security.did.mode": "optional", "security.did.callers": [{"did": "*"}]}
_AUDIT: Final = {"security.audit.path": "/a.jsonl"}
_TLS: Final = {"server.tls.cert": "/c", "server.tls.key": "/k"}


def _target(provider: str, name: str) -> dict[str, Any]:
    own = {"llm.provider": provider, "llm.model": "m"}
    return own if name == "api_key" else {**own, f"llm.{provider}.api_key": _KEY}


def _first(name: str) -> Callable[[AgentConfig], Any]:
    return lambda loaded: getattr(loaded.llm.first, name)


def _jwt(name: str, written: Any, expected: Any = None) -> Row:
    return Row(written, _at(f"security.jwt.{name}"), written if expected is None else expected, _JWT)


def _tls(name: str, written: Any, expected: Any = None, **beside: Any) -> Row:
    return Row(written, _at(f"server.tls.{name}"), written if expected is None else expected, {**_TLS, **beside})


def _url(written: Any, part: str) -> Row:
    """Something that ends up in the address of the database."""
    return Row(written, lambda loaded: part in loaded.state.url, True, _REMOTE)


ROWS: Final[Mapping[str, Row]] = {
    "agent.id": _same("a-2", "layer.agent_id"),
    "agent.protocol": _same("sage", "protocol"),
    "agent.tools": Row(["shop:find", "shop.more:order"], _at("tools.functions"), ("shop:find", "shop.more:order")),
    "agent.max_steps": _same(3, "tools.max_steps"),
    "agent.tool_timeout": Row("2s", _at("tools.timeout"), 2.0),
    "agent.tool_max_chars": _same(500, "tools.max_chars"),
    "llm.provider": Row("openai", _first("provider"), "openai", {"llm.model": "m", "llm.base_url": "http://h/v1"}),
    "llm.model": Row("m-2", _first("model"), "m-2", {"llm.provider": "openai", "llm.base_url": "http://h/v1"}),
    "llm.base_url": Row("http://other/v1", _first("base_url"), "http://other/v1", {"llm.provider": "openai", "llm.model": "m"}),
    "llm.api_key": Row(_KEY, _first("api_keys"), (_KEY,), _OPENAI),
    "llm.api_keys": Row(["k1", "k2"], _first("api_keys"), ("k1", "k2"), _OPENAI),
    "llm.fallbacks": Row([{"provider": "scripted"}], lambda loaded: len(loaded.llm.targets), 2),
    **{
        f"llm.{provider}.api_key": Row(_KEY, _first("api_keys"), (_KEY,), _target(provider, "api_key"))
        for provider in ("openai", "anthropic", "gemini")
    },
    **{
        f"llm.{provider}.base_url": Row("http://own", _first("base_url"), "http://own", _target(provider, "base_url"))
        for provider in ("openai", "anthropic", "gemini")
    },
    "llm.simple.model": Row("m-0", _at("llm.simple.model"), "m-0"),
    "llm.simple.provider": Row(
        "openai", _at("llm.simple.provider"), "openai", {"llm.simple.model": "m-0", "llm.openai.base_url": "http://h/v1"}
    ),
    "llm.simple.max_chars": _same(50, "llm.simple_max_chars"),
    "llm.timeout": Row("5m", _at("llm.timeout"), 300.0),
    "llm.max_tokens": _same(7, "flow.max_tokens"),
    "llm.max_input_tokens": _same(7, "flow.max_input_tokens"),
    "llm.system_prompt": _same("be brief", "flow.system_prompt"),
    "llm.retry.max_wait": _same(1.5, "llm.max_wait"),
    "llm.retry.rounds": _same(5, "llm.rounds"),
    "llm.limiter.enabled": _same(False, "llm.limiter"),
    "llm.breaker.enabled": _same(False, "llm.breaker.enabled"),
    "llm.breaker.failure_share": _same(0.25, "llm.breaker.failure_share"),
    "llm.breaker.min_calls": _same(3, "llm.breaker.min_calls"),
    "llm.breaker.window": _same(7.0, "llm.breaker.window"),
    "llm.breaker.cooldown": _same(8.0, "llm.breaker.cooldown"),
    "llm.scripted.latency": Row("1ms", _at("llm.scripted.latency"), 0.001),
    "llm.scripted.error_rate": _same(0.5, "llm.scripted.error_rate"),
    "llm.scripted.overhead": _same(0.5, "flow.overhead"),
    "llm.scripted.seed": _same(9, "llm.scripted.seed"),
    "llm.scripted.unready": _same(True, "llm.scripted.unready"),
    "performance.cache.enabled": _same(True, "flow.cache.enabled"),
    "performance.cache.response_cache": Row(False, _at("flow.cache.enabled"), False, {"performance.cache.enabled": True}),
    "performance.cache.ttl": Row(60, _at("flow.cache.ttl"), 60.0),
    "performance.cache.scope": _same("tenant", "flow.cache.scope"),
    "performance.cache.did_cache": Row(False, _at("did.ttl"), 0.0),
    "a2a.enabled": _same("false", "a2a.enabled"),
    "a2a.url": _same("https://a.example", "a2a.url"),
    "a2a.description": _same("Knows orders.", "a2a.description"),
    "a2a.task_ttl": Row("1h", _at("a2a.task_ttl"), 3600.0),
    "security.did.mode": Row("required", _at("did.mode"), "required", {"security.did.callers": [{"did": "*"}]}),
    "security.did.callers": Row([{"did": "did:key:z6Mk"}], lambda loaded: [one.did for one in loaded.did.callers], ["did:key:z6Mk"]),
    "security.did.own_urls": Row(["https://a.example"], _at("did.own_urls"), ("https://a.example",), _DID),
    "security.did.max_age": Row("2m", _at("did.max_age"), 120.0, _DID),
    "security.did.registry": Row("/dids.json", _at("did.registry"), Path("/dids.json"), _DID),
    "security.did.sage_origins": Row(["r.example:8443"], _at("did.sage_origins"), {"r.example": 8443}, _DID),
    "security.did.allow_private": _same(True, "did.allow_private"),
    "security.did.ca_file": _same("/ca.pem", "did.ca_file"),
    "security.did.fetch_timeout": _same(2.0, "did.fetch_timeout"),
    "observability.profiling.enabled": _same(False, "layer.profiling"),
    "observability.profiling.host": _same("127.0.0.2", "layer.profiling_host"),
    "observability.profiling.port": _same(6161, "layer.profiling_port"),
    "observability.profiling.token": _same(_KEY, "layer.profiling_token"),
    "observability.profiling.certificate": _same("/c.pem", "layer.profiling_certificate"),
    "observability.profiling.key": _same("/k.pem", "layer.profiling_key"),
    "observability.profiling.locks": _same(True, "layer.profiling_locks"),
    "observability.profiling.server": _same("http://pyroscope:4040", "layer.profiling_server"),
    "performance.concurrency.worker_pool_size": _same(3, "concurrency.worker_pool_size"),
    "performance.concurrency.max_concurrent": _same(4, "concurrency.max_concurrent"),
    "performance.concurrency.max_wait": Row("300ms", _at("concurrency.queue_max_wait"), 0.3),
    "performance.concurrency.queue_size": _same(5, "concurrency.queue_size"),
    "sessions.max_turns": _same(6, "flow.sessions.max_turns"),
    "sessions.max_chars": _same(100, "flow.sessions.max_chars"),
    "sessions.ttl": Row("1h", _at("flow.sessions.ttl"), 3600.0),
    "budgets.agent": _same(1.0, "flow.budgets.agent"),
    "budgets.tenant": _same(2.0, "flow.budgets.tenant"),
    "budgets.user": _same(3.0, "flow.budgets.user"),
    "budgets.period": Row("1h", _at("flow.budgets.period"), 3600.0),
    "budgets.tenants_shown": Row(["acme"], _at("flow.budgets.shown"), ("acme",)),
    "budgets.unknown_price": Row("refuse", _at("flow.budgets.allow_unknown"), False),
    "security.api_keys": Row([{"id": "ci", "sha256": _SHA}], lambda loaded: [entry.id for entry in loaded.security.api_keys], ["ci"]),
    "security.api_keys_file": Row("/keys.yaml", _at("security.api_keys_file"), Path("/keys.yaml")),
    "security.jwt.issuer": _jwt("issuer", "me"),
    "security.jwt.audience": _jwt("audience", "us"),
    "security.jwt.jwks": _jwt("jwks", "/other"),
    "security.jwt.algorithms": _jwt("algorithms", ["EdDSA"], ("EdDSA",)),
    "security.jwt.leeway": _jwt("leeway", 5.0),
    "security.jwt.tenant_claim": _jwt("tenant_claim", "org"),
    "security.jwt.role_claim": _jwt("role_claim", "groups"),
    "security.rate_limit.per_second": Row(5, _at("security.rates.everybody.per_second"), 5.0),
    "security.rate_limit.burst": Row(9, _at("security.rates.everybody.burst"), 9, {"security.rate_limit.per_second": 1}),
    "security.rate_limit.roles": Row([{"role": "viewer", "per_second": 3}], _at("security.rates.roles"), {Role.VIEWER: Rate(3.0, 6)}),
    "security.rate_limit.lease": Row("200ms", _at("security.lease"), 0.2),
    "security.rate_limit.on_error": Row("refuse", _at("security.refuse_blind"), True),
    "security.audit.path": Row("/a.jsonl", _at("security.audit.path"), Path("/a.jsonl")),
    "security.audit.key": Row(_KEY, _at("security.audit.key"), _KEY, _AUDIT),
    "security.audit.max_bytes": Row(5000, _at("security.audit.max_bytes"), 5000, _AUDIT),
    "security.audit.keep": Row(3, _at("security.audit.keep"), 3, _AUDIT),
    "security.admin.enabled": Row(True, lambda loaded: loaded.security.admin is not None, True, {"security.admin.token": _KEY}),
    "security.admin.token": Row(_KEY, _at("security.admin.token"), _KEY, {"security.admin.enabled": True}),
    "security.admin.networks": Row(
        ["10.0.0.0/8"],
        lambda loaded: [str(one) for one in loaded.security.admin.networks] if loaded.security.admin else None,
        ["10.0.0.0/8"],
        {"security.admin.enabled": True, "security.admin.token": _KEY},
    ),
    "server.trusted_proxies": Row(["10.0.0.0/8"], lambda loaded: [str(one) for one in loaded.security.proxies], ["10.0.0.0/8"]),
    "server.tls.allow": Row(["dns:a"], _at("security.allow"), ("dns:a",), {**_TLS, "server.tls.client_ca": "/ca"}),
    "server.tls.cert": _tls("cert", "/c2", Path("/c2")),
    "server.tls.key": _tls("key", "/k2", Path("/k2")),
    "server.tls.key_password": _tls("key_password", "pw"),
    "server.tls.client_ca": _tls("client_ca", "/ca", Path("/ca")),
    "server.tls.client_required": Row(False, _at("server.tls.client_required"), False, {**_TLS, "server.tls.client_ca": "/ca"}),
    "server.tls.redirect_port": _tls("redirect_port", 8081),
    "server.host": _same("127.0.0.2", "server.host"),
    "server.port": _same(8181, "server.port"),
    "server.workers": _same(2, "server.workers"),
    "server.max_body_bytes": _same(99, "server.max_body_bytes"),
    "server.request_timeout": _same(9.0, "server.request_timeout"),
    "server.drain_timeout": _same(2.0, "server.drain_timeout"),
    "storage.type": _same("redis", "state.kind"),
    "storage.connection_string": Row("redis://h:1/2", attrgetter("state.kind", "state.url"), ("redis", "redis://h:1/2")),
    "storage.path": Row("/data/s.db", _at("state.path"), Path("/data/s.db")),
    "storage.host": _url("db.example.com", "//db.example.com:5432/"),
    "storage.port": _url(6000, ":6000/"),
    "storage.database": _url("agents", "/agents?"),
    "storage.user": _url("me", "//me@"),
    "storage.password": _url("p@ss", ":p%40ss@"),
    "storage.tls": _url("require", "sslmode=require"),
    "storage.timeout": Row("500ms", _at("state.timeout"), 0.5),
    "storage.postgres.max_open_conns": _same(30, "state.max_open"),
    "storage.postgres.max_idle_conns": _same(2, "state.max_idle"),
    "storage.postgres.conn_max_lifetime": Row("1m", _at("state.lifetime"), 60.0),
    "storage.redis.max_conns": _same(7, "state.redis_connections"),
    "secrets.refresh": Row("1s", _at("secrets_refresh"), 1.0),
    "observability.enabled": _same(False, "layer.enabled"),
    "observability.service_name": _same("s", "layer.service_name"),
    "observability.version": _same("1.2.3", "layer.version"),
    "observability.revision": _same("abc", "layer.revision"),
    "observability.metrics.enabled": _same(False, "layer.metrics"),
    "observability.metrics.host": _same("127.0.0.1", "layer.metrics_host"),
    "observability.metrics.port": _same(9191, "layer.metrics_port"),
    "observability.metrics.multiprocess_dir": _same("/shared", "layer.multiprocess_dir"),
    "observability.metrics.endpoint": _same("http://otlp", "layer.metrics_endpoint"),
    "observability.metrics.interval": _same(5.0, "layer.metrics_interval"),
    "observability.metrics.label_budget": _same(9, "layer.label_budget"),
    "observability.logging.enabled": _same(False, "layer.logs"),
    "observability.logging.level": _same("debug", "layer.log_level"),
    "observability.logging.output": _same("stderr", "layer.log_output"),
    "observability.logging.format": _same("text", "layer.log_format"),
    "observability.prices_file": _same("/prices.yaml", "layer.prices_file"),
    "observability.health.enabled": _same(False, "layer.health"),
    "observability.objectives.overhead": _same(0.2, "layer.overhead_objective"),
    "observability.exit_timeout": _same(0.5, "layer.exit_timeout"),
    "tracing.enabled": _same(False, "layer.traces"),
    "tracing.endpoint": _same("http://tempo:4318", "layer.traces_endpoint"),
    "tracing.sampling_rate": _same(1.0, "layer.sampling_rate"),
    "tracing.semconv": _same("latest", "layer.semconv"),
    "tracing.content": Row("full", _at("layer.content"), Content("full")),
    "tracing.tail.enabled": _same(True, "layer.tail_sampling"),
    "tracing.tail.slow": _same(1.0, "layer.tail_slow"),
    "tracing.tail.expensive": _same(0.1, "layer.tail_expensive"),
}
"""By key. `_same` is for what arrives as it was written."""

GUIDE_VARIABLES: Final = (
    "SAGE_AGENT_ID",
    "SAGE_LLM_PROVIDER",
    "SAGE_LLM_API_KEY",
    "OPENAI_API_KEY",
    "SAGE_STORAGE_TYPE",
    "SAGE_DB_CONNECTION_STRING",
    "SAGE_OBSERVABILITY_ENABLED",
    "SAGE_METRICS_PORT",
    "SAGE_LOG_LEVEL",
    "SAGE_LOG_OUTPUT",
    "SAGE_PROFILING_ENABLED",
    "SAGE_PROFILING_PORT",
    "SAGE_TRACING_ENABLED",
    "SAGE_TRACING_SAMPLING_RATE",
)
"""Every variable of the deployment guide."""
GUIDE_KEYS: Final = (
    "agent.id",
    "agent.protocol",
    "llm.provider",
    "llm.model",
    "storage.type",
    "storage.host",
    "storage.port",
    "storage.postgres.max_open_conns",
    "storage.postgres.max_idle_conns",
    "storage.postgres.conn_max_lifetime",
    "observability.metrics.enabled",
    "observability.metrics.port",
    "observability.logging.level",
    "observability.logging.format",
    "tracing.enabled",
    "tracing.endpoint",
    "tracing.service_name",
    "tracing.sampling_rate",
    "performance.cache.enabled",
    "performance.cache.response_cache",
    "performance.cache.did_cache",
    "performance.cache.ttl",
    "performance.concurrency.worker_pool_size",
    "performance.concurrency.max_concurrent",
    "performance.concurrency.queue_size",
)
"""Every key of the deployment guide."""
_TABLE: Final = {option.path: option for option in (*AGENT_OPTIONS.values(), *OPTIONS.values())}


def _text(written: Any) -> str:
    """As it is written in an environment."""
    if isinstance(written, str):
        return written
    plain = isinstance(written, list) and all(isinstance(one, str) for one in written)
    return ",".join(written) if plain else json.dumps(written)


def _tree(values: Mapping[str, Any]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for path, value in values.items():
        *folders, name = path.split(".")
        inner = tree
        for folder in folders:
            inner = inner.setdefault(folder, {})
        inner[name] = value
    return tree


def _load(folder: Path, values: Mapping[str, Any], environ: Mapping[str, str]) -> AgentConfig:
    file = folder / "config.yaml"
    file.write_text(yaml.safe_dump(_tree(values)))
    return config.load(file=file, environ=environ)


def _names() -> Iterator[Any]:
    """A case for every name of every setting."""
    for path, option in sorted(_TABLE.items()):
        for name in (path, *option.aliases):
            yield pytest.param(path, "key", name, id=name)
        for variable in option.env:
            yield pytest.param(path, "variable", variable, id=variable)
            if option.secret:
                yield pytest.param(path, "file", variable, id=f"{variable}_FILE")


def test_every_setting_has_a_line() -> None:
    """A setting that nobody knows the effect of is not one."""
    assert set(ROWS) == set(_TABLE)


@pytest.mark.parametrize(("path", "kind", "name"), list(_names()))
def test_a_setting_has_its_effect_by_each_of_its_names(path: str, kind: str, name: str, tmp_path: Path) -> None:
    """Written in the file, in the environment, or in a file that a variable names, it arrives where it is used; left out, it does not."""
    row = ROWS[path]
    beside = {key: value for key, value in row.beside.items() if key != path}
    values, environ = dict(beside), {}
    if kind == "key":
        values[name] = row.written
    elif kind == "variable":
        environ[name] = _text(row.written)
    else:
        (tmp_path / "secret").write_text(f"{_text(row.written)}\n")
        environ[f"{name}_FILE"] = str(tmp_path / "secret")
    loaded = _load(tmp_path, values, environ)
    assert row.look(loaded) == row.expected
    assert name in loaded.settings[path].source
    if _TABLE[path].secret:
        assert row.written != loaded.settings[path].shown()


@pytest.mark.parametrize("path", sorted(ROWS))
def test_what_a_line_expects_is_not_there_by_itself(path: str, tmp_path: Path) -> None:
    """Without the setting something else is seen, or the configuration is refused: the line above shows an effect."""
    row = ROWS[path]
    try:
        loaded = _load(tmp_path, {key: value for key, value in row.beside.items() if key != path}, {})
    except ConfigError:
        return
    assert row.look(loaded) != row.expected


@pytest.mark.parametrize("variable", GUIDE_VARIABLES)
def test_every_variable_of_the_guide_is_known(variable: str) -> None:
    """It belongs to a setting, or chooses among files of settings."""
    assert variable in VARIABLES or any(variable in option.env for option in _TABLE.values())


@pytest.mark.parametrize("key", GUIDE_KEYS)
def test_every_key_of_the_guide_is_known(key: str) -> None:
    """It belongs to a setting."""
    assert any(key in (option.path, *option.aliases) for option in _TABLE.values())


def _secrets() -> list[Option]:
    return [option for option in _TABLE.values() if option.secret]


@pytest.mark.parametrize("option", _secrets(), ids=lambda option: option.path)
def test_a_secret_is_renewed(option: Option, tmp_path: Path) -> None:
    """Every secret can be a reference to a file, is in no text of the configuration, and is another once the file is."""
    row = ROWS[option.path]
    written = _text(row.written)
    (tmp_path / "secret").write_text(written)
    beside = {key: value for key, value in row.beside.items() if key != option.path}
    loaded = _load(tmp_path, {**beside, option.path: f"file:{tmp_path}/secret"}, {})
    assert row.look(loaded) == row.expected
    assert f"file {tmp_path}/secret" in loaded.settings[option.path].source
    assert written not in repr(loaded)
    other = written.replace("k1", "k3").replace(_KEY, _KEY[::-1]).replace("ci", "cd").replace("h:1", "h:2").replace("p", "q", 1)
    other = '[{"provider": "scripted"}, {"provider": "scripted"}]' if option.path == "llm.fallbacks" else other
    (tmp_path / "secret").write_text(f" {other}")
    assert loaded.secrets.refresh()
    assert row.look(loaded.again()) != row.expected
