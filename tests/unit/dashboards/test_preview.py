"""The preview's server: what it passes on, to whom it answers, and what it is made of."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import threading
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from pathlib import Path

import httpx
import pytest

from sage_obs.cli import run
from sage_obs.cli.previewing import profiles_of
from sage_obs.dashboards.preview.server import Preview, serving
from sage_obs.dashboards.render import boards
from sage_obs.errors import ConfigError, ExitCode
from tests.support.ports import free_port

ANSWER = {"status": "success", "data": {"resultType": "vector", "result": []}}
STATIC = resources.files("sage_obs.dashboards.preview") / "static"


@dataclass(slots=True)
class Upstream:
    """A server in Prometheus's place; `asked` has each request's method, path and form."""

    url: str = ""
    asked: list[tuple[str, str, dict[str, list[str]]]] = field(default_factory=list)


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    """One that answers everything with an empty result."""
    kept = Upstream()

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            url = urllib.parse.urlsplit(self.path)
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
            kept.asked.append((self.command, url.path, urllib.parse.parse_qs(body or url.query)))
            text = json.dumps(ANSWER).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_POST = _answer  # noqa: N815 - the base class's names

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
            """Tests need no access log."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        kept.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield kept
        server.shutdown()
        thread.join()


@pytest.fixture
def page(upstream: Upstream) -> Iterator[httpx.Client]:
    """A client of a preview of our boards that asks the server above."""
    every = {board["uid"]: board for board in boards()}
    with httpx.Client(trust_env=False) as client:
        preview = Preview(every, upstream.url, client, lambda kind, seconds: f"{kind};{seconds} 3\n")
        with serving(preview, port=0) as url, httpx.Client(base_url=url, trust_env=False) as reader:
            yield reader


@pytest.mark.parametrize(
    "path", ["/", "/d/sage-llm", "/static/preview.js", "/static/uPlot.iife.min.js", "/boards.json", "/boards/sage-llm"]
)
def test_the_page_and_what_it_is_made_of_are_served(page: httpx.Client, path: str) -> None:
    """With a policy by which a browser loads nothing from anywhere else and runs nothing that stands in a page."""
    answer = page.get(path)
    assert answer.status_code == 200
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'")
    assert "unsafe" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_boards_are_what_was_rendered(page: httpx.Client) -> None:
    """The list has every board by name, and each is its JSON."""
    listed = page.get("/boards.json").json()["boards"]
    assert [one["uid"] for one in listed] == [board["uid"] for board in boards()]
    assert page.get("/boards/sage-slo").json() == next(board for board in boards() if board["uid"] == "sage-slo")


def test_queries_are_passed_on(page: httpx.Client, upstream: Upstream) -> None:
    """What reads series reaches Prometheus with its form as it was, and its answer comes back."""
    form = {"query": 'up{job=~"a|b+c"} & %', "time": "1"}
    assert page.post("/api/v1/query", data=form).json() == ANSWER
    assert page.get("/api/v1/label/job/values", params={"match[]": "up"}).json() == ANSWER
    for path in ("query_range", "series", "labels"):
        assert page.post(f"/api/v1/{path}", data=form).json() == ANSWER
    assert upstream.asked[0] == ("POST", "/api/v1/query", {"query": ['up{job=~"a|b+c"} & %'], "time": ["1"]})
    assert upstream.asked[1] == ("GET", "/api/v1/label/job/values", {"match[]": ["up"]})


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/api/v1/admin/tsdb/delete_series"),
        ("POST", "/-/reload"),
        ("POST", "/-/quit"),
        ("POST", "/api/v1/status/config"),
        ("POST", "/api/v1/targets"),
        ("POST", "/api/v1/rules"),
        ("GET", "/api/v1/status/config"),
        ("GET", "/api/v1/targets"),
        ("GET", "/api/v1/query?query=up"),
        ("POST", "/api/v1/label/job/values"),
        ("GET", "/api/v1/label/../status/config/values"),
        ("GET", "/api/v1/label/%2e%2e%2fx/values"),
        ("POST", "/api/v1/query/../admin/tsdb/snapshot"),
        ("GET", "/static/../server.py"),
        ("GET", "/static/%2e%2e/server.py"),
        ("GET", "/static/uPlot.LICENSE"),
        ("GET", "/boards/nothing"),
        ("GET", "/profiles/trace"),
        ("GET", "/profiles/cpu?seconds=1000"),
    ],
)
def test_nothing_else_is_passed_on(page: httpx.Client, upstream: Upstream, method: str, path: str) -> None:
    """Other parts of Prometheus's API, other files and other profiles are not there."""
    with socket.create_connection((page.base_url.host, page.base_url.port or 0)) as raw:
        raw.sendall(f"{method} {path} HTTP/1.1\r\nHost: localhost:1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
        assert raw.makefile("rb").readline().split()[1] == b"404"
    assert upstream.asked == []


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Host": "evil.example:80"},
        {"Host": "127.0.0.1.evil.example:80"},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
    ids=lambda headers: "".join(headers.values()),
)
def test_other_pages_get_no_answer(page: httpx.Client, upstream: Upstream, headers: dict[str, str]) -> None:
    """A name that is not this machine's, and a request from another page, are refused, whatever they ask."""
    assert page.post("/api/v1/query", data={"query": "up"}, headers=headers).status_code == 403
    assert page.get("/boards.json", headers=headers).status_code == 403
    assert upstream.asked == []


def test_a_query_has_a_length(page: httpx.Client, upstream: Upstream) -> None:
    """One that is too long, or does not say, is refused."""
    assert page.post("/api/v1/query", data={"query": "x" * 300_000}).status_code == 413
    assert page.post("/api/v1/query", content=iter([b"query=up"])).status_code == 413
    assert upstream.asked == []


def test_a_prometheus_that_is_not_there_is_said_so() -> None:
    """Each question gets the address and the reason."""
    with httpx.Client(trust_env=False) as client, serving(Preview({}, f"http://127.0.0.1:{free_port()}", client), port=0) as url:
        answer = httpx.post(f"{url}api/v1/query", data={"query": "up"}, trust_env=False)
    assert answer.status_code == 502
    assert "Cannot reach Prometheus at http://127.0.0.1:" in answer.json()["error"]


def test_profiles_come_from_a_service_or_a_file(page: httpx.Client, tmp_path: Path) -> None:
    """In collapsed form; what is no profile is said so at the start."""
    assert page.get("/profiles/cpu?seconds=4").text == "cpu;4 3\n"
    assert page.get("/profiles/heap?seconds=99").text == "heap;30 3\n"
    (tmp_path / "stacks.txt").write_text("main (a.py:1);work (a.py:2) 7\n")
    from_file = profiles_of(str(tmp_path / "stacks.txt"))
    assert from_file is not None
    assert from_file("cpu", 1).split() == ["main", "(a.py:1);work", "(a.py:2)", "7"]
    (tmp_path / "no.txt").write_bytes(b"\xff\xfe nothing")
    with pytest.raises(ConfigError, match=r"no\.txt is no profile"):
        profiles_of(str(tmp_path / "no.txt"))
    assert profiles_of("") is None


def test_nothing_of_the_page_writes_html_or_runs_text() -> None:
    """What comes from outside can only become text: no HTML is written and nothing is evaluated in our scripts."""
    for name in ("preview.js", "panels.js", "format.js", "preview.html"):
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function|javascript:", (STATIC / name).read_text()
        )
    assert "http" not in re.sub(r"http://localhost:6060|\"https?:\"", "", (STATIC / "preview.js").read_text())


def test_the_library_of_the_charts_has_its_licence_beside_it() -> None:
    """MIT asks for it."""
    assert "(v1.6.32)" in (STATIC / "uPlot.iife.min.js").read_text()[:100]
    assert "MIT License" in (STATIC / "uPlot.LICENSE").read_text()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--prometheus", "ftp://x"], "no address of a Prometheus"),
        (["--prometheus", "http://user:geheim@x"], "no address of a Prometheus"),
        (["nowhere.json"], "Cannot read nowhere.json"),
    ],
)
def test_mistakes_are_said(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Before anything is served."""
    assert run(["dashboards", "preview", *arguments]) == ExitCode.USAGE
    assert words in capsys.readouterr().err


def test_the_command_serves_until_it_is_stopped(tmp_path: Path) -> None:
    """It says where the page is, shows the user's own files, listens on loopback only and ends in order; a taken port is an error."""
    (tmp_path / "mine.json").write_text(json.dumps({"title": "Mine", "panels": []}))
    command = [sys.executable, "-m", "sage_obs", "dashboards", "preview", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        assert url.startswith("http://127.0.0.1:")
        assert httpx.get(f"{url}boards.json", trust_env=False).json()["boards"] == [{"uid": "mine", "title": "Mine"}]
        port = urllib.parse.urlsplit(url).port
        taken = subprocess.run([*command, "--port", str(port)], capture_output=True, text=True, check=False, timeout=30)
        assert (taken.returncode, "Cannot listen on port" in taken.stderr) == (ExitCode.FAILED, True)
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == ExitCode.OK
