"""The preview in a real browser, over a real Prometheus whose labels mean harm."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import httpx
import pytest

from sage_obs.alerts.catalogue import groups
from sage_obs.alerts.links import Links
from sage_obs.alerts.render import rules_text
from sage_obs.cli.previewing import profiles_of
from sage_obs.dashboards.lint.promql import analyse
from sage_obs.dashboards.preview.server import Preview, serving
from sage_obs.dashboards.render import boards
from sage_obs.slo.promql import recorded
from sage_obs.slo.triggers import LATENCY
from sage_obs.slo.windows import DRILL
from tests.support.browser import Page, browsing
from tests.support.prometheus import Target, running_prometheus
from tests.support.prometheus import serving as exposing

pytestmark = [pytest.mark.system, pytest.mark.timeout(240)]
BOARDS: Final = {board["uid"]: board for board in boards()}
HARM: Final = "<img src=x onerror=window.harmed=1>"
TEXT: Final = f"{HARM} [a](javascript:window.harmed=3) [b](${{runbooks}}) [good](https://example.org/x) **bold**"
MINE: Final[dict[str, Any]] = {
    "uid": "mine",
    "title": HARM,
    "description": HARM,
    "templating": {"list": [{"type": "constant", "name": "runbooks", "query": "javascript:window.harmed=2"}]},
    "panels": [
        {"type": "row", "title": HARM, "id": 1, "gridPos": {"x": 0, "y": 0, "w": 24, "h": 1}},
        {"type": "text", "title": "Text", "description": HARM, "options": {"content": TEXT}},
        {"type": "gauge", "title": "Gauge", "targets": [{"refId": "A", "expr": "up"}]},
        {
            "type": "timeseries",
            "title": "Legend",
            "targets": [{"refId": "A", "expr": "sage_build_info", "legendFormat": HARM + "{{version}}"}],
        },
        {"type": "stat", "title": "Wrong", "targets": [{"refId": "A", "expr": "sum("}]},
    ],
}


@dataclass(frozen=True, slots=True)
class Shown:
    """A browser on a preview."""

    url: str
    page: Page

    def open(self, uid: str, query: str = "from=now-60s&refresh=0") -> None:
        """Look at a board."""
        self.page.problems.clear()
        self.page.loaded.clear()
        self.page.open(f"{self.url}d/{uid}?{query}")

    def panel(self, title: str) -> str:
        """What a panel says."""
        return str(self.page.evaluate(f"document.querySelector('[data-panel={json.dumps(title)}]').innerText"))


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shown]:
    """A browser on a preview of our boards and a hostile one, over two releases, one with a hostile name."""
    folder = tmp_path_factory.mktemp("preview")
    (folder / "stacks.txt").write_text(f"main (a.py:1);{HARM} (a.py:2) 30\nmain (a.py:1);other (a.py:3) 10\n")
    rules = rules_text(groups(DRILL, links=Links()), profile=DRILL.name)
    with (
        running_prometheus(folder, DRILL, rules=rules) as prometheus,
        exposing(Target("1.0.0")) as old,
        exposing(Target(HARM, failed=0.1)) as new,
        httpx.Client(trust_env=False) as client,
    ):
        prometheus.scrape(old, new)
        prometheus.wait(lambda: len(prometheus.query(recorded(LATENCY, "value"))) == 2, seconds=60, what="two releases judged")
        preview = Preview({**BOARDS, "mine": MINE}, prometheus.url, client, profiles_of(str(folder / "stacks.txt")))
        with serving(preview, port=0) as url, browsing() as page:
            yield Shown(url, page)


def harmless(shown: Shown) -> None:
    """Nothing ran, nothing was built of a label, nothing came from elsewhere, and the console is quiet."""
    assert shown.page.evaluate("window.harmed === undefined && document.images.length === 0")
    assert [url for url in shown.page.loaded if not url.startswith((shown.url, "data:,"))] == []
    assert shown.page.problems == []


@pytest.mark.parametrize("uid", BOARDS)
def test_every_board_is_drawn(shown: Shown, uid: str) -> None:
    """No panel fails or is of a kind that is not drawn, labels are text, and nothing is loaded from elsewhere."""
    shown.open(uid)
    assert shown.page.evaluate("document.body.dataset.failed") == "0"
    assert "does not draw" not in shown.page.text()
    drawn = shown.page.evaluate("document.querySelectorAll('.panel canvas, .panel table, .panel .stat, .flame div').length")
    assert drawn >= 10
    harmless(shown)


def test_a_hostile_label_is_text(shown: Shown) -> None:
    """The name of the release stands in tables and legends as it is."""
    shown.open("sage-rollout")
    assert HARM in shown.panel("Releases")
    assert HARM in shown.panel("Requests")
    assert shown.page.evaluate("[...document.querySelector('[name=version]').options].map((one) => one.text)") == ["All", "1.0.0", HARM]
    harmless(shown)


def test_a_hostile_board_is_text(shown: Shown) -> None:
    """Titles, Markdown, legends and links of a file run nothing; a query that is wrong says so in its panel, others go on."""
    shown.open("mine")
    assert HARM in shown.page.text()
    assert shown.page.evaluate("[...document.querySelectorAll('.text a')].map((one) => one.href)") == ["https://example.org/x"]
    assert HARM in shown.panel("Legend")
    assert "does not draw panels of the kind gauge" in shown.panel("Gauge")
    assert "parse error" in shown.panel("Wrong")
    assert shown.page.evaluate("document.body.dataset.failed") == "1"
    assert all("400" in problem for problem in shown.page.problems)
    shown.page.problems.clear()
    harmless(shown)


def choose(name: str, *values: str) -> str:
    """JavaScript that chooses values of a variable as a reader does."""
    return f"""(() => {{
      const select = document.querySelector("[name={name}]");
      for (const option of select.options) option.selected = {json.dumps(values)}.includes(option.value);
      select.dispatchEvent(new Event("change"));
    }})()"""


def test_a_choice_reaches_queries_and_the_address(shown: Shown) -> None:
    """One release chosen leaves one line; the address keeps the choice and a reload has it again; a hostile value too."""
    shown.open("sage-rollout")
    ready = int(shown.page.evaluate("document.body.dataset.ready"))
    shown.page.evaluate(choose("version", "1.0.0"))
    shown.page.wait(f"Number(document.body.dataset.ready) > {ready}")
    assert HARM not in shown.panel("Requests")
    assert "var-version=1.0.0" in shown.page.evaluate("location.search")
    shown.page.evaluate(choose("version", HARM))
    shown.page.wait(f"Number(document.body.dataset.ready) > {ready + 1}")
    assert HARM in shown.panel("Requests")
    assert "1.0.0" not in shown.panel("Requests")
    shown.open("sage-rollout", shown.page.evaluate("location.search.slice(1)"))
    assert "1.0.0" not in shown.panel("Requests")
    harmless(shown)


def test_a_row_leads_to_the_agents_board(shown: Shown) -> None:
    """The name in the table opens that agent's board with its name chosen."""
    shown.open("sage-fleet")
    link = shown.page.evaluate("document.querySelector('[data-panel=Agents] a').href")
    assert link.startswith(f"{shown.url}d/sage-agent?")
    shown.page.open(link)
    assert shown.page.evaluate("[...document.querySelector('[name=agent_id]').selectedOptions].map((one) => one.value)") == ["x"]


def test_time_and_refresh_are_chosen(shown: Shown) -> None:
    """Another range asks for that range; a refresh asks again by itself."""
    shown.open("sage-slo")
    shown.page.evaluate(
        "(() => { const one = document.getElementById('range'); one.value = '900'; one.dispatchEvent(new Event('change')); })()"
    )
    shown.page.wait("Number(document.body.dataset.ready) >= 2")
    assert shown.page.evaluate("state.range") == 900
    assert "from=now-900s" in shown.page.evaluate("location.search")
    shown.open("sage-slo", "from=now-60s&refresh=1")
    shown.page.wait("Number(document.body.dataset.ready) >= 3")
    harmless(shown)


def test_a_flame_graph_is_drawn_and_zoomed(shown: Shown) -> None:
    """Frames are as wide as their share; a click fills the width with one, and another goes back."""
    shown.open("sage-profiling")
    shown.page.wait("document.querySelectorAll('.flame').length === 4")
    bars = (
        "[...document.querySelector('.flame').children]"
        ".map((one) => [one.textContent.slice(0, 5), Math.round(parseFloat(one.style.width))])"
    )
    assert shown.page.evaluate(bars) == [["all", 100], ["main ", 100], ["<img ", 75], ["other", 25]]
    shown.page.evaluate("document.querySelector('.flame').children[3].click()")
    assert shown.page.evaluate(bars) == [["other", 100]]
    shown.page.evaluate("document.querySelector('.flame').children[0].click()")
    assert len(shown.page.evaluate(bars)) == 4
    harmless(shown)


@pytest.mark.parametrize(
    ("call", "wanted"),
    [
        ("written(0.0531, 'percentunit')", "5.31 %"),
        ("written(0.00025, 's')", "250 µs"),
        ("written(5400, 's')", "90 min"),
        ("written(1536, 'bytes')", "1.5 KiB"),
        ("written(12345, 'reqps')", "12.3 K/s"),
        ("written(0.5, 'currencyUSD')", "$0.5"),
        ("written(2, 'suffix:x')", "2x"),
        ("written(NaN, 's')", "\N{EN DASH}"),
        ("coloured(0.06, [{color: 'green', value: null}, {color: 'red', value: 0.05}])", "#f2495c"),
        ("named('{{ a }} {{b}}', {a: '1', b: '2'})", "1 2"),
        ("named('__auto', {__name__: 'x', a: '1'})", "a=1"),
        ("substituted('$a ${a} ${a:regex} $unknown', {a: '1'})", "1 1 1 $unknown"),
        ("safe('javascript:alert(1)')", None),
    ],
)
def test_numbers_and_names_are_written_as_grafana_does(shown: Shown, call: str, wanted: str | None) -> None:
    """Units, thresholds, legends and variables."""
    assert shown.page.evaluate(call) == wanted


@pytest.mark.parametrize("chosen", [['a"} or vector(1) or x{b="'], ["a\\", "b\\d"], ["x\ny", "(", ".+"], ["é"]])
def test_a_value_cannot_leave_its_string(shown: Shown, chosen: list[str]) -> None:
    """Whatever is chosen, the query stays one selector whose regular expression means exactly those values."""
    variable = json.dumps({"type": "query", "allValue": ".+", "chosen": chosen})
    expr = shown.page.evaluate(f"""substituted('up{{job=~"$job"}}', {{job: expanded({variable})}})""")
    query = analyse(expr)
    assert query.error == ""
    assert [one.name for one in query.selectors] == ["up"]
    assert len(query.selectors[0].matchers) == 1
