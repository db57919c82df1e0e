"""The runtime's configuration."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from sage_agent import config
from sage_agent.cli import group
from sage_agent.flow.config import ConcurrencyConfig
from sage_agent.llm.fallbacks import TargetConfig
from sage_agent.options import AGENT_OPTIONS
from sage_obs.errors import ConfigError
from sage_obs.settings import OPTIONS

GUIDE = """
agent:
  id: agent-007
  protocol: sage
llm:
  provider: openai
  model: gpt-4
storage:
  type: postgres
  host: db.example.com
  port: 5432
  postgres:
    max_open_conns: 25
    max_idle_conns: 5
    conn_max_lifetime: 5m
observability:
  metrics:
    enabled: true
    port: 9191
  logging:
    level: info
    format: json
tracing:
  enabled: true
  endpoint: http://jaeger:14268/api/traces
  service_name: sage-agent
  sampling_rate: 0.1
performance:
  cache:
    enabled: true
    response_cache: true
    did_cache: true
    ttl: 300
  concurrency:
    worker_pool_size: 7
    max_concurrent: 8
    queue_size: 9
"""


def _write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_the_guides_file_is_read_whole(tmp_path: Path) -> None:
    """Every key the deployment guide shows is accepted, and the ones that work arrive."""
    loaded = config.load(file=_write(tmp_path / "config.yaml", GUIDE), environ={"OPENAI_API_KEY": "sk-1"})
    assert (loaded.layer.agent_id, loaded.protocol) == ("agent-007", "sage")
    assert loaded.llm.targets == (TargetConfig("openai", "gpt-4", "https://api.openai.com/v1", ("sk-1",)),)
    assert loaded.layer.metrics_port == 9191
    assert loaded.concurrency == ConcurrencyConfig(worker_pool_size=7, max_concurrent=8, queue_size=9)


def test_the_guides_jaeger_address_becomes_otlp(tmp_path: Path) -> None:
    """Jaeger's collector address is mapped to its OTLP port, with one notice."""
    loaded = config.load(file=_write(tmp_path / "config.yaml", GUIDE), environ={"OPENAI_API_KEY": "sk-1"})
    assert loaded.layer.traces_endpoint == "http://jaeger:4318/v1/traces"
    assert sum("14268" in one for one in loaded.notices) == 1


def test_another_endpoint_is_left_alone() -> None:
    """An OTLP address is used as it is given."""
    loaded = config.load(file=None, environ={"SAGE_TRACING_ENDPOINT": "http://tempo:4318/v1/traces"})
    assert loaded.layer.traces_endpoint == "http://tempo:4318/v1/traces"
    assert loaded.notices == ()


def test_strength_of_sources(tmp_path: Path) -> None:
    """A flag beats the environment, which beats the environment's file, which beats the base file, which beats the default."""
    base = _write(tmp_path / "config.yaml", "server: {port: 1, host: 10.0.0.1, request_timeout: 7, drain_timeout: 3}\nagent: {id: base}\n")
    _write(tmp_path / "config.prod.yaml", "server: {port: 2, host: 10.0.0.2, request_timeout: 8}\n")
    environ = {"SAGE_ENV": "prod", "SAGE_SERVER_PORT": "3", "SAGE_SERVER_HOST": "10.0.0.3"}
    loaded = config.load(file=base, environ=environ, arguments={"port": 4, "host": None})
    assert (loaded.server.port, loaded.server.host) == (4, "10.0.0.3")
    assert (loaded.server.request_timeout, loaded.server.drain_timeout) == (8.0, 3.0)
    assert loaded.layer.agent_id == "base"
    assert loaded.settings["server.port"].source == "argument port"
    assert loaded.settings["server.host"].source == "environment SAGE_SERVER_HOST"
    assert "config.prod.yaml" in loaded.settings["server.request_timeout"].source
    assert loaded.settings["llm.timeout"].source == "default"


def test_an_unknown_key_is_an_error_with_the_nearest_known_one(tmp_path: Path) -> None:
    """A misspelt key is refused and its correction offered, in the environment's file too."""
    base = _write(tmp_path / "config.yaml", "agent: {id: a}\n")
    _write(tmp_path / "config.dev.yaml", "llm: {modle: x}\n")
    with pytest.raises(ConfigError, match=r"config\.dev\.yaml: unknown key `llm\.modle` \(did you mean `llm\.model`\?\)"):
        config.load(file=base, environ={"SAGE_ENV": "dev"})


@pytest.mark.parametrize(
    ("environ", "sentence"),
    [
        ({"SAGE_LLM_PROVIDER": "opnai"}, "did you mean `openai`"),
        ({"SAGE_LLM_PROVIDER": "openai", "OPENAI_API_KEY": "sk-1"}, "which model"),
        ({"SAGE_LLM_PROVIDER": "openai", "SAGE_LLM_MODEL": "gpt-4"}, "needs a key"),
        ({"SAGE_LLM_PROVIDER": "anthropic", "SAGE_LLM_MODEL": "c", "OPENAI_API_KEY": "sk-1"}, "Provider anthropic needs a key"),
        ({"SAGE_LLM_PROVIDER": "gemini", "SAGE_LLM_MODEL": "g"}, "Provider gemini needs a key"),
        ({"SAGE_LLM_FALLBACKS": '[{"provider": "gemini", "model": "g"}]'}, r"Fallback 1 \(gemini\) needs a key"),
        ({"SAGE_LLM_FALLBACKS": '[{"provider": "gemini"}]'}, r"Fallback 1 \(gemini\) needs to know which model"),
        ({"SAGE_LLM_FALLBACKS": '[{"provider": "gemni"}]'}, "fallback 1: expected one of .*did you mean `gemini`"),
        ({"SAGE_LLM_FALLBACKS": '[{"provider": "gemini", "modle": 1}]'}, "fallback 1: unknown key `modle`"),
        ({"SAGE_LLM_FALLBACKS": "[{"}, "JSON list"),
        ({"SAGE_LLM_FALLBACKS": "{}"}, "a list"),
        ({"SAGE_LLM_FALLBACKS": "[1]"}, "fallback 1: expected a mapping"),
        ({"SAGE_LLM_BREAKER_FAILURE_SHARE": "0"}, "over 0, up to 1"),
        ({"SAGE_LLM_BASE_URL": "ftp://x"}, "http"),
        ({"SAGE_SERVER_PORT": "70000"}, "0 to 65535"),
        ({"SAGE_LLM_SCRIPTED_ERROR_RATE": "33"}, "0 to 1"),
        ({"SAGE_LLM_TIMEOUT": "0"}, "more than 0"),
        ({"SAGE_ENV": "../../etc"}, "file's name"),
        ({"OPENAI_API_KEY_FILE": "/nonexistent/key"}, r"the secret in file /nonexistent/key cannot be read"),
        ({"OPENAI_API_KEY": "vault:secret/data/agent#key"}, r"no reader for secrets in `vault:`"),
        ({"OPENAI_API_KEY": "keychain://key"}, r"no reader for secrets in that store; this version has `file:`"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_bad_values_are_refused(environ: dict[str, str], sentence: str) -> None:
    """A value that cannot be served with is a ConfigError that says why."""
    with pytest.raises(ConfigError, match=sentence):
        config.load(file=None, environ=environ)


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"ANTHROPIC_API_KEY": "a-1", "OPENAI_API_KEY": "o-1"}, TargetConfig("anthropic", "m", "https://api.anthropic.com", ("a-1",))),
        (
            {"SAGE_LLM_API_KEY": "k-1", "ANTHROPIC_API_KEY": "a-1", "SAGE_LLM_API_KEYS": "k-2, k-1,k-3"},
            TargetConfig("anthropic", "m", "https://api.anthropic.com", ("k-1", "k-2", "k-3")),
        ),
        (
            {"SAGE_LLM_PROVIDER": "gemini", "GOOGLE_API_KEY": "g-1"},
            TargetConfig("gemini", "m", "https://generativelanguage.googleapis.com", ("g-1",)),
        ),
        (
            {"ANTHROPIC_API_KEY": "a-1", "SAGE_LLM_BASE_URL": "http://proxy/", "ANTHROPIC_BASE_URL": "http://other"},
            TargetConfig("anthropic", "m", "http://proxy", ("a-1",)),
        ),
        ({"ANTHROPIC_BASE_URL": "http://other"}, TargetConfig("anthropic", "m", "http://other", ())),
    ],
    ids=["its own key", "all keys once", "google's key", "the address", "no key for a server of one's own"],
)
def test_keys_and_addresses_belong_to_their_provider(environ: dict[str, str], expected: TargetConfig) -> None:
    """No provider is sent another's key; what is set for whoever is asked beats what is the provider's own."""
    loaded = config.load(file=None, environ={"SAGE_LLM_PROVIDER": "anthropic", "SAGE_LLM_MODEL": "m", **environ})
    assert loaded.llm.targets == (expected,)


def test_a_key_can_be_a_file(tmp_path: Path) -> None:
    """`ANTHROPIC_API_KEY_FILE` holds the path of a file with the key."""
    file = _write(tmp_path / "key", "a-1\n")
    environ = {"SAGE_LLM_PROVIDER": "anthropic", "SAGE_LLM_MODEL": "m", "ANTHROPIC_API_KEY_FILE": str(file)}
    assert config.load(file=None, environ=environ).llm.first.api_keys == ("a-1",)


def test_fallbacks_are_completed_by_what_is_their_providers(tmp_path: Path) -> None:
    """Variables in the list are filled in, and a fallback without a key or an address has its provider's."""
    text = """
llm:
  fallbacks:
    - {provider: anthropic, model: c}
    - {provider: openai, model: l, base_url: "http://vllm/v1/", api_key: "${VLLM_KEY}"}
"""
    environ = {"ANTHROPIC_API_KEY": "a-1", "VLLM_KEY": "v-1"}
    loaded = config.load(file=_write(tmp_path / "config.yaml", text), environ=environ)
    assert loaded.llm.targets == (
        TargetConfig("scripted", "scripted"),
        TargetConfig("anthropic", "c", "https://api.anthropic.com", ("a-1",)),
        TargetConfig("openai", "l", "http://vllm/v1", ("v-1",)),
    )
    assert loaded.notices == ()
    assert "v-1" not in f"{loaded.llm}{loaded.settings}"


def test_an_unset_variable_in_a_list_is_named(tmp_path: Path) -> None:
    """The error says which entry refers to it."""
    file = _write(tmp_path / "config.yaml", "llm: {fallbacks: [{provider: openai, model: m, api_key: '${NOPE}'}]}\n")
    with pytest.raises(ConfigError, match=r"llm\.fallbacks\[0\]\.api_key` refers to \$\{NOPE\}"):
        config.load(file=file, environ={})


def test_validate_says_what_to_do_about_a_missing_key(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The hint names the provider's variable, its file form and the setting."""
    monkeypatch.chdir(tmp_path)
    environ = {"SAGE_LLM_PROVIDER": "anthropic", "SAGE_LLM_MODEL": "c"}
    with pytest.raises(ConfigError) as caught:
        config.load(file=None, environ=environ)
    assert all(
        word in str(caught.value.hint) for word in ("ANTHROPIC_API_KEY", "ANTHROPIC_API_KEY_FILE", "SAGE_LLM_API_KEY", "llm.api_key")
    )


def test_a_missing_file_asked_for_by_name_is_an_error(tmp_path: Path) -> None:
    """`--config` with no file behind it does not fall back to defaults."""
    with pytest.raises(ConfigError, match="no configuration file"):
        config.load(file=tmp_path / "nowhere.yaml", environ={})


def test_a_local_server_needs_no_key() -> None:
    """An OpenAI-compatible server of one's own is asked without a key."""
    environ = {"SAGE_LLM_PROVIDER": "openai", "SAGE_LLM_MODEL": "m", "SAGE_LLM_BASE_URL": "http://127.0.0.1:1/v1/"}
    assert config.load(file=None, environ=environ).llm.first.base_url == "http://127.0.0.1:1/v1"


def test_a_key_without_a_provider_is_remarked() -> None:
    """Whoever sets a key and gets scripted answers is told."""
    (notice,) = config.load(file=None, environ={"OPENAI_API_KEY": "sk-1"}).notices
    assert "SAGE_LLM_PROVIDER=openai" in notice
    assert "sk-1" not in notice


def test_show_masks_secrets_and_names_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`config show --json` prints every setting once, with its source and without the secret."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")
    file = _write(tmp_path / "config.yaml", "llm: {max_tokens: 5}\n")
    result = CliRunner().invoke(group, ["config", "show", "--config", str(file), "--json"])
    rows = {row["setting"]: row for row in map(json.loads, result.output.splitlines())}
    assert set(rows) == {option.path for option in (*AGENT_OPTIONS.values(), *OPTIONS.values())}
    assert rows["llm.openai.api_key"] == {"setting": "llm.openai.api_key", "value": "********", "source": "environment OPENAI_API_KEY"}
    assert rows["llm.max_tokens"] == {"setting": "llm.max_tokens", "value": "5", "source": f"{file}: llm.max_tokens"}
    assert "very-secret" not in result.output


def test_validate_reports_what_has_no_effect(tmp_path: Path) -> None:
    """`config validate` succeeds for a key that is set while answers are scripted, and says on stderr that it does nothing."""
    file = _write(tmp_path / "config.yaml", "llm: {openai: {api_key: sk-1}}\n")
    result = CliRunner().invoke(group, ["config", "validate", "--config", str(file)])
    assert result.exit_code == 0
    assert "answers are scripted" in result.stderr
    assert "valid" in result.stdout


def test_the_example_file_is_valid_and_shows_every_setting() -> None:
    """The example configuration holds each of the runtime's keys, at values that can be served with."""
    example = Path(__file__).parents[3] / "agent" / "config.example.yaml"
    loaded = config.load(file=example, environ={})
    unset = {path for path, value in loaded.settings.items() if value.source == "default"}
    assert loaded.notices == ()
    assert not {option.path for option in AGENT_OPTIONS.values()} & unset
