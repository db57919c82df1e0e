"""Which metrics a PromQL expression reads, so that a rule or a panel can be held against the catalogue."""

from __future__ import annotations

import re
from typing import Final

from sage_obs.conventions import (
    AGENT_METRICS,
    RECORD_LLM_COST_HOUR,
    RECORD_LLM_P95,
    RECORD_OVERHEAD_P95,
    RECORD_RELEASE_CHANGED,
    RECORD_RELEASE_INFO,
    RECORD_RELEASE_NEW,
    RECORD_SLO_BAD,
    RECORD_SLO_BUDGET,
    RECORD_SLO_TOTAL,
    RESPONDER_METRICS,
    Metric,
)
from sage_obs.slo.promql import recorded
from sage_obs.slo.triggers import TRIGGERS

# Prometheus's own series and those that prometheus_client adds to every process.
PROCESS_CPU: Final = Metric("process_cpu_seconds_total", "counter", "Processor time of the process.")
PROCESS_MEMORY: Final = Metric("process_resident_memory_bytes", "gauge", "Resident memory of the process.")
PROCESS_DESCRIPTORS: Final = Metric("process_open_fds", "gauge", "Open file descriptors of the process.")
PROCESS_DESCRIPTOR_LIMIT: Final = Metric("process_max_fds", "gauge", "How many files the process may have open.")
PROCESS_METRICS: Final = (PROCESS_CPU, PROCESS_MEMORY, PROCESS_DESCRIPTORS, PROCESS_DESCRIPTOR_LIMIT)
SCRAPE_DURATION: Final = Metric("scrape_duration_seconds", "gauge", "How long Prometheus took to scrape the target.")
SCRAPE_SAMPLES: Final = Metric("scrape_samples_scraped", "gauge", "How many samples the target showed.")
_SCRAPES: Final = (SCRAPE_DURATION, SCRAPE_SAMPLES)
UP: Final = "up"
ALERTS: Final = "ALERTS"

_STRING: Final = re.compile(r'"(?:[^"\\]|\\.)*"|\'(?:[^\'\\]|\\.)*\'|`[^`]*`')
_MATCHERS: Final = re.compile(r"\{[^{}]*\}")
_RANGE: Final = re.compile(r"\[[^\]]*\]")
_LABEL_LIST: Final = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^()]*\)")
_OFFSET: Final = re.compile(r"\boffset\s+-?\w+")
_NAME: Final = re.compile(r"(?<![\w:.])[A-Za-z_:][\w:]*(?!\s*\()(?![\w:])")
_WORDS: Final = frozenset({"and", "or", "unless", "bool", "by", "without", "on", "ignoring", "group_left", "group_right", "offset"})
_NUMBERS: Final = frozenset({"nan", "inf"})


_RECORDED: Final = (
    RECORD_RELEASE_INFO,
    RECORD_RELEASE_CHANGED,
    RECORD_RELEASE_NEW,
    RECORD_OVERHEAD_P95,
    RECORD_LLM_P95,
    RECORD_LLM_COST_HOUR,
    RECORD_SLO_TOTAL,
    RECORD_SLO_BAD,
    RECORD_SLO_BUDGET,
)


def metrics_in(expression: str) -> frozenset[str]:
    """The names of the series an expression reads. It is read by its shape and need not be valid otherwise."""
    for pattern in (_STRING, _MATCHERS, _RANGE, _LABEL_LIST, _OFFSET):
        expression = pattern.sub(" ", expression)
    return frozenset(name for name in _NAME.findall(expression) if name not in _WORDS and name.lower() not in _NUMBERS)


def recorded_names() -> frozenset[str]:
    """Every series that the recording rules make."""
    of_triggers = {recorded(trigger, what) for trigger in TRIGGERS for what in ("value", "samples")}
    return frozenset({*_RECORDED, *of_triggers})


def known_names() -> frozenset[str]:
    """Every series that a rule or a panel may read."""
    scraped = {series for metric in (*AGENT_METRICS, *RESPONDER_METRICS, *PROCESS_METRICS, *_SCRAPES) for series in metric.series}
    return frozenset({UP, ALERTS} | scraped) | recorded_names()
