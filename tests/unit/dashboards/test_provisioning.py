"""What Grafana and Kubernetes read beside the boards."""

import json
import re
from pathlib import Path

import pytest
import yaml

from sage_obs.cli import run
from sage_obs.dashboards.grafana import SOURCE_TYPES
from sage_obs.dashboards.render import boards, render, render_configmaps
from sage_obs.errors import ExitCode

LIMIT = 262_144
"""Bytes that `kubectl apply` can remember of an object in an annotation."""


def test_a_configmap_holds_the_board_and_what_the_sidecar_looks_for() -> None:
    """Each is YAML with the label, the folder, and the bytes of the file, and small enough to be applied."""
    files = {name: text for name, text in render().items() if name.endswith(".json")}
    found = {name: (text, yaml.safe_load(text)) for name, text in render_configmaps(namespace="monitoring", folder="Agents").items()}
    assert len(found) == len(files)
    for name, (text, config) in found.items():
        uid = name.removesuffix(".configmap.yaml")
        assert (config["apiVersion"], config["kind"]) == ("v1", "ConfigMap")
        assert (config["metadata"]["name"], config["metadata"]["namespace"]) == (uid, "monitoring")
        assert config["metadata"]["labels"]["grafana_dashboard"] == "1"
        assert config["metadata"]["annotations"]["grafana_folder"] == "Agents"
        assert config["data"] == {f"{uid}.json": files[f"{uid}.json"]}
        assert len(text.encode()) < LIMIT


def test_configmaps_are_exported_and_checked(tmp_path: Path) -> None:
    """Beside the files, with the same rules about overwriting."""
    out = ["--out", str(tmp_path), "--format", "configmap"]
    assert run(["dashboards", "export", *out]) == ExitCode.OK
    assert min(path.name for path in tmp_path.iterdir()) == "sage-agent.configmap.yaml"
    assert run(["dashboards", "export", *out, "--check"]) == ExitCode.OK
    assert run(["dashboards", "export", *out, "--check", "--namespace", "x"]) == ExitCode.FAILED
    assert run(["dashboards", "export", "--out", str(tmp_path), "--namespace", "x"]) == ExitCode.USAGE


def test_data_sources_lead_to_each_other() -> None:
    """Every kind that boards ask is there, and exemplars and log lines lead to a source of traces that is."""
    tree = yaml.safe_load(render()["provisioning/datasources.yml"])
    sources = {one["type"]: one for one in tree["datasources"]}
    assert sources.keys() == set(SOURCE_TYPES.values())
    [exemplar] = sources["prometheus"]["jsonData"]["exemplarTraceIdDestinations"]
    [derived] = sources["loki"]["jsonData"]["derivedFields"]
    assert (exemplar["name"], exemplar["datasourceUid"]) == ("trace_id", sources["tempo"]["uid"])
    assert derived["datasourceUid"] == sources["tempo"]["uid"]
    line = json.dumps({"message": "x", "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736"}, separators=(",", ":"))
    assert re.search(derived["matcherRegex"], line)


def test_the_provider_reads_a_folder_of_boards() -> None:
    """In the model of Grafana's provisioning, without changes in the browser."""
    [provider] = yaml.safe_load(render()["provisioning/dashboards.yml"])["providers"]
    assert (provider["type"], provider["allowUiUpdates"], provider["folder"]) == ("file", False, "Sage")


@pytest.mark.parametrize("address", ["https://wiki.example/runbooks"])
def test_links_lead_to_the_runbooks_where_they_are(address: str, tmp_path: Path) -> None:
    """The address of the pages is in each board once, as a variable; nothing else differs."""
    for plain, pointed in zip(boards(), boards(runbooks=address), strict=True):
        text = json.dumps(pointed)
        assert text.count(address) == 3
        assert json.loads(text.replace(address, "http://localhost:9495/runbooks")) == plain
    assert run(["dashboards", "export", "--out", str(tmp_path), "--runbook-url", address]) == ExitCode.OK
    assert address in (tmp_path / "sage-fleet.json").read_text()
