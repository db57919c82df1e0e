"""What the operations server answers, apart from how it is served."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import orjson

from sage_obs.conventions import HEALTH_PATHS, METRICS_PATH
from sage_obs.health.board import Board
from sage_obs.metrics.component import MetricsComponent

JSON = "application/json"
_TEXT = "text/plain; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Page:
    """An answer: status, body and headers."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Asked:
    """A GET request: names of headers are lower case, `client` is an address, `gone` tells whether nobody waits for the answer any more."""

    path: str
    query: str
    headers: Mapping[str, str]
    client: str
    gone: Callable[[], bool]


class Pages(Protocol):
    """Something that answers GET requests."""

    def answer(self, asked: Asked) -> Page:
        """The page that was asked for."""


class OpsPages:
    """Metrics and health, each only where it is switched on."""

    def __init__(self, *, board: Board | None, metrics: MetricsComponent | None) -> None:
        self._board = board
        self._metrics = metrics

    def answer(self, asked: Asked) -> Page:
        """Metrics as the scraper likes them, a probe's state, or what there is else."""
        path, headers = asked.path, asked.headers
        if self._metrics is not None:
            self._metrics.look()
        if path == METRICS_PATH and self._metrics is not None:
            shown = self._metrics.expose(accept=headers.get("accept", ""), accept_encoding=headers.get("accept-encoding", ""))
            coding = {"content-encoding": shown.encoding} if shown.encoding else {}
            return Page(200, shown.body, {"content-type": shown.content_type, "vary": "accept, accept-encoding", **coding})
        if path in HEALTH_PATHS and self._board is not None:
            answer = self._board.answer(HEALTH_PATHS[path])
            return Page(answer.status, orjson.dumps(answer.body), {"content-type": JSON, "cache-control": "no-store"})
        return self._not_found()

    def _not_found(self) -> Page:
        offered = ([METRICS_PATH] if self._metrics is not None else []) + (list(HEALTH_PATHS) if self._board is not None else [])
        return Page(404, f"There is nothing here; try {', '.join(offered)}.\n".encode(), {"content-type": _TEXT})
