"""Every board against what Grafana publishes of its model: the types of three majors, the SDK's classes, and the grammar of LogQL."""

from __future__ import annotations

import json
import re
import subprocess
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import pytest
from grafana_foundation_sdk.cog import plugins
from grafana_foundation_sdk.cog.encoder import JSONEncoder

from sage_obs.dashboards.render import boards
from tests.support.npm import installed

pytestmark = pytest.mark.timeout(300)
BOARDS: Final = {board["uid"]: board for board in boards()}
TYPESCRIPT: Final = "typescript@5.9.3"
VERSIONS: Final = ("10.4.19", "11.6.4", "12.4.11")
"""The last releases, or nearly, of the three majors that are supported."""
QUERY_SCHEMA: Final = "grafana-schema-10"
"""Where the type of Prometheus's queries was published last."""
OPTIONS: Final = {
    "timeseries": "TimeSeries",
    "stat": "Stat",
    "state-timeline": "StateTimeline",
    "table": "Table",
    "heatmap": "Heatmap",
    "logs": "Logs",
    "text": "Text",
}
"""The panels whose options Grafana publishes, by the names of their modules; an alert list and a flame graph are not among them."""
QUERIES: Final = {"prometheus": "prometheus/dataquery/x/Prometheus", "loki": "loki/dataquery/x/Loki",
                  "grafana-pyroscope-datasource": "grafanapyroscope/dataquery/x/GrafanaPyroscope"}  # fmt: skip
_HEAD: Final = """\
import type { Dashboard, Panel, FieldConfigSource } from '@grafana/schema';
type Plain<T> = unknown extends T ? T : T extends string ? `${T}` : T extends number | boolean | null | undefined ? T
  : T extends readonly (infer U)[] ? Plain<U>[] : { [K in keyof T]: Plain<T[K]> };
type Of<Options, Custom> = Plain<Omit<Panel, 'options' | 'fieldConfig' | 'targets'>> & {
  options: Plain<Partial<Options>>; targets?: unknown[];
  fieldConfig: { defaults: Omit<Plain<FieldConfigSource['defaults']>, 'custom'> & { custom?: Plain<Partial<Custom>> };
                 overrides: Plain<FieldConfigSource['overrides']> };
};
"""
_LOGQL: Final = """
import { parser } from '@grafana/lezer-logql';
import { readFileSync } from 'node:fs';
const wrong = JSON.parse(readFileSync(process.argv[2], 'utf8')).filter((expr) => {
  let bad = false;
  parser.parse(expr).iterate({ enter: (node) => { bad = bad || node.type.isError; } });
  return bad;
});
console.log(JSON.stringify(wrong));
"""


def _module(board: dict[str, Any], version: str) -> str:
    """The board, its panels and their queries as values that must satisfy Grafana's types."""
    used = sorted({panel["type"] for panel in board["panels"]} & OPTIONS.keys())
    lines = [_HEAD]
    lines += [_import(f"{_slug(kind)}/panelcfg/x/{OPTIONS[kind]}PanelCfg_types.gen", f"* as {OPTIONS[kind]}") for kind in used]
    lines += [_import(f"{path}DataQuery_types.gen", f"* as {_query(path)}") for path in QUERIES.values()]
    shell = {key: value for key, value in board.items() if key not in {"panels", "annotations", "templating"}}
    lines.append(f"({json.dumps(shell)}) satisfies Plain<Partial<Dashboard>>;")
    for key in ("annotations", "templating"):
        for one in board[key]["list"]:
            kind = "VariableModel" if key == "templating" else "AnnotationQuery"
            lines.append(f"({json.dumps(_known(one))}) satisfies Plain<Partial<import('@grafana/schema').{kind}>>;")
    for panel in board["panels"]:
        lines += _panel(panel, version)
    return "\n".join(lines)


def _import(path: str, names: str) -> str:
    package = QUERY_SCHEMA if path.startswith("prometheus") else "@grafana/schema"
    return f"import type {names} from './node_modules/{package}/dist/esm/raw/composable/{path}';"


def _known(one: dict[str, Any]) -> dict[str, Any]:
    """Without what a data source reads of an annotation or variable, which is no part of the model."""
    return {
        key: value
        for key, value in one.items()
        if key not in {"expr", "step", "tagKeys", "textFormat", "titleFormat", "useValueForTime", "definition"}
    }


def _slug(kind: str) -> str:
    return kind.replace("-", "")


def _query(path: str) -> str:
    return path.rpartition("/")[2] + "Query"


def _panel(panel: dict[str, Any], version: str) -> list[str]:
    if panel["type"] == "row":
        return [f"({json.dumps(panel)}) satisfies Plain<import('@grafana/schema').RowPanel>;"]
    name = OPTIONS.get(panel["type"])
    custom = f"{name}.FieldConfig" if name in {"TimeSeries", "StateTimeline", "Heatmap"} else "Record<string, unknown>"
    kind = f"Of<{name}.Options, {custom}>" if name else "Of<Record<string, unknown>, Record<string, unknown>>"
    lines = [f"({json.dumps(panel)}) satisfies {kind};"]
    for target in panel.get("targets", ()):
        path = QUERIES[target["datasource"]["type"]]
        module = path.rpartition("/")[2]
        query = {"Prometheus": "PrometheusDataQuery", "Loki": "LokiDataQuery", "GrafanaPyroscope": "GrafanaPyroscopeDataQuery"}[module]
        newer = {"includeExemplars"} if version != VERSIONS[-1] else set()
        known = {key: value for key, value in target.items() if key not in newer}
        lines.append(f"({json.dumps(known)}) satisfies Plain<{_query(path)}.{query}>;")
    return lines


def errors(given: Iterable[dict[str, Any]], version: str, folder: Path) -> list[str]:
    """What the compiler says about boards against the types of a version of Grafana."""
    packages = installed(f"@grafana/schema@{version}", f"{QUERY_SCHEMA}@npm:@grafana/schema@{VERSIONS[0]}", TYPESCRIPT)
    (folder / "node_modules").symlink_to(packages / "node_modules")
    for board in given:
        (folder / f"{board['uid']}.ts").write_text(_module(board, version))
    flags = ["--noEmit", "--strict", "--skipLibCheck", "--module", "esnext", "--moduleResolution", "bundler", "--target", "es2022"]
    command = ["node", str(folder / "node_modules/typescript/bin/tsc"), *flags, *(path.name for path in sorted(folder.glob("*.ts")))]
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    return [line for line in result.stdout.splitlines() if "error TS" in line]


@pytest.mark.parametrize("version", VERSIONS)
def test_every_board_satisfies_grafanas_types(version: str, tmp_path: Path) -> None:
    """Boards, variables, annotations, panels with their options, and queries are of the types that Grafana publishes."""
    assert errors(BOARDS.values(), version, tmp_path) == []


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("options.legend.displayMode", "tabel"),
        ("fieldConfig.defaults.custom.lineWidth", "1"),
        ("options.legends", {}),
        ("targets.0.range", 3),
    ],
    ids=["a value that is none", "a type that is another", "a field that is none", "a query's field"],
)
def test_the_types_notice_a_mistake(place: str, value: object, tmp_path: Path) -> None:
    """A wrong value, type or name in a panel is an error of the compiler."""
    board = json.loads(json.dumps(BOARDS["sage-runtime"]))
    board["panels"] = [next(panel for panel in board["panels"] if panel["type"] == "timeseries")]
    *path, last = place.split(".")
    inner = board["panels"][0]
    for key in path:
        inner = inner[int(key)] if key.isdigit() else inner[key]
    inner[last] = value
    assert len(errors([board], VERSIONS[-1], tmp_path)) >= 1


def test_logql_is_of_its_grammar(tmp_path: Path) -> None:
    """Every query of log lines is one for Grafana's own parser, which notices a mistake."""
    packages = installed("@grafana/lezer-logql@0.4.2", "@lezer/lr@1", "@lezer/common@1")
    expressions = [
        re.sub(r"\$\w+", "x", target["expr"])
        for board in BOARDS.values() for panel in board["panels"] if panel["type"] == "logs" for target in panel["targets"]
    ]  # fmt: skip
    assert len(expressions) == 2
    (tmp_path / "node_modules").symlink_to(packages / "node_modules")
    (tmp_path / "check.mjs").write_text(_LOGQL)
    (tmp_path / "queries.json").write_text(json.dumps([*expressions, '{job=~"a"} | json | level=']))
    result = subprocess.run(["node", "check.mjs", "queries.json"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert json.loads(result.stdout) == ['{job=~"a"} | json | level=']


def through_the_sdk(board: dict[str, Any]) -> dict[str, Any]:
    """The board read into the classes of Grafana's SDK and written again."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # it would rather have the model of version 2, which file provisioning refuses
        from grafana_foundation_sdk.models.dashboard import Dashboard

        plugins.register_default_plugins()
    text = JSONEncoder().encode(Dashboard.from_json(json.loads(json.dumps(board))))
    again: dict[str, Any] = json.loads(text)
    return again


def lost(before: Any, after: Any) -> list[str]:
    """The paths of what is not there any more, or is another value."""
    if isinstance(before, dict) and isinstance(after, dict):
        return [f"{key}/{path}" for key in before for path in (lost(before[key], after[key]) if key in after else [""])]
    if isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        return [f"{number}/{path}" for number, pair in enumerate(zip(before, after, strict=True)) for path in lost(*pair)]
    return [] if before == after else [""]


@pytest.mark.parametrize("uid", BOARDS)
def test_a_board_survives_grafanas_sdk(uid: str) -> None:
    """Every field and value is one that the SDK's classes know."""
    assert lost(BOARDS[uid], through_the_sdk(BOARDS[uid])) == []


def test_the_sdk_notices_a_field_that_is_none() -> None:
    """What its classes do not know is lost on the way."""
    board = json.loads(json.dumps(BOARDS["sage-slo"]))
    next(panel for panel in board["panels"] if panel["type"] == "timeseries")["options"]["legend"]["displayMod"] = "table"
    board["timezoned"] = "utc"
    assert len(lost(board, through_the_sdk(board))) == 2
