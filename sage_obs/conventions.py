"""Every name that a metric, a query, an alert, a board or a page relies on, written once.

Base units throughout: seconds, bytes, US dollars, ratios from 0 to 1. Label names listed in `Metric.budgeted` take values that
come from outside and are cut off at the label budget (see `sage_obs.metrics.budget`).
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final, Literal

from sage_obs import semconv

Kind = Literal["counter", "gauge", "histogram"]
Merge = Literal["sum", "min", "max"]


class Outcome(enum.StrEnum):
    """How a request ended. `server_error` is what objectives and rollback triggers count."""

    SUCCESS = "success"
    CLIENT_ERROR = "client_error"
    SERVER_ERROR = "server_error"
    REJECTED = "rejected"
    CANCELLED = "cancelled"


class ErrorType(enum.StrEnum):
    """The fixed error taxonomy; nothing else is ever a value of an `error_type` label."""

    RATE_LIMITED = "rate_limited"
    TIMEOUT = "timeout"
    AUTH = "auth"
    CONTENT_FILTER = "content_filter"
    CONTEXT_LENGTH = "context_length"
    INVALID_REQUEST = "invalid_request"
    SERVER_ERROR = "server_error"
    UNAVAILABLE = "unavailable"
    QUEUE_FULL = "queue_full"
    SIGNATURE_INVALID = "signature_invalid"
    TOOL_ERROR = "tool_error"
    CANCELLED = "cancelled"
    INTERNAL = "internal"


class Experience(enum.StrEnum):
    """What the caller went through, in Apdex's terms (apdex.org, technical specification 1.1)."""

    SATISFIED = "satisfied"
    TOLERATING = "tolerating"
    FRUSTRATED = "frustrated"


class Probe(enum.StrEnum):
    """The three health probes, named as their bodies name them."""

    LIVENESS = "liveness"
    READINESS = "readiness"
    STARTUP = "startup"


class Severity(enum.StrEnum):
    """Incident severities of the guide: P1 critical, P2 major, P3 minor."""

    P1 = "P1"
    P2 = "P2"
    P3 = "P3"


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric family: its name on the wire, kind, help text, label names and, for histograms, upper bounds in base units.

    `merge` is what the processes of one service make of a gauge together; counters and histograms are always sums.
    """

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
    budgeted: tuple[str, ...] = ()
    merge: Merge = "sum"

    @property
    def series(self) -> tuple[str, ...]:
        """Names of the time series this family puts on the wire."""
        if self.kind == "histogram":
            return (f"{self.name}_bucket", f"{self.name}_sum", f"{self.name}_count")
        return (self.name,)


REQUEST_BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0)
OVERHEAD_BUCKETS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.4, 1.0, 5.0)
LLM_BUCKETS: Final = (0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0, 120.0)
FIRST_TOKEN_BUCKETS: Final = (0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
LAG_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)
GC_BUCKETS: Final = (0.0001, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)
TOOL_BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
STEP_BUCKETS: Final = (1.0, 2.0, 3.0, 5.0, 8.0, 13.0, 21.0, 34.0)
RUNBOOK_BUCKETS: Final = (1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 900.0, 1800.0)

# The guide's five. Their names never change.
REQUESTS = Metric(
    "sage_agent_requests_total",
    "counter",
    "Requests finished, by how they ended.",
    ("agent_id", "operation", "protocol", "outcome"),
    budgeted=("agent_id", "operation"),
)
REQUEST_DURATION = Metric(
    "sage_agent_request_duration_seconds",
    "histogram",
    "Wall time of a request; a stream lasts until its last byte.",
    ("agent_id", "operation", "protocol"),
    REQUEST_BUCKETS,
    budgeted=("agent_id", "operation"),
)
ERRORS = Metric(
    "sage_agent_errors_total",
    "counter",
    "Requests that failed, by kind of error.",
    ("agent_id", "error_type"),
    budgeted=("agent_id",),
)
LLM_CALLS = Metric(
    "sage_llm_api_calls_total",
    "counter",
    "Calls to a language model, one per attempt.",
    ("provider", "model", "operation", "outcome"),
    budgeted=("model",),
)
LLM_TOKENS = Metric(
    "sage_llm_tokens_total",
    "counter",
    "Tokens billed; input includes cache reads and writes.",
    ("provider", "model", "type"),
    budgeted=("model",),
)
LLM_CACHED_TOKENS = Metric(
    "sage_llm_cached_tokens_total",
    "counter",
    "Input tokens read from or written to the provider's cache; part of the input tokens, never to be added to them.",
    ("provider", "model", "kind"),
    budgeted=("model",),
)
LLM_REASONING_TOKENS = Metric(
    "sage_llm_reasoning_tokens_total",
    "counter",
    "Output tokens spent on reasoning; part of the output tokens, never to be added to them.",
    ("provider", "model"),
    budgeted=("model",),
)

REQUEST_OVERHEAD = Metric(
    "sage_agent_request_overhead_seconds",
    "histogram",
    "Wall time of a request minus the time it waited for language models and tools.",
    ("agent_id", "operation"),
    OVERHEAD_BUCKETS,
    budgeted=("agent_id", "operation"),
)
TIME_TO_FIRST_BYTE = Metric(
    "sage_agent_time_to_first_byte_seconds",
    "histogram",
    "Time until the first byte of a streamed response body.",
    ("agent_id", "operation"),
    REQUEST_BUCKETS,
    budgeted=("agent_id", "operation"),
)
EXPERIENCE = Metric(
    "sage_agent_experience_total",
    "counter",
    "Requests by what the caller went through; a failure, or an overhead over four times the objective, frustrates.",
    ("agent_id", "outcome"),
    budgeted=("agent_id",),
)
REQUESTS_IN_FLIGHT = Metric("sage_agent_requests_in_flight", "gauge", "Requests being served now.", ("agent_id",), budgeted=("agent_id",))
HEALTH_STATUS = Metric(
    "sage_agent_health_status",
    "gauge",
    "1 healthy, 0.5 degraded, 0 unhealthy; the check named `overall` is the probe's own answer.",
    ("agent_id", "probe", "check"),
    budgeted=("agent_id", "check"),
    merge="min",
)
LLM_CALL_DURATION = Metric(
    "sage_llm_api_call_duration_seconds",
    "histogram",
    "Wall time of one call to a language model.",
    ("provider", "model", "operation"),
    LLM_BUCKETS,
    budgeted=("model",),
)
LLM_TIME_TO_FIRST_TOKEN = Metric(
    "sage_llm_time_to_first_token_seconds",
    "histogram",
    "Time until the first streamed token.",
    ("provider", "model"),
    FIRST_TOKEN_BUCKETS,
    budgeted=("model",),
)
LLM_ERRORS = Metric(
    "sage_llm_errors_total",
    "counter",
    "Calls to a language model that failed, by kind of error.",
    ("provider", "model", "error_type"),
    budgeted=("model",),
)
LLM_COST = Metric(
    "sage_llm_cost_usd_total",
    "counter",
    "Cost of language model calls by the dated price table.",
    ("provider", "model"),
    budgeted=("model",),
)
LLM_RETRIES = Metric(
    "sage_llm_retries_total",
    "counter",
    "Calls to a language model that were made again at the same provider, by why the one before failed.",
    ("provider", "reason"),
)
LLM_FALLBACKS = Metric(
    "sage_llm_fallbacks_total",
    "counter",
    "Calls that went on to another provider, by why: the kind of error, or `breaker_open`.",
    ("from_provider", "to_provider", "reason"),
)
LLM_CONCURRENCY_LIMIT = Metric(
    "sage_llm_concurrency_limit",
    "gauge",
    "Calls that may be under way to a target at once; it is halved when the target limits the rate.",
    ("target",),
    budgeted=("target",),
)
BREAKER_STATE = Metric(
    "sage_agent_breaker_state",
    "gauge",
    "0 closed, 0.5 half-open, 1 open: whether calls to a target are held back because too many failed.",
    ("target",),
    budgeted=("target",),
    merge="max",
)
BREAKER_OPEN: Final = "breaker_open"
"""The `reason` of a fallback that an open circuit breaker made, beside the kinds of error."""
QUEUE_DEPTH = Metric("sage_agent_queue_depth", "gauge", "Requests waiting for a slot.", ("agent_id",), budgeted=("agent_id",))
QUEUE_CAPACITY = Metric(
    "sage_agent_queue_capacity", "gauge", "How many requests may wait; the next is refused.", ("agent_id",), budgeted=("agent_id",)
)
QUEUE_WAIT = Metric(
    "sage_agent_queue_wait_seconds",
    "histogram",
    "How long requests that had to wait waited for their turn.",
    ("agent_id",),
    OVERHEAD_BUCKETS,
    budgeted=("agent_id",),
)
WORKERS = Metric("sage_agent_workers", "gauge", "How many calls of models may run at once.", ("agent_id",), budgeted=("agent_id",))
WORKERS_BUSY = Metric("sage_agent_workers_busy", "gauge", "How many are running.", ("agent_id",), budgeted=("agent_id",))
CACHE_REQUESTS = Metric("sage_agent_cache_requests_total", "counter", "Questions to a cache, by what came of them.", ("cache", "result"))
RATE_LIMIT_DECISIONS = Metric(
    "sage_agent_rate_limit_decisions_total", "counter", "Decisions about callers' rates, by what the limit is on.", ("scope", "decision")
)
AUDIT_RECORDS = Metric("sage_agent_audit_records_total", "counter", "Records for the audit log, `written` and `lost`.", ("outcome",))
BUDGET_USED = Metric(
    "sage_agent_budget_used_ratio",
    "gauge",
    "Spent and set aside of a tenant's budget, as a share of it; of tenants that are listed.",
    ("tenant",),
    budgeted=("tenant",),
    merge="max",
)
STORAGE_DURATION = Metric(
    "sage_agent_storage_operation_duration_seconds",
    "histogram",
    "Wall time of operations on the agent's store.",
    ("operation",),
    OVERHEAD_BUCKETS,
)
STORAGE_CONNECTIONS = Metric("sage_agent_storage_connections", "gauge", "Connections to the agent's store, `used` and `idle`.", ("state",))
LLM_BUDGET = Metric(
    "sage_llm_budget_usd", "gauge", "The agent's own budget for models in US dollars, by its period.", ("period",), merge="max"
)
LLM_RATE_REMAINING = Metric(
    "sage_llm_rate_limit_remaining_ratio",
    "gauge",
    "What a provider said is left of its rate limit, as a share of it.",
    ("provider", "kind"),
    merge="min",
)
CERTIFICATE_EXPIRY = Metric(
    "sage_tls_certificate_expiry_timestamp_seconds",
    "gauge",
    "Unix time at which a certificate in use expires.",
    ("name",),
    budgeted=("name",),
    merge="min",
)
SECRET_AGE = Metric(
    "sage_secret_age_seconds", "gauge", "Since when a secret has not been read anew.", ("name",), budgeted=("name",), merge="max"
)
BUILD_INFO = Metric(
    "sage_build_info",
    "gauge",
    "Always 1; joins a release to every series of its instance.",
    ("service", "version", "revision", "python"),
    merge="max",
)
RELEASE_TIMESTAMP = Metric(
    "sage_release_timestamp_seconds", "gauge", "Unix time at which this release started here.", ("version",), merge="min"
)
COMPONENT_UP = Metric(
    "sage_obs_component_up",
    "gauge",
    "1 for each component that instrument() started, 0 for one that failed to.",
    ("component",),
    merge="min",
)
SPANS_DROPPED = Metric("sage_obs_spans_dropped_total", "counter", "Spans lost before they were exported.")
LOGS_DROPPED = Metric("sage_obs_logs_dropped_total", "counter", "Log lines lost because the writer's queue was full.")
EXPORT_FAILURES = Metric("sage_obs_export_failures_total", "counter", "Exports that failed, by signal.", ("signal",))
LABEL_OVERFLOWS = Metric("sage_obs_label_overflows_total", "counter", "Label values folded into `other`.", ("metric", "label"))
INTERNAL_ERRORS = Metric(
    "sage_obs_internal_errors_total", "counter", "Errors inside the telemetry that were kept from the application.", ("component",)
)
UNKNOWN_PRICE = Metric(
    "sage_obs_unknown_price_total",
    "counter",
    "Calls whose model is in no price table; they add nothing to the cost.",
    ("provider", "model"),
    budgeted=("model",),
)
STREAMS_ABANDONED = Metric("sage_obs_streams_abandoned_total", "counter", "Streams the caller dropped before their end.", ("component",))
RUNBOOK_RUNS = Metric("sage_obs_runbook_runs_total", "counter", "Finished runbook runs.", ("runbook", "outcome"))
RUNBOOK_DURATION = Metric("sage_obs_runbook_duration_seconds", "histogram", "Wall time of a runbook run.", ("runbook",), RUNBOOK_BUCKETS)

TOOL_CALLS = Metric("sage_tool_calls_total", "counter", "Calls of tools, by how they ended.", ("tool", "outcome"), budgeted=("tool",))
TOOL_DURATION = Metric(
    "sage_tool_duration_seconds",
    "histogram",
    "Wall time inside one call of a tool; of a generator, inside its steps.",
    ("tool",),
    TOOL_BUCKETS,
    budgeted=("tool",),
)
STEPS = Metric(
    "sage_agent_steps",
    "histogram",
    "Calls of models and tools in one request, of those that made any.",
    ("agent_id",),
    STEP_BUCKETS,
    budgeted=("agent_id",),
)
EVENT_LOOP_LAG = Metric(
    "sage_runtime_event_loop_lag_seconds", "histogram", "How late a timer of the event loop is, ten times a second.", (), LAG_BUCKETS
)
RUNTIME_TASKS = Metric("sage_runtime_tasks", "gauge", "Tasks that are not done on the event loops that serve requests.")
RUNTIME_THREADS = Metric("sage_runtime_threads", "gauge", "Python threads that are alive.")
GC_PAUSE = Metric(
    "sage_runtime_gc_pause_seconds", "histogram", "Time the garbage collector takes, by generation.", ("generation",), GC_BUCKETS
)
MEMORY_LIMIT = Metric("sage_memory_limit_bytes", "gauge", "The memory limit of the control group; absent where there is none.", merge="min")

AGENT_METRICS: Final = (
    REQUESTS,
    REQUEST_DURATION,
    REQUEST_OVERHEAD,
    TIME_TO_FIRST_BYTE,
    ERRORS,
    EXPERIENCE,
    REQUESTS_IN_FLIGHT,
    HEALTH_STATUS,
    LLM_CALLS,
    LLM_CALL_DURATION,
    LLM_TIME_TO_FIRST_TOKEN,
    LLM_TOKENS,
    LLM_CACHED_TOKENS,
    LLM_REASONING_TOKENS,
    LLM_ERRORS,
    LLM_COST,
    LLM_RETRIES,
    LLM_FALLBACKS,
    LLM_CONCURRENCY_LIMIT,
    BREAKER_STATE,
    QUEUE_DEPTH,
    QUEUE_CAPACITY,
    QUEUE_WAIT,
    WORKERS,
    WORKERS_BUSY,
    CACHE_REQUESTS,
    RATE_LIMIT_DECISIONS,
    AUDIT_RECORDS,
    BUDGET_USED,
    STORAGE_DURATION,
    STORAGE_CONNECTIONS,
    LLM_BUDGET,
    LLM_RATE_REMAINING,
    CERTIFICATE_EXPIRY,
    SECRET_AGE,
    BUILD_INFO,
    RELEASE_TIMESTAMP,
    COMPONENT_UP,
    SPANS_DROPPED,
    LOGS_DROPPED,
    EXPORT_FAILURES,
    LABEL_OVERFLOWS,
    INTERNAL_ERRORS,
    UNKNOWN_PRICE,
    STREAMS_ABANDONED,
    TOOL_CALLS,
    TOOL_DURATION,
    STEPS,
    EVENT_LOOP_LAG,
    RUNTIME_TASKS,
    RUNTIME_THREADS,
    GC_PAUSE,
    MEMORY_LIMIT,
)
"""What an instrumented service puts on /metrics."""

TRACED: Final = (REQUEST_DURATION,)
"""The histograms whose buckets carry exemplars, the ids of sampled traces."""

GENAI_DURATION = Metric(
    "gen_ai.client.operation.duration",
    "histogram",
    "Wall time of one call to a language model.",
    (semconv.OPERATION, semconv.PROVIDER, semconv.REQUEST_MODEL, "error.type"),
    tuple(0.01 * 2**exponent for exponent in range(14)),
    budgeted=(semconv.REQUEST_MODEL,),
)
GENAI_TOKENS = Metric(
    "gen_ai.client.token.usage",
    "histogram",
    "Tokens of one call to a language model, by type.",
    (semconv.OPERATION, semconv.PROVIDER, semconv.REQUEST_MODEL, semconv.TOKEN_TYPE),
    tuple(4.0**exponent for exponent in range(14)),
    budgeted=(semconv.REQUEST_MODEL,),
)
"""The conventions' two, with the bounds they advise: 0.01 s doubled up to 81.92, and 1 token times four up to 67,108,864."""

PUSHED_METRICS: Final = (GENAI_DURATION, GENAI_TOKENS)
"""What is pushed by OTLP beside the above, and not on /metrics: there `sage_llm_*` says the same."""

RESPONDER_METRICS: Final = (RUNBOOK_RUNS, RUNBOOK_DURATION)
"""What the responder puts on /metrics."""

OTHER: Final = "other"
"""The label value that stands for every value past the label budget."""
OVERALL: Final = "overall"
"""The `check` label of a probe's own answer, beside those of its checks."""
JOB: Final = "sage-agents"
"""The Prometheus job of the guide's scrape configuration."""
SERVICE: Final = "sage-agent"
"""The service name of the agent runtime, and the runbooks' default target."""

# Board uids and runbook slugs: alerts link to them, so they are stable.
BOARD_FLEET: Final = "sage-fleet"
BOARD_AGENT: Final = "sage-agent"
BOARD_LLM: Final = "sage-llm"
BOARD_SLO: Final = "sage-slo"
BOARD_RUNTIME: Final = "sage-runtime"
BOARD_PROFILING: Final = "sage-profiling"
BOARD_ROLLOUT: Final = "sage-rollout"
BOARD_INCIDENT: Final = "sage-incident"
RUNBOOK_INCIDENT: Final = "incident"
RUNBOOK_ROLLBACK: Final = "rollback"

# Labels and values by which alerts, routes and the responder find each other.
LABEL_ACTION: Final = "action"
ACTION_ROLLBACK: Final = "rollback"
LABEL_RUNBOOK: Final = "runbook"
LABEL_SEVERITY: Final = "severity"
LABEL_TRIGGER: Final = "trigger"
LABEL_VERSION: Final = "version"
LABEL_SLO: Final = "slo"

ALERT_ROLLBACK_ERROR_RATE: Final = "SageRollbackErrorRate"
ALERT_ROLLBACK_LATENCY: Final = "SageRollbackLatency"
ALERT_ROLLBACK_HEALTH: Final = "SageRollbackHealth"
ALERT_ROLLBACK_CUSTOMER_IMPACT: Final = "SageRollbackCustomerImpact"
ALERT_WATCHDOG: Final = "SageWatchdog"

RECORD_RELEASE_INFO: Final = "job_instance_version:sage_release:info"
"""1 per instance, labelled with the version it runs or ran last; instances that are no longer targets have none."""
RECORD_RELEASE_CHANGED: Final = "job_instance:sage_release:changed"
"""How many versions an instance ran within the rate window, where more than one."""
RECORD_RELEASE_NEW: Final = "job_version:sage_release:new"
"""1 for a version that was not here before, in a job that was."""
RECORD_OVERHEAD_P95: Final = "job:sage_agent_request_overhead_seconds:p95"
"""The 95th percentile without language models over all versions; its past is the latency reference."""
RECORD_LLM_P95: Final = "job_provider_model:sage_llm_api_call_duration_seconds:p95"
"""The 95th percentile of the calls to a model, in seconds."""
RECORD_LLM_COST_HOUR: Final = "job:sage_llm_cost_usd:hour"
"""What an hour costs at the pace of the last one, in US dollars."""
RECORD_SLO_TOTAL: Final = "job_slo:sage_slo_events:rate"
"""Events of an objective a second."""
RECORD_SLO_BAD: Final = "job_slo:sage_slo_bad_events:rate"
"""Those of them that are bad."""
RECORD_SLO_BUDGET: Final = "slo:sage_slo_budget:ratio"
"""The share of them that may be."""

HEALTH_PATHS: Final = {
    "/health/live": Probe.LIVENESS,
    "/health/ready": Probe.READINESS,
    "/health/startup": Probe.STARTUP,
}
METRICS_PATH: Final = "/metrics"

DEFAULT_AGENT_PORT: Final = 8080
DEFAULT_METRICS_PORT: Final = 9090
DEFAULT_PROFILING_PORT: Final = 6060
DEFAULT_PROMETHEUS_PORT: Final = 9490
DEFAULT_ALERTMANAGER_PORT: Final = 9493
DEFAULT_RESPONDER_PORT: Final = 9495
