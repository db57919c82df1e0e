"""What keeps the service trustworthy: certificates, secrets, the audit log, and the telemetry itself."""

from __future__ import annotations

from typing import Final

from sage_obs.alerts.conditions import Condition
from sage_obs.alerts.expressions import any_of, count
from sage_obs.conventions import (
    ALERT_WATCHDOG,
    AUDIT_RECORDS,
    BOARD_RUNTIME,
    CERTIFICATE_EXPIRY,
    COMPONENT_UP,
    EXPORT_FAILURES,
    INTERNAL_ERRORS,
    LABEL_OVERFLOWS,
    LOGS_DROPPED,
    SECRET_AGE,
    SPANS_DROPPED,
    Metric,
    Severity,
)
from sage_obs.slo.signals import Selector

_DAY: Final = 86_400
_HOUR: Final = 3600
_CERTIFICATE: Final = f"(min by (job, name) ({CERTIFICATE_EXPIRY.name}) - time()) / {_DAY}"


def _lost(alert: str, metric: Metric, sentence: str, *, by: str = "job") -> Condition:
    """Telemetry that is lost now and then is no reason to get up; it is one to look."""
    return Condition(
        alert=alert,
        trigger="telemetry",
        severity=Severity.P3,
        title="Telemetry",
        sentence=f"{sentence} within the last minutes",
        value=lambda windows: count(Selector(metric), windows.rate, by=by),
        threshold=0,
        by=by,
        hold=300,
        keep=300,
        board=BOARD_RUNTIME,
    )


CONDITIONS: Final = (
    Condition(
        alert="SageCertificateExpiring",
        trigger="certificate",
        severity=Severity.P3,
        title="The certificate {{ $labels.name }}",
        sentence="it expires within three weeks",
        value=lambda _: _CERTIFICATE,
        sign="<",
        threshold=21,
        unit="days",
        by="job, name",
        hold=3600,
        keep=300,
        board=BOARD_RUNTIME,
    ),
    Condition(
        alert="SageCertificateExpiringSoon",
        trigger="certificate",
        severity=Severity.P1,
        title="The certificate {{ $labels.name }}",
        sentence="it expires within three days",
        value=lambda _: _CERTIFICATE,
        sign="<",
        threshold=3,
        unit="days",
        by="job, name",
        hold=300,
        keep=300,
        board=BOARD_RUNTIME,
    ),
    Condition(
        alert="SageSecretStale",
        trigger="secret",
        severity=Severity.P3,
        title="The secret {{ $labels.name }}",
        sentence="it could not be read anew for more than an hour",
        value=lambda _: f"max by (job, name) ({SECRET_AGE.name}) / {_HOUR}",
        threshold=1,
        unit="hours",
        by="job, name",
        hold=300,
        keep=300,
        board=BOARD_RUNTIME,
    ),
    Condition(
        alert="SageAuditRecordsLost",
        trigger="audit",
        severity=Severity.P1,
        title="The audit log",
        sentence="records that could not be written",
        value=lambda windows: count(any_of(AUDIT_RECORDS, outcome=("lost",)), windows.rate),
        threshold=0,
        hold=15,
        keep=600,
        board=BOARD_RUNTIME,
    ),
    Condition(
        alert="SageComponentDown",
        trigger="component",
        severity=Severity.P2,
        title="Telemetry",
        sentence="the component {{ $labels.component }} of the observability layer has not started",
        value=lambda _: f"min by (job, component) ({COMPONENT_UP.name})",
        sign="<",
        threshold=0.5,
        by="job, component",
        hold=300,
        keep=300,
        board=BOARD_RUNTIME,
    ),
    _lost("SageSpansLost", SPANS_DROPPED, "spans lost before they were exported"),
    _lost("SageLogLinesLost", LOGS_DROPPED, "log lines lost because they could not be written fast enough"),
    _lost("SageExportFailing", EXPORT_FAILURES, "exports of {{ $labels.signal }} that failed", by="job, signal"),
    _lost("SageTelemetryErrors", INTERNAL_ERRORS, "errors of {{ $labels.component }} inside the telemetry", by="job, component"),
    _lost(
        "SageLabelOverflow",
        LABEL_OVERFLOWS,
        "values of the label {{ $labels.label }} of {{ $labels.metric }} folded into `other`",
        by="job, metric, label",
    ),
    Condition(
        alert=ALERT_WATCHDOG,
        trigger="watchdog",
        severity=Severity.P3,
        title="Alerting works; where this does not arrive, it does not",
        sentence="it always fires",
        value=lambda _: "vector(1)",
        threshold=0,
        by="",
        who="",
        hold=15,
        keep=15,
        board=BOARD_RUNTIME,
    ),
)
"""In the order in which they are looked at."""
