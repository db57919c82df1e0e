"""Rules, Alertmanager's configuration and promtool's tests as text. The same arguments give the same bytes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from sage_obs.alerts.catalogue import groups
from sage_obs.alerts.links import Links
from sage_obs.alerts.model import Group
from sage_obs.alerts.promtest import promtool_files, rules_file
from sage_obs.alerts.routing import ResponderRoute, configuration
from sage_obs.alerts.settings import AlertSettings
from sage_obs.render import MARK
from sage_obs.slo.windows import Windows

RULES_FILES: Final = "sage-*.yml"
"""A pattern of the files with rules, for Prometheus's `rule_files`."""
ALERTMANAGER_FILE: Final = "alertmanager.yml"
TESTS_FOLDER: Final = "tests"
_PART_OF: Final = {"app.kubernetes.io/name": "sage-obs", "app.kubernetes.io/component": "alerts"}
_AS_IT_IS: Final = AlertSettings()

__all__ = ["ALERTMANAGER_FILE", "RULES_FILES", "TESTS_FOLDER", "Links", "ResponderRoute", "manifests", "render", "rules_text"]


def render(windows: Windows, *, links: Links, responder: ResponderRoute, settings: AlertSettings = _AS_IT_IS) -> dict[str, str]:
    """Every file of `sage-obs alerts export`: relative name → text."""
    windows = settings.of(windows)
    rules = groups(windows, links=links, settings=settings)
    tests = promtool_files(rules, windows, settings=settings)
    routes = configuration(windows, responder=responder, receivers=settings.receivers)
    return {
        **{rules_file(group): rules_text((group,), profile=windows.name) for group in rules},
        ALERTMANAGER_FILE: to_yaml(routes, profile=windows.name),
        **{f"{TESTS_FOLDER}/{name}.yml": to_yaml(data, profile=windows.name) for name, data in tests.items()},
    }


def manifests(windows: Windows, *, links: Links, settings: AlertSettings = _AS_IT_IS, namespace: str = "") -> dict[str, str]:
    """The rules for the Prometheus operator, one PrometheusRule for each group: relative name → text."""
    windows = settings.of(windows)
    place = {"namespace": namespace} if namespace else {}
    return {
        rules_file(group): to_yaml(
            {
                "apiVersion": "monitoring.coreos.com/v1",
                "kind": "PrometheusRule",
                "metadata": {"name": group.name, "labels": dict(_PART_OF), **place},
                "spec": {"groups": [group.data()]},
            },
            profile=windows.name,
        )
        for group in groups(windows, links=links, settings=settings)
    }


def rules_text(rules: Iterable[Group], *, profile: str) -> str:
    """A rules file for Prometheus."""
    return to_yaml({"groups": [group.data() for group in rules]}, profile=profile)


def to_yaml(data: Any, *, profile: str) -> str:
    """Sorted YAML under a line that says where it comes from."""
    import yaml

    dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    body = yaml.dump(data, Dumper=dumper, sort_keys=True, default_flow_style=False, width=140, allow_unicode=True)
    return f"# {MARK} with the {profile} windows: change the code, not this file.\n{body}"
