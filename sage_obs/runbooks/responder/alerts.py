"""Alertmanager's webhook payload, checked. Nothing in it is trusted: only values this module knows get past it.

The format is version 4 of https://prometheus.io/docs/alerting/latest/configuration/#webhook_config.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sage_obs.conventions import ACTION_ROLLBACK, LABEL_ACTION, LABEL_RUNBOOK, RUNBOOK_INCIDENT
from sage_obs.slo.triggers import TRIGGERS

_ALERTS: Final = frozenset(one.alert for one in TRIGGERS)
_STATUSES: Final = frozenset({"firing", "resolved"})
MAX_ALERTS: Final = 1000
"""More alerts than this in one notice are refused."""
_NEAR: Final = 10 * 365 * 86_400.0
"""Seconds from now within which an alert can have begun; a time beyond is a mistake, and may not even fit a calendar."""


@dataclass(frozen=True, slots=True)
class Notice:
    """One notification of an alert group.

    `key` is the same for every copy of it, whichever Alertmanager of a pair sends it. `alerts` are the names of its rollback alerts,
    `started_at` and `latest_at` the Unix times at which the first and the last of them began. A notice without alerts asks for nothing.
    """

    key: str
    firing: bool
    alerts: tuple[str, ...]
    started_at: float | None
    latest_at: float | None


def parse(body: bytes, *, now: float) -> Notice:
    """Read a notification that came at Unix time `now`. Raises ValueError with what is wrong with it."""
    payload = _mapping(_json(body), "the body")
    group = payload.get("groupKey")
    if not isinstance(group, str):
        raise ValueError("`groupKey` must be a text")
    status = _status(payload.get("status"), "`status`")
    raw = payload.get("alerts")
    if not isinstance(raw, list) or len(raw) > MAX_ALERTS:
        raise ValueError(f"`alerts` must be a list of at most {MAX_ALERTS}")
    alerts = [_alert(one, now) for one in raw]
    relevant = [one for one in alerts if one.name and one.status == status]
    return Notice(
        key=_key(group, status, alerts),
        firing=status == "firing",
        alerts=tuple(sorted({one.name for one in relevant})),
        started_at=min((one.started_at for one in relevant), default=None),
        latest_at=max((one.started_at for one in relevant), default=None),
    )


@dataclass(frozen=True, slots=True)
class _Alert:
    """`name` is "" for an alert that asks for no rollback by the incident runbook."""

    name: str
    status: str
    fingerprint: str
    starts_at: str
    started_at: float


def _json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as exc:
        raise ValueError("the body is not JSON") from exc


def _mapping(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{what} must be an object")
    return value


def _status(value: Any, what: str) -> str:
    if not isinstance(value, str) or value not in _STATUSES:
        raise ValueError(f"{what} must be `firing` or `resolved`")
    return value


def _alert(value: Any, now: float) -> _Alert:
    alert = _mapping(value, "an alert")
    labels = _mapping(alert.get("labels"), "an alert's `labels`")
    fingerprint, starts_at = alert.get("fingerprint"), alert.get("startsAt")
    if not isinstance(fingerprint, str) or not isinstance(starts_at, str):
        raise ValueError("an alert's `fingerprint` and `startsAt` must be texts")
    asks = labels.get(LABEL_ACTION) == ACTION_ROLLBACK and labels.get(LABEL_RUNBOOK) == RUNBOOK_INCIDENT
    name = labels.get("alertname")
    return _Alert(
        name=name if asks and isinstance(name, str) and name in _ALERTS else "",
        status=_status(alert.get("status"), "an alert's `status`"),
        fingerprint=fingerprint,
        starts_at=starts_at,
        started_at=_time(starts_at, now),
    )


def _time(text: str, now: float) -> float:
    try:
        at = datetime.fromisoformat(text)
        seconds = at.timestamp() if at.tzinfo else math.nan
    except (ValueError, OverflowError) as exc:
        raise ValueError("an alert's `startsAt` must be a time by RFC 3339") from exc
    if not math.isfinite(seconds):
        raise ValueError("an alert's `startsAt` must name its time zone")
    if abs(seconds - now) > _NEAR:
        raise ValueError("an alert's `startsAt` must be within ten years of now")
    return seconds


def _key(group: str, status: str, alerts: list[_Alert]) -> str:
    """The notice's identity: group, status, and which alerts since when. Both Alertmanagers of a pair agree on it."""
    parts = [group, status, *sorted(f"{one.fingerprint} {one.starts_at}" for one in alerts)]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
