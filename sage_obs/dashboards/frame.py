"""What every board has in common: its variables, annotations, links and layout."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from grafanalib.core import Annotations, Templating, Time

from sage_obs.conventions import (
    BUILD_INFO,
    LABEL_SEVERITY,
    RELEASE_TIMESTAMP,
    RUNBOOK_INCIDENT,
    RUNBOOK_ROLLBACK,
)
from sage_obs.dashboards.expressions import JOB, series
from sage_obs.dashboards.grafana import (
    PROMETHEUS,
    SOURCE_TYPES,
    ConstantVariable,
    Dashboard,
    DataSourceVariable,
    Link,
    QueryVariable,
)
from sage_obs.dashboards.panels import Row, laid_out
from sage_obs.dashboards.sources import DEFAULT_RUNBOOKS, RUNBOOKS, TAG
from sage_obs.slo.names import ALERTS

_LABELS: Final = {"prometheus": "Prometheus", "loki": "Loki", "tempo": "Tempo", "pyroscope": "Pyroscope"}

Variable = DataSourceVariable | QueryVariable | ConstantVariable


def framed(
    uid: str,
    title: str,
    description: str,
    rows: Iterable[Row],
    *,
    sources: Iterable[str] = ("tempo",),
    variables: Iterable[Variable] = (),
    since: str = "now-1h",
) -> Dashboard:
    """A board of these rows that also asks the data sources named in `sources` and has `variables` beside job and instance."""
    return Dashboard(
        title=title,
        uid=uid,
        description=description,
        tags=[TAG],
        time=Time(since, "now"),
        refresh="30s",
        links=_links(),
        templating=Templating(list=[*_sources(sources), *_choice(), *variables, _runbooks()]),
        annotations=Annotations(list=[_releases(), _incidents()]),
        panels=laid_out(rows),
    )


def choice(name: str, label: str, selector: str) -> QueryVariable:
    """A variable with the values of the label `name` of a selector."""
    return QueryVariable(name=name, label=label, query=f"label_values({selector}, {name})")


def _sources(names: Iterable[str]) -> list[Variable]:
    return [DataSourceVariable(name=f"{name}_datasource", label=_LABELS[name], query=SOURCE_TYPES[name]) for name in ("prometheus", *names)]


def _choice() -> list[Variable]:
    return [choice("job", "Job", BUILD_INFO.name), choice("instance", "Instance", series(BUILD_INFO, scope=JOB))]


def _runbooks() -> ConstantVariable:
    return ConstantVariable(name=RUNBOOKS, label="Runbooks", query=DEFAULT_RUNBOOKS)


def _links() -> list[Link]:
    pages = (("Runbook: incident", RUNBOOK_INCIDENT), ("Runbook: rollback", RUNBOOK_ROLLBACK))
    return [
        Link("Sage boards", tags=(TAG,), tooltip="The other boards, with the same time and choice"),
        *(Link(title, url=f"${{{RUNBOOKS}}}/{slug}.md", tooltip="What to do, step by step") for title, slug in pages),
    ]


def _releases() -> dict[str, Any]:
    """A mark where a release started, read from the time it says it did."""
    return {
        "datasource": PROMETHEUS,
        "enable": True,
        "expr": f"max by (job, version) ({series(RELEASE_TIMESTAMP)}) * 1000",
        "iconColor": "blue",
        "name": "Releases",
        "tagKeys": "job",
        "textFormat": "release {{version}} of {{job}} started",
        "titleFormat": "{{version}}",
        "useValueForTime": True,
    }


def _incidents() -> dict[str, Any]:
    """A bar as long as an alert fires that wakes somebody."""
    paging = f'{LABEL_SEVERITY}="P1", alertstate="firing"'
    return {
        "datasource": PROMETHEUS,
        "enable": True,
        "expr": f"max by (alertname, job, version) ({ALERTS}{{{JOB}, {paging}}})",
        "iconColor": "red",
        "name": "Incidents",
        "step": "15s",
        "tagKeys": "alertname,job",
        "textFormat": "{{alertname}} {{version}}",
        "titleFormat": "{{alertname}}",
    }
