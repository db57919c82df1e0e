"""A server that keeps boards and folders as Grafana's HTTP API does: tokens, rights, versions, names, provisioned boards."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "glsa_a_token_of_a_service_account"  # noqa: S105 - of a server in a test
READER = "glsa_a_token_that_may_only_read"

Answer = tuple[int, dict[str, Any]]


@dataclass(slots=True)
class FakeGrafana:
    """`boards` and `folders` by uid; `meta` what is known beside a board; `asked` every request's method and path."""

    url: str = ""
    boards: dict[str, dict[str, Any]] = field(default_factory=dict)
    meta: dict[str, dict[str, Any]] = field(default_factory=dict)
    folders: dict[str, str] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)
    before_saving: list[Any] = field(default_factory=list)

    def answer(self, method: str, path: str, token: str, body: dict[str, Any]) -> Answer:
        """What Grafana would say."""
        self.asked.append((method, path))
        if token not in {TOKEN, READER}:
            return 401, {"message": "Invalid API key"}
        if method == "POST" and token == READER:
            return 403, {"message": "You'll need additional permissions to perform this action.", "title": "Access denied"}
        kind, _, uid = path.removeprefix("/api/").rpartition("/")
        route = f"{method} {kind or uid}"
        if route == "GET folders":
            return (200, {"uid": uid, "title": self.folders[uid]}) if uid in self.folders else (404, {"message": "folder not found"})
        if route == "GET dashboards/uid":
            return self._board(uid)
        return self._create_folder(body) if route == "POST folders" else self._save(body)

    def _board(self, uid: str) -> Answer:
        if uid not in self.boards:
            return 404, {"message": "Dashboard not found"}
        return 200, {"meta": {"slug": uid, "folderUid": "", **self.meta.get(uid, {})}, "dashboard": self.boards[uid]}

    def _create_folder(self, body: dict[str, Any]) -> Answer:
        if body["title"] in self.folders.values():
            return 409, {"message": "a folder with the same name already exists in the current location"}
        self.folders[body["uid"]] = body["title"]
        return 200, {"uid": body["uid"], "title": body["title"]}

    def _save(self, body: dict[str, Any]) -> Answer:
        for change in self.before_saving:
            change(self)
        board, folder = body["dashboard"], body.get("folderUid", "")
        uid, stored = board["uid"], self.boards.get(board["uid"], {})
        if self.meta.get(uid, {}).get("provisioned"):
            return 400, {"message": "Cannot save provisioned dashboard"}
        if folder and folder not in self.folders:
            return 400, {"message": "folder not found"}
        if stored and not body["overwrite"] and board["version"] != stored["version"]:
            return 412, {"message": "The dashboard has been changed by someone else", "status": "version-mismatch"}
        number = stored.get("version", 0) + 1
        self.boards[uid] = {**board, "id": stored.get("id", len(self.boards) + 1), "version": number}
        self.meta[uid] = {**self.meta.get(uid, {}), "folderUid": folder}
        return 200, {"uid": uid, "url": f"/d/{uid}/slug", "status": "success", "version": number}


@contextmanager
def fake_grafana() -> Iterator[FakeGrafana]:
    """The server on any free port of loopback."""
    grafana = FakeGrafana()

    class Handler(BaseHTTPRequestHandler):
        def _handle(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else {}
            token = self.headers.get("Authorization", "").removeprefix("Bearer ")
            status, data = grafana.answer(self.command, self.path, token, body)
            text = json.dumps(data).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_POST = _handle  # noqa: N815 - the base class's names

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
            """Tests need no access log."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        grafana.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield grafana
        finally:
            server.shutdown()
            thread.join()
