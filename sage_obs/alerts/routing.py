"""Alertmanager's configuration: rollback alerts go to the responder at once, everything else to the default receiver."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from sage_obs.conventions import ACTION_ROLLBACK, DEFAULT_RESPONDER_PORT, LABEL_ACTION, LABEL_VERSION
from sage_obs.slo.windows import Windows, duration

DEFAULT_RECEIVER: Final = "default"
RESPONDER: Final = "responder"


@dataclass(frozen=True, slots=True)
class ResponderRoute:
    """Where the responder takes Alertmanager's webhook, and the file with its bearer token ("" for none).

    Alertmanager reads the file itself, at every delivery; it takes a relative path from the folder of its configuration.
    """

    url: str = f"http://127.0.0.1:{DEFAULT_RESPONDER_PORT}/alerts"
    token_file: str = ""


def configuration(windows: Windows, *, responder: ResponderRoute) -> dict[str, Any]:
    """The whole configuration. The default receiver also gets the rollback alerts; it has no address until an operator adds one."""
    return {
        "route": {
            "receiver": DEFAULT_RECEIVER,
            "group_by": ["alertname", "job"],
            "routes": [_rollback_route(windows), {"receiver": DEFAULT_RECEIVER}],
        },
        "receivers": [{"name": DEFAULT_RECEIVER}, {"name": RESPONDER, "webhook_configs": [_webhook(responder)]}],
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
