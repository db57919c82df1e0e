"""What Alertmanager posts."""

from __future__ import annotations

import json
import zlib
from typing import Any


def alert(
    name: str = "SageRollbackErrorRate", *, status: str = "firing", starts_at: str = "2026-01-02T03:04:05Z", **labels: str
) -> dict[str, Any]:
    """One alert of a rollback trigger."""
    base = {"alertname": name, "action": "rollback", "runbook": "incident", "severity": "P1", "version": "1.1.0"}
    return {
        "status": status,
        "labels": {**base, **labels},
        "annotations": {"summary": "…"},
        "startsAt": starts_at,
        "endsAt": "0001-01-01T00:00:00Z",
        "generatorURL": "http://localhost/graph",
        "fingerprint": f"{zlib.crc32(json.dumps([name, labels], sort_keys=True).encode()):016x}",
    }


def notification(*alerts: dict[str, Any], status: str = "firing", group: str = "{}:{alertname=~}") -> bytes:
    """A webhook body, version 4."""
    return json.dumps(
        {"version": "4", "groupKey": group, "truncatedAlerts": 0, "status": status, "receiver": "responder", "alerts": list(alerts)}
    ).encode()
