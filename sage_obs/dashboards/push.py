"""Boards to a Grafana by its HTTP API: look first, then save what differs, and never what is somebody else's."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sage_obs.dashboards.changes import changes
from sage_obs.dashboards.sources import TAG
from sage_obs.errors import RefusedError, SageObsError, UnavailableError
from sage_obs.render import MARK

if TYPE_CHECKING:
    import httpx

FOLDER_UID: Final = "sage-obs"
"""The folder that boards are created in."""
_TIMEOUT: Final = 15.0
_OK: Final = 200
_NOT_FOUND: Final = 404
_HINTS: Final = {
    401: "Grafana does not take the token: create one for a service account (Administration, Service accounts).",
    403: "The token may not do this: its account needs the role Editor, or dashboards:create, dashboards:write and folders:create.",
    412: "Somebody saved it meanwhile, or another board has its name. Run the command again and look at what differs.",
}


class Action(enum.StrEnum):
    """What is to be done with a board."""

    CREATE = "create"
    UPDATE = "update"
    UNCHANGED = "unchanged"


@dataclass(frozen=True, slots=True)
class Step:
    """A board, what is to be done with it, how it differs, and the version and folder that Grafana has it in."""

    board: Mapping[str, Any]
    action: Action
    lines: tuple[str, ...] = ()
    version: int = 0
    folder: str = FOLDER_UID

    @property
    def uid(self) -> str:
        """The board's uid."""
        return str(self.board["uid"])


class Grafana:
    """A Grafana, asked with a token that nothing here ever writes anywhere."""

    def __init__(self, client: httpx.Client, url: str, token: str) -> None:
        self._client = client
        self._url = url.rstrip("/")
        self._headers = {"Authorization": f"Bearer {token}", "Accept": "application/json"}

    def board(self, uid: str) -> dict[str, Any] | None:
        """The board of this uid with what Grafana knows of it, or None."""
        return self._get(f"/api/dashboards/uid/{uid}", what=f"board {uid}")

    def ensure_folder(self, uid: str, title: str) -> None:
        """Create the folder where it is not there."""
        if self._get(f"/api/folders/{uid}", what=f"folder {uid}") is None:
            self._send("POST", "/api/folders", {"uid": uid, "title": title}, what=f"folder {title}")

    def save(self, step: Step, *, message: str) -> str:
        """Create or update a board, unless somebody changed it since it was looked at; returns its path."""
        board = {**step.board, "id": None, "version": step.version}
        body = {"dashboard": board, "folderUid": step.folder, "message": message, "overwrite": False}
        return str(self._send("POST", "/api/dashboards/db", body, what=f"board {step.uid}").get("url", ""))

    def _get(self, path: str, *, what: str) -> dict[str, Any] | None:
        response = self._request("GET", path, None)
        return None if response.status_code == _NOT_FOUND and self._says_so(response) else self._answer(response, what)

    def _send(self, method: str, path: str, body: dict[str, Any], *, what: str) -> dict[str, Any]:
        return self._answer(self._request(method, path, body), what)

    def _request(self, method: str, path: str, body: dict[str, Any] | None) -> httpx.Response:
        import httpx

        try:
            return self._client.request(method, self._url + path, json=body, headers=self._headers, timeout=_TIMEOUT)
        except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as exc:
            reason = str(exc) or type(exc).__name__
            raise UnavailableError(f"Cannot reach Grafana at {self._url} ({reason}).", hint="Look at --url.") from exc

    def _answer(self, response: httpx.Response, what: str) -> dict[str, Any]:
        status = response.status_code
        data = _json(response)
        if status == _OK and isinstance(data, dict):
            return data
        if status == _OK or (status == _NOT_FOUND and not self._says_so(response)):
            raise UnavailableError(f"What answers at {self._url} is no Grafana: {status} without JSON.", hint="Look at --url.")
        said = str(data.get("message", "")) if isinstance(data, dict) else ""
        raise SageObsError(f"Grafana answered {status} about {what}{f': {said}' if said else ''}.", hint=_HINTS.get(status, ""))

    @staticmethod
    def _says_so(response: httpx.Response) -> bool:
        """Whether a 404 is Grafana's own, and not that of another server."""
        return isinstance(_json(response), dict)


def _json(response: httpx.Response) -> Any:
    try:
        return response.json()
    except ValueError:
        return None


def plan(boards: Iterable[Mapping[str, Any]], grafana: Grafana) -> tuple[Step, ...]:
    """What is to be done with each board. Raises RefusedError, before anything is changed, where one there is not ours."""
    return tuple(_step(board, grafana.board(str(board["uid"]))) for board in boards)


def _step(board: Mapping[str, Any], there: Mapping[str, Any] | None) -> Step:
    if there is None:
        return Step(board, Action.CREATE)
    meta, stored = _map(there.get("meta")), _map(there.get("dashboard"))
    _must_be_ours(str(board["uid"]), meta, stored)
    lines = changes(stored, board)
    version, folder = stored.get("version"), meta.get("folderUid")
    return Step(
        board,
        Action.UPDATE if lines else Action.UNCHANGED,
        tuple(lines),
        version if isinstance(version, int) else 0,
        folder if isinstance(folder, str) else "",
    )


def _must_be_ours(uid: str, meta: Mapping[str, Any], stored: Mapping[str, Any]) -> None:
    if meta.get("provisioned") is True:
        raise RefusedError(
            f"{uid} is in Grafana from a file, which would undo what is pushed.", hint="Change the file, or remove it first."
        )
    tags = stored.get("tags")
    if not (isinstance(tags, list) and TAG in tags and MARK in str(stored.get("description", ""))):
        raise RefusedError(
            f"{uid} is in Grafana and is not ours: it has not our tag and mark ({str(stored.get('title', ''))!r}).",
            hint="Nothing was changed. Give that board another uid, or delete it.",
        )


def _map(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def apply(steps: Iterable[Step], grafana: Grafana, *, folder: str, message: str) -> list[tuple[str, str]]:
    """Do it; boards that are new go into the folder with the title `folder`. Returns each saved board's uid and path."""
    wanted = [step for step in steps if step.action is not Action.UNCHANGED]
    if any(step.action is Action.CREATE for step in wanted):
        grafana.ensure_folder(FOLDER_UID, folder)
    return [(step.uid, grafana.save(step, message=message)) for step in wanted]
