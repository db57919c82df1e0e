"""What Grafana reads beside the boards: providers, data sources, ConfigMaps."""

from __future__ import annotations

import textwrap
from typing import Any, Final

from sage_obs.dashboards.sources import DEFAULT_PROMETHEUS, TAG
from sage_obs.render import MARK

_FOLDER: Final = "/var/lib/grafana/dashboards/sage"
_HEAD: Final = f"# {MARK}.\n"
_PROVIDER: Final = {
    "apiVersion": 1,
    "providers": [
        {
            "name": "sage",
            "folder": "Sage",
            "type": "file",
            "allowUiUpdates": False,
            "disableDeletion": False,
            "options": {"path": _FOLDER},
        }
    ],
}
_SOURCES: Final = {
    "apiVersion": 1,
    "datasources": [
        {
            "name": "Sage Prometheus",
            "uid": "sage-prometheus",
            "type": "prometheus",
            "access": "proxy",
            "url": DEFAULT_PROMETHEUS,
            "jsonData": {"timeInterval": "15s", "exemplarTraceIdDestinations": [{"name": "trace_id", "datasourceUid": "sage-tempo"}]},
        },
        {
            "name": "Sage Loki",
            "uid": "sage-loki",
            "type": "loki",
            "access": "proxy",
            "url": "http://localhost:3100",
            "jsonData": {
                "derivedFields": [
                    # Grafana expands variables in these files; two dollars are one
                    {"name": "trace_id", "matcherRegex": '"trace_id":"(\\w+)"', "url": "$${__value.raw}", "datasourceUid": "sage-tempo"}
                ]
            },
        },
        {"name": "Sage Tempo", "uid": "sage-tempo", "type": "tempo", "access": "proxy", "url": "http://localhost:3200"},
        {
            "name": "Sage Pyroscope",
            "uid": "sage-pyroscope",
            "type": "grafana-pyroscope-datasource",
            "access": "proxy",
            "url": "http://localhost:4040",
        },
    ],
}


def files() -> dict[str, str]:
    """The provider that loads the boards, and data sources to start from: relative name → text."""
    return {
        "provisioning/dashboards.yml": _HEAD + _yaml(_PROVIDER),
        "provisioning/datasources.yml": _HEAD + "# A start: set the addresses, leave out what you do not have.\n" + _yaml(_SOURCES),
    }


def configmap(uid: str, board: str, *, namespace: str, folder: str) -> str:
    """A ConfigMap that holds a board, with the label and the annotation that the sidecar of Grafana's Helm chart looks for."""
    metadata: dict[str, Any] = {
        "annotations": {"grafana_folder": folder},
        "labels": {"app.kubernetes.io/part-of": TAG, "grafana_dashboard": "1"},
        "name": uid,
    }
    if namespace:
        metadata["namespace"] = namespace
    head = _yaml({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata})
    return f"{_HEAD}{head}data:\n  {uid}.json: |\n{textwrap.indent(board, '    ')}"


def _yaml(tree: dict[str, Any]) -> str:
    import yaml

    return str(yaml.safe_dump(tree, sort_keys=True))
