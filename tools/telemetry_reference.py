"""Write docs/reference/telemetry.md from the conventions and the triggers: `python tools/telemetry_reference.py`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from sage_obs.conventions import AGENT_METRICS, PUSHED_METRICS, RESPONDER_METRICS, ErrorType, Experience, Metric, Outcome
from sage_obs.slo.promql import recorded
from sage_obs.slo.triggers import AVAILABILITY_OBJECTIVE, ERROR_OBJECTIVE, OVERHEAD_OBJECTIVE_SECONDS, THROUGHPUT_OBJECTIVE, TRIGGERS
from sage_obs.slo.windows import PRODUCTION, duration

PAGE = Path(__file__).parents[1] / "docs/reference/telemetry.md"


def render() -> str:
    """The page."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield "# Telemetry"
    yield ""
    yield "Rendered from `sage_obs/conventions.py` and `sage_obs/slo/` by `make generate`; do not edit. Base units: seconds, bytes,"
    yield "US dollars, ratios from 0 to 1. Labels marked ° take values from outside: past the label budget they become `other`, which is"
    yield "counted."
    yield from (
        "",
        "Where a service runs as several processes, counters and histograms are sums over all of them, and gauges over the living:",
    )
    yield f"{_merges()}."
    yield from _table("Metrics of an instrumented service", AGENT_METRICS)
    yield from _table("Metrics that are pushed by OTLP beside these", PUSHED_METRICS)
    yield from _table("Metrics of the responder", RESPONDER_METRICS)
    yield from ("", "## Values of fixed labels", "", "| label | values |", "|---|---|")
    for label, values in (("outcome of a request", Outcome), ("error_type", ErrorType), ("outcome of an experience", Experience)):
        yield f"| {label} | {', '.join(value.value for value in values)} |"
    yield from _objectives()


def _merges() -> str:
    """What several processes make of each gauge together."""
    words = {"sum": "the sum of", "min": "the least", "max": "the greatest"}
    gauges = [metric for metric in AGENT_METRICS if metric.kind == "gauge"]
    rules = {rule: [f"`{metric.name}`" for metric in gauges if metric.merge == rule] for rule in words}
    return "; ".join(f"{words[rule]} {', '.join(names)}" for rule, names in rules.items() if names)


def _table(title: str, metrics: tuple[Metric, ...]) -> Iterator[str]:
    yield from ("", f"## {title}", "", "| metric | kind | labels | meaning | buckets |", "|---|---|---|---|---|")
    for metric in metrics:
        labels = ", ".join(label + ("°" if label in metric.budgeted else "") for label in metric.labels)
        buckets = " ".join(f"{bound:g}" for bound in metric.buckets)
        yield f"| `{metric.name}` | {metric.kind} | {labels} | {metric.help} | {buckets} |"


def _objectives() -> Iterator[str]:
    yield from ("", "## Objectives", "", "| objective | value |", "|---|---|")
    yield f"| throughput | {THROUGHPUT_OBJECTIVE:,.0f} requests/s |"
    yield f"| latency | p95 under {OVERHEAD_OBJECTIVE_SECONDS:g} s, excluding language models |"
    yield f"| errors | under {ERROR_OBJECTIVE:.1%} |"
    yield f"| availability | {AVAILABILITY_OBJECTIVE:.1%} over 30 days |"
    yield from ("", "## Rollback triggers", "", "Each is judged per release, and only a new release is rolled back.", "")
    yield from ("| trigger | a new release is rolled back when | samples | for | alert | series |", "|---|---|---|---|---|---|")
    for trigger in TRIGGERS:
        hold = duration(PRODUCTION.hold(trigger.hold))
        series = f"`{recorded(trigger, 'value')}`"
        yield f"| {trigger.title} | {trigger.sentence} | at least {trigger.min_samples:g} | {hold} | `{trigger.alert}` | {series} |"


if __name__ == "__main__":
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    PAGE.write_text(render())
