"""`sage-obs dashboards push` against a server that behaves like Grafana."""

import json
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from sage_obs.cli import run
from sage_obs.dashboards.changes import changes
from sage_obs.dashboards.render import boards
from sage_obs.errors import ExitCode
from tests.support.grafana import READER, TOKEN, FakeGrafana, fake_grafana
from tests.support.ports import free_port
from tests.support.prometheus import Target, serving

BOARDS = {board["uid"]: board for board in boards()}


@pytest.fixture
def grafana(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeGrafana]:
    """A server whose address and token are in the environment."""
    with fake_grafana() as server:
        monkeypatch.setenv("SAGE_GRAFANA_URL", server.url)
        monkeypatch.setenv("SAGE_GRAFANA_TOKEN", TOKEN)
        monkeypatch.delenv("SAGE_GRAFANA_TOKEN_FILE", raising=False)
        yield server


def push(*arguments: str) -> int:
    """Run the command."""
    return run(["dashboards", "push", *arguments])


def test_boards_are_created_in_a_folder_then_left_alone(grafana: FakeGrafana, capsys: pytest.CaptureFixture[str]) -> None:
    """The first push creates folder and boards as they are rendered; the second finds nothing to do and writes nothing."""
    assert push("--yes") == ExitCode.OK
    said = capsys.readouterr()
    assert said.out.splitlines() == [f"{'create':<10} {uid}" for uid in BOARDS]
    assert f"saved sage-fleet: {grafana.url}/d/sage-fleet/slug" in said.err
    assert grafana.folders == {"sage-obs": "Sage"}
    assert {uid: grafana.meta[uid]["folderUid"] for uid in grafana.boards} == dict.fromkeys(BOARDS, "sage-obs")
    assert changes(grafana.boards["sage-llm"], BOARDS["sage-llm"]) == []
    grafana.asked.clear()
    assert push("--yes") == ExitCode.OK
    assert {method for method, _ in grafana.asked} == {"GET"}
    assert "unchanged  sage-fleet" in capsys.readouterr().out


def test_what_differs_is_shown_and_nothing_is_done_unasked(grafana: FakeGrafana, capsys: pytest.CaptureFixture[str]) -> None:
    """A dry run, and a run without a terminal and --yes, look and write nothing."""
    push("--yes")
    stored = grafana.boards["sage-slo"]
    stored["panels"] = [panel for panel in stored["panels"] if panel["title"] != "Availability"]
    stored["refresh"] = "5m"
    grafana.asked.clear()
    capsys.readouterr()
    assert push("--dry-run") == ExitCode.OK
    shown = capsys.readouterr().out
    assert "update     sage-slo\n  + panels.[Availability]: {" in shown
    assert '  ~ refresh: "5m" → "30s"\n' in shown
    assert push() == ExitCode.WAITING_FOR_APPROVAL
    assert {method for method, _ in grafana.asked} == {"GET"}
    assert push("--dry-run", "--json") == ExitCode.OK
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()[-len(BOARDS) :]]
    assert {line["uid"]: line["action"] for line in lines}["sage-slo"] == "update"


def test_an_update_keeps_the_folder_somebody_chose(grafana: FakeGrafana) -> None:
    """A board that was moved stays where it is, with a new version."""
    push("--yes")
    grafana.folders["mine"] = "Mine"
    grafana.meta["sage-slo"]["folderUid"] = "mine"
    grafana.boards["sage-slo"]["title"] = "Other"
    assert push("--yes") == ExitCode.OK
    assert (grafana.meta["sage-slo"]["folderUid"], grafana.boards["sage-slo"]["version"]) == ("mine", 2)
    assert grafana.boards["sage-slo"]["title"] == "Sage objectives"


FOREIGN: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "somebody else's": ({"uid": "sage-llm", "title": "Mine", "tags": ["team"], "version": 3}, {}, "is not ours"),
    "tagged and written by hand": ({"uid": "sage-llm", "tags": ["sage-obs"], "version": 3}, {}, "is not ours"),
    "odd": ({"uid": "sage-llm", "tags": "sage-obs", "description": None}, {}, "is not ours"),
    "from a file": ({**BOARDS["sage-llm"], "version": 1}, {"provisioned": True}, "from a file"),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_a_board_that_is_not_ours_is_never_overwritten(grafana: FakeGrafana, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing at all is written where one of the uids is somebody else's or comes from a file."""
    board, meta, words = FOREIGN[kind]
    grafana.boards["sage-llm"], grafana.meta["sage-llm"] = board, meta
    assert push("--yes") == ExitCode.REFUSED
    assert words in capsys.readouterr().err
    assert grafana.boards == {"sage-llm": board}
    assert {method for method, _ in grafana.asked} == {"GET"}


def test_a_board_that_somebody_saved_meanwhile_is_not_overwritten(grafana: FakeGrafana, capsys: pytest.CaptureFixture[str]) -> None:
    """The version that was looked at is the one that is replaced, or Grafana answers 412."""
    push("--yes")
    grafana.boards["sage-slo"]["title"] = "Other"

    def save_too(server: FakeGrafana) -> None:
        server.boards["sage-slo"].update(version=9, title="Theirs")

    grafana.before_saving.append(save_too)
    assert push("--yes") == ExitCode.FAILED
    assert "answered 412 about board sage-slo: The dashboard has been changed by someone else" in capsys.readouterr().err
    assert grafana.boards["sage-slo"]["title"] == "Theirs"


@pytest.mark.parametrize(("token", "words"), [("wrong-token", "401"), (READER, "403")])
def test_what_a_token_may_not_do_is_explained(
    grafana: FakeGrafana, token: str, words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The status, what Grafana said and what to do; never the token."""
    monkeypatch.setenv("SAGE_GRAFANA_TOKEN", token)
    assert push("--yes") == ExitCode.FAILED
    said = capsys.readouterr()
    assert f"Grafana answered {words}" in said.err
    assert "service account" in said.err or "role Editor" in said.err
    assert token not in said.out + said.err
    assert grafana.boards == {}


def test_a_token_comes_from_an_option_a_file_or_the_environment(
    grafana: FakeGrafana, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is nearer wins; a file may end in a line break."""
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    monkeypatch.setenv("SAGE_GRAFANA_TOKEN", "wrong-token")
    assert push("--dry-run") == ExitCode.FAILED
    assert push("--dry-run", "--token", TOKEN) == ExitCode.OK
    assert push("--dry-run", "--token-file", str(file)) == ExitCode.OK
    monkeypatch.delenv("SAGE_GRAFANA_TOKEN")
    assert push("--dry-run") == ExitCode.USAGE
    monkeypatch.setenv("SAGE_GRAFANA_TOKEN_FILE", str(file))
    assert push("--dry-run") == ExitCode.OK
    assert grafana.boards == {}


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--token", "two words"], ExitCode.USAGE),
        (["--token", "häßlich"], ExitCode.USAGE),
        (["--token-file", "/nowhere/token"], ExitCode.USAGE),
        (["--token", "t", "--url", "http://admin:geheim@127.0.0.1:1"], ExitCode.USAGE),
        (["--token", "t", "--url", "ftp://x"], ExitCode.USAGE),
        (["--token", "t0ken", "--url", "http://127.0.0.1:{port}"], ExitCode.FAILED),
    ],
)
def test_mistakes_are_said_without_secrets(arguments: list[str], code: ExitCode, capsys: pytest.CaptureFixture[str]) -> None:
    """A token that is none, a file that is not there, an address with a password, nobody there."""
    arguments = [part.format(port=free_port()) for part in arguments]
    assert push(*(["--url", "http://127.0.0.1:1"] if "--url" not in arguments else []), *arguments) == code
    said = capsys.readouterr()
    assert all(secret not in said.out + said.err for secret in ("two words", "häßlich", "geheim", "t0ken"))
    assert said.err.startswith("Error: ")


@pytest.fixture
def pages(tmp_path: Path) -> Iterator[str]:
    """A server of files, whose 404 is a page."""
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_server_that_is_no_grafana_is_said_so(pages: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A page that says 404 is not taken for a board that is not there."""
    assert push("--url", pages, "--token", "t", "--dry-run") == ExitCode.FAILED
    assert "no Grafana: 404 without JSON" in capsys.readouterr().err


def test_something_else_that_answers_is_said_so(capsys: pytest.CaptureFixture[str]) -> None:
    """A 200 without JSON is no Grafana either."""
    with serving(Target("1")) as address:
        assert push("--url", f"http://{address}", "--token", "t", "--dry-run") == ExitCode.FAILED
    assert "no Grafana: 200 without JSON" in capsys.readouterr().err


def test_changes_name_panels_and_not_places() -> None:
    """A panel that is put before the others is one line."""
    before = {"panels": [{"title": "A", "x": 1}, {"title": "B", "x": 1}], "id": 4}
    after = {"panels": [{"title": "New"}, {"title": "A", "x": 2}, {"title": "B", "x": 1}], "id": None}
    assert changes(before, after) == ["~ panels.[A].x: 1 → 2", '+ panels.[New]: {"title": "New"}']
