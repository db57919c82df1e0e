"""The runtime's own settings, as a table beside the one of the observability layer; both are read from one file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from sage_obs.conventions import DEFAULT_AGENT_PORT
from sage_obs.settings import Option, parse_bool, parse_choice, parse_int, parse_port, parse_ratio, parse_seconds, parse_text

PROVIDERS: Final = ("scripted", "openai")
"""The model providers this version has adapters for."""
PROTOCOLS: Final = ("http", "a2a", "sage")
"""What the `protocol` label of request metrics may say."""
_MEBIBYTE: Final = 1024 * 1024


def parse_url(value: object) -> str:
    """An http or https address without its trailing slash, or nothing."""
    text = parse_text(value).strip().rstrip("/")
    if text and not text.startswith(("http://", "https://")):
        raise ValueError("expected an address that starts with http:// or https://")
    return text


def parse_deadline(value: object) -> float:
    """A duration in seconds that is longer than nothing."""
    seconds = parse_seconds(value)
    if seconds <= 0:
        raise ValueError("expected a duration of more than 0 seconds")
    return seconds


AGENT_OPTIONS: Final[Mapping[str, Option]] = {
    "protocol": Option(
        "agent.protocol", ("SAGE_AGENT_PROTOCOL",), parse_choice(*PROTOCOLS), "http", "the protocol that request metrics are labelled with"
    ),
    "llm_provider": Option("llm.provider", ("SAGE_LLM_PROVIDER",), parse_choice(*PROVIDERS), "scripted", "who answers"),
    "llm_model": Option("llm.model", ("SAGE_LLM_MODEL",), parse_text, "", "the model that is asked; `scripted` needs none"),
    "llm_base_url": Option(
        "llm.base_url",
        ("SAGE_LLM_BASE_URL", "OPENAI_BASE_URL"),
        parse_url,
        "https://api.openai.com/v1",
        "the address of an OpenAI-compatible server, up to and including /v1",
    ),
    "llm_api_key": Option("llm.api_key", ("SAGE_LLM_API_KEY", "OPENAI_API_KEY"), parse_text, "", "the provider's key", secret=True),
    "llm_timeout": Option(
        "llm.timeout", ("SAGE_LLM_TIMEOUT",), parse_deadline, 60.0, "the longest one call to the model may take, in seconds"
    ),
    "llm_max_tokens": Option("llm.max_tokens", ("SAGE_LLM_MAX_TOKENS",), parse_int(1, 1_000_000), 1024, "the longest answer, in tokens"),
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
    "host": Option("server.host", ("SAGE_SERVER_HOST",), parse_text, "0.0.0.0", "the address requests are taken on"),  # noqa: S104 - a server
    "port": Option("server.port", ("SAGE_SERVER_PORT",), parse_port, DEFAULT_AGENT_PORT, "the port requests are taken on"),
    "max_body_bytes": Option(
        "server.max_body_bytes", ("SAGE_SERVER_MAX_BODY_BYTES",), parse_int(1, 1024 * _MEBIBYTE), _MEBIBYTE, "the longest request body"
    ),
    "drain_timeout": Option(
        "server.drain_timeout",
        ("SAGE_SERVER_DRAIN_TIMEOUT",),
        parse_seconds,
        30.0,
        "how long requests in flight may go on after SIGTERM, in seconds",
    ),
    "request_timeout": Option(
        "server.request_timeout",
        ("SAGE_SERVER_REQUEST_TIMEOUT",),
        parse_deadline,
        120.0,
        "the longest a request may take, waiting in the queue included, in seconds",
    ),
    "worker_pool_size": Option(
        "performance.concurrency.worker_pool_size",
        ("SAGE_WORKER_POOL_SIZE",),
        parse_int(1, 100_000),
        100,
        "how many calls to the model run at once",
    ),
    "max_concurrent": Option(
        "performance.concurrency.max_concurrent",
        ("SAGE_MAX_CONCURRENT",),
        parse_int(1, 1_000_000),
        1000,
        "how many requests are served at once",
    ),
    "queue_size": Option(
        "performance.concurrency.queue_size",
        ("SAGE_QUEUE_SIZE",),
        parse_int(0, 10_000_000),
        10_000,
        "how many more requests may wait; the next is answered 503",
    ),
}
"""The runtime's settings by argument name."""

UNUSED_PATHS: Final = (
    "storage.type",
    "storage.host",
    "storage.port",
    "storage.postgres.max_open_conns",
    "storage.postgres.max_idle_conns",
    "storage.postgres.conn_max_lifetime",
    "performance.cache.enabled",
    "performance.cache.response_cache",
    "performance.cache.did_cache",
    "performance.cache.ttl",
)
"""Keys of the deployment guide that are accepted and do nothing yet; whoever sets one is told so."""
UNUSED_VARIABLES: Final = ("SAGE_STORAGE_TYPE", "SAGE_DB_CONNECTION_STRING", "SAGE_PROFILING_ENABLED", "SAGE_PROFILING_PORT")
"""Environment variables of the deployment guide of which the same is true."""
VARIABLES: Final = (*UNUSED_VARIABLES, "SAGE_ENV")
"""Variables that are read and belong to no setting, for `sage-obs doctor`."""
