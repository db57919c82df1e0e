"""The runtime's own settings, as a table beside the one of the observability layer; both are read from one file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from sage_agent.a2a.options import A2A_OPTIONS
from sage_agent.flow.options import FLOW_OPTIONS
from sage_agent.llm.options import LLM_OPTIONS, parse_deadline
from sage_agent.references import SECRET_OPTIONS
from sage_agent.security.did_options import DID_OPTIONS
from sage_agent.security.options import SECURITY_OPTIONS
from sage_agent.state.options import STATE_OPTIONS
from sage_agent.tools.options import TOOLS_OPTIONS
from sage_obs.conventions import DEFAULT_AGENT_PORT
from sage_obs.settings import Option, parse_bool, parse_choice, parse_int, parse_port, parse_seconds, parse_text

PROTOCOLS: Final = ("http", "a2a", "sage")
"""What the `protocol` label of request metrics may say."""
_MEBIBYTE: Final = 1024 * 1024


def parse_optional_port(value: object) -> int | None:
    """A port, or nothing."""
    return None if value in (None, "", "none") else parse_port(value)


AGENT_OPTIONS: Final[Mapping[str, Option]] = {
    "protocol": Option(
        "agent.protocol", ("SAGE_AGENT_PROTOCOL",), parse_choice(*PROTOCOLS), "http", "the protocol that request metrics are labelled with"
    ),
    **TOOLS_OPTIONS,
    **LLM_OPTIONS,
    **FLOW_OPTIONS,
    **SECURITY_OPTIONS,
    **STATE_OPTIONS,
    **A2A_OPTIONS,
    **DID_OPTIONS,
    **SECRET_OPTIONS,
    "host": Option("server.host", ("SAGE_SERVER_HOST",), parse_text, "0.0.0.0", "the address requests are taken on"),  # noqa: S104 - a server
    "port": Option("server.port", ("SAGE_SERVER_PORT",), parse_port, DEFAULT_AGENT_PORT, "the port requests are taken on"),
    "workers": Option(
        "server.workers", ("SAGE_SERVER_WORKERS",), parse_int(1, 256), 1, "how many processes take requests on the port together"
    ),
    "tls_cert": Option("server.tls.cert", ("SAGE_TLS_CERT",), parse_text, "", "the certificate's file, with its chain; PEM"),
    "tls_key": Option("server.tls.key", ("SAGE_TLS_KEY",), parse_text, "", "its key's file"),
    "tls_key_password": Option("server.tls.key_password", ("SAGE_TLS_KEY_PASSWORD",), parse_text, "", "the key's password", secret=True),
    "tls_client_ca": Option("server.tls.client_ca", ("SAGE_TLS_CLIENT_CA",), parse_text, "", "whose client certificates are believed"),
    "tls_client_required": Option(
        "server.tls.client_required",
        ("SAGE_TLS_CLIENT_REQUIRED",),
        parse_bool,
        True,
        "whether callers must have one",
    ),
    "tls_redirect_port": Option(
        "server.tls.redirect_port", ("SAGE_TLS_REDIRECT_PORT",), parse_optional_port, None, "a port on which HTTP is sent on to HTTPS"
    ),
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
    "queue_max_wait": Option(
        "performance.concurrency.max_wait",
        ("SAGE_QUEUE_MAX_WAIT",),
        parse_deadline,
        2.0,
        "how long a request may have to wait, in seconds; one that would wait longer is answered 503 at once",
    ),
}
"""The runtime's settings by argument name."""

VARIABLES: Final = ("SAGE_ENV",)
"""Variables that are read and belong to no setting, for `sage-obs doctor`."""
