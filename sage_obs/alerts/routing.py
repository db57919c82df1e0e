"""Alertmanager's configuration: rollback alerts go to the responder at once, everything to people, by how bad it is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sage_obs.conventions import (
    ACTION_ROLLBACK,
    ALERT_WATCHDOG,
    DEFAULT_RESPONDER_PORT,
    LABEL_ACTION,
    LABEL_SEVERITY,
    LABEL_SLO,
    LABEL_TRIGGER,
    LABEL_VERSION,
    Severity,
)
from sage_obs.slo.windows import Windows, duration

DEFAULT_RECEIVER: Final = "default"
RESPONDER: Final = "responder"
WATCHDOG: Final = "watchdog"
_BY_SEVERITY: Final = {Severity.P1.value: "page", Severity.P2.value: "ticket"}


@dataclass(frozen=True, slots=True)
class ResponderRoute:
    """Where the responder takes Alertmanager's webhook, and the file with its bearer token ("" for none).

    Alertmanager reads the file itself, at every delivery; it takes a relative path from the folder of its configuration.
    """

    url: str = f"http://127.0.0.1:{DEFAULT_RESPONDER_PORT}/alerts"
    token_file: str = ""


def configuration(windows: Windows, *, responder: ResponderRoute, receivers: Sequence[Mapping[str, Any]] = ()) -> dict[str, Any]:
    """The whole configuration: who is told what. Receivers have no address until the operator gives them one; `receivers` do."""
    named: dict[str, Mapping[str, Any]] = {name: {"name": name} for name in (DEFAULT_RECEIVER, *_BY_SEVERITY.values(), WATCHDOG)}
    named[RESPONDER] = {"name": RESPONDER, "webhook_configs": [_webhook(responder)]}
    named |= {one["name"]: one for one in receivers}
    return {
        "route": {
            "receiver": DEFAULT_RECEIVER,
            "group_by": ["alertname", "job"],
            "routes": [_rollback_route(windows), _watchdog_route(windows), *_severity_routes()],
        },
        "inhibit_rules": [*_inhibitions()],
        "receivers": list(named.values()),
    }


def _severity_routes() -> Iterator[dict[str, Any]]:
    """P1 gets somebody up, P2 is looked at today, anything else when there is time."""
    for severity, receiver in _BY_SEVERITY.items():
        yield {"receiver": receiver, "matchers": [f'{LABEL_SEVERITY}="{severity}"']}
    yield {"receiver": DEFAULT_RECEIVER}


def _watchdog_route(windows: Windows) -> dict[str, Any]:
    """What always fires goes to somebody who is alarmed when it does not."""
    return {
        "receiver": WATCHDOG,
        "matchers": [f'alertname="{ALERT_WATCHDOG}"'],
        "group_wait": "0s",
        "group_interval": duration(windows.evaluation * 4),
        "repeat_interval": duration(windows.rate),
    }


def _inhibitions() -> Iterator[dict[str, Any]]:
    """One call for one trouble: the release's own alert says more than that of the whole job, and a worse one more than a milder one.

    A label that is missing on both sides counts as equal, hence the matchers that want it there.
    """
    trigger = f'{LABEL_TRIGGER}!=""'
    yield {
        "source_matchers": [f'{LABEL_ACTION}="{ACTION_ROLLBACK}"', trigger],
        "target_matchers": [f'{LABEL_ACTION}!="{ACTION_ROLLBACK}"', trigger],
        "equal": ["job", LABEL_TRIGGER],
    }
    for worse, milder in ((Severity.P1, f"{Severity.P2}|{Severity.P3}"), (Severity.P2, Severity.P3.value)):
        yield {
            "source_matchers": [f'{LABEL_SEVERITY}="{worse}"', trigger],
            "target_matchers": [f'{LABEL_SEVERITY}=~"{milder}"', trigger],
            "equal": ["job", LABEL_TRIGGER, LABEL_SLO],
        }


def _rollback_route(windows: Windows) -> dict[str, Any]:
    """One notification per bad version, whichever triggers fire.

    The first leaves without waiting. A change of the group follows after four evaluations, which lets triggers that fire together
    arrive together; a repetition only reminds a responder that lost its journal, so it may take twelve rate windows.
    """
    return {
        "receiver": RESPONDER,
        "matchers": [f'{LABEL_ACTION}="{ACTION_ROLLBACK}"'],
        "group_by": ["job", LABEL_VERSION],
        "group_wait": "0s",
        "group_interval": duration(windows.evaluation * 4),
        "repeat_interval": duration(windows.rate * 12),
        "continue": True,
    }


def _webhook(responder: ResponderRoute) -> dict[str, Any]:
    webhook: dict[str, Any] = {"url": responder.url, "send_resolved": True}
    if responder.token_file:
        webhook["http_config"] = {"authorization": {"type": "Bearer", "credentials_file": responder.token_file}}
    return webhook
