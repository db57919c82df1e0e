"""Rules, Alertmanager's configuration and promtool's tests as text. The same arguments give the same bytes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from sage_obs.alerts.catalogue import groups
from sage_obs.alerts.links import Links
from sage_obs.alerts.model import Group
from sage_obs.alerts.promtest import promtool_files, rules_file
from sage_obs.alerts.routing import ResponderRoute, configuration
from sage_obs.render import MARK
from sage_obs.slo.windows import Windows

RULES_FILES: Final = "sage-*.yml"
"""A pattern of the files with rules, for Prometheus's `rule_files`."""
ALERTMANAGER_FILE: Final = "alertmanager.yml"
TESTS_FOLDER: Final = "tests"

__all__ = ["ALERTMANAGER_FILE", "RULES_FILES", "TESTS_FOLDER", "Links", "ResponderRoute", "render", "rules_text"]


def render(windows: Windows, *, links: Links, responder: ResponderRoute) -> dict[str, str]:
    """Every file of `sage-obs alerts export`: relative name → text."""
    rules = groups(windows, links=links)
    tests = promtool_files(rules, windows)
    return {
        **{rules_file(group): rules_text((group,), profile=windows.name) for group in rules},
        ALERTMANAGER_FILE: to_yaml(configuration(windows, responder=responder), profile=windows.name),
        **{f"{TESTS_FOLDER}/{name}.yml": to_yaml(data, profile=windows.name) for name, data in tests.items()},
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
