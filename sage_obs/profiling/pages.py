"""/debug/pprof/* as Go serves it: who may ask, how many at once, what comes back, and a log line for each."""

from __future__ import annotations

import html
import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from http import HTTPStatus
from typing import Final

import orjson

from sage_obs.ops.pages import Asked, Page
from sage_obs.privacy.redaction import redact_text, secret_name
from sage_obs.profiling import tasks
from sage_obs.profiling.formats import SUFFIXES, TYPES, listing, written
from sage_obs.profiling.guard import Guard
from sage_obs.profiling.heap import Busy
from sage_obs.profiling.parameters import BadParameterError, Parameters, parse
from sage_obs.profiling.profile import Profile
from sage_obs.profiling.siblings import Siblings
from sage_obs.profiling.sources import Sources

_log = logging.getLogger("sage_obs.profiling")
PREFIX: Final = "/debug/pprof/"
MOST_AT_ONCE: Final = 16
"""Profiles being taken at one time; who comes on top is asked to come again."""
_RETRY_SECONDS: Final = "5"
_TEXT: Final = "text/plain; charset=utf-8"
_PLAIN: Final = {"content-type": _TEXT, "x-content-type-options": "nosniff", "cache-control": "no-store"}
_REFUSALS_SECONDS: Final = 1.0
"""Between log lines about callers who are not let in."""
PROFILES: Final = {
    "profile": "what the processor is used for, or with mode=wall where time passes, over seconds=30",
    "heap": "memory by type; with seconds=N what is allocated meanwhile and kept, by line",
    "allocs": "the same",
    "goroutine": "asyncio tasks and threads by where they stand, with debug=2 each for itself",
    "block": "what held event loops up",
    "mutex": "which locks were waited for",
    "threadcreate": "threads by what they were started to run",
}


class ProfilePages:
    """Answers for one process, and passes on what is asked of a sibling."""

    def __init__(self, sources: Sources, guard: Guard, siblings: Siblings) -> None:
        self._sources = sources
        self._guard = guard
        self._siblings = siblings
        self._turns = threading.BoundedSemaphore(MOST_AT_ONCE)
        self._refused_at = 0.0

    def answer(self, asked: Asked) -> Page:
        """The page, and a line in the log about who had it."""
        if (refusal := self._guard.refusal(asked.headers)) is not None:
            self._note_refusal(asked, refusal.why)
            challenge = {"www-authenticate": 'Basic realm="profiles", charset="UTF-8"'} if refusal.status == HTTPStatus.UNAUTHORIZED else {}
            return _error(refusal.status, refusal.why, challenge)
        if not asked.path.startswith(PREFIX):
            return self._elsewhere(asked)
        name, began = asked.path.removeprefix(PREFIX), time.monotonic()
        page = self._page(name, asked)
        fields = {"profile": name or "index", "client": asked.client, "status": page.status, "bytes": len(page.body)}
        _log.info("profile fetched", extra={**fields, "seconds": round(time.monotonic() - began, 3)})
        return page

    def _note_refusal(self, asked: Asked, why: str) -> None:
        now = time.monotonic()
        if now - self._refused_at > _REFUSALS_SECONDS:
            self._refused_at = now
            _log.warning("profile refused", extra={"client": asked.client, "why": why})

    @staticmethod
    def _elsewhere(asked: Asked) -> Page:
        if asked.path in {"/", PREFIX.rstrip("/")}:
            return Page(301, b"", {"location": PREFIX})
        return _error(404, f"There is nothing here; try {PREFIX}.")

    def _page(self, name: str, asked: Asked) -> Page:
        try:
            parameters = parse(asked.query, lenient=name == "profile")
        except BadParameterError as exc:
            return _error(400, str(exc))
        if parameters.pid not in {None, os.getpid()}:
            return self._siblings.ask(parameters.pid or 0, asked) or _error(404, self._siblings.words(parameters.pid or 0))
        if name in PROFILES:
            return self._profile(name, parameters, asked.gone)
        simple = {"": self._index, "cmdline": _cmdline, "symbol": _symbol, "trace": _trace, "tasks": _tasks}
        return simple[name]() if name in simple else _error(404, "Unknown profile")

    def _profile(self, name: str, parameters: Parameters, gone: Callable[[], bool]) -> Page:
        if not self._turns.acquire(blocking=False):
            return _error(503, f"{MOST_AT_ONCE} profiles are being taken; try again in {_RETRY_SECONDS} s", {"retry-after": _RETRY_SECONDS})
        try:
            if name == "goroutine" and parameters.debug:
                return Page(200, tasks.listing(tasks.waiting(), each=parameters.debug > 1).encode("utf-8", "replace"), _PLAIN)
            profile = self._sources.take(name, parameters, gone)
        except Busy as exc:
            return _error(409, f"{exc}.", {"retry-after": str(int(exc.seconds) + 1)})
        finally:
            self._turns.release()
        if profile is None:
            return _error(503, "the profile was given up: the client has left, or profiling ends")
        return _shown(name, profile, parameters)

    def _index(self) -> Page:
        rows = "".join(f"<tr><td>{_links(name)}</td><td>{html.escape(words)}</td></tr>" for name, words in PROFILES.items())
        others = "".join(f'<li><a href="?pid={pid}">{pid}</a></li>' for pid in self._siblings.pids())
        processes = f"<h2>Other processes of this service</h2><ul>{others}</ul>" if others else ""
        return Page(200, _INDEX.format(pid=os.getpid(), rows=rows, processes=processes).encode(), {**_PLAIN, **_HTML})


_HTML: Final = {"content-type": "text/html; charset=utf-8", "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'"}
_INDEX: Final = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>/debug/pprof/</title>
<style>body {{ font: 14px/1.5 system-ui, sans-serif; margin: 1.5rem; }} td {{ padding: .1rem 1rem .1rem 0; }}</style></head>
<body><h1>/debug/pprof/</h1>
<p>Process {pid}. A link of the first kind is a file for <code>go tool pprof</code>, <em>flame graph</em> a page.</p>
<table>{rows}</table>
<p><a href="tasks">tasks</a> as JSON, <a href="goroutine?debug=2">every task and thread</a> as text,
<a href="profile?mode=wall&amp;seconds=5&amp;format=flamegraph">where 5 seconds go</a>, <a href="cmdline">command line</a>.</p>
{processes}</body></html>
"""


def _links(name: str) -> str:
    seconds = "seconds=5&amp;" if name == "profile" else ""
    return f'<a href="{name}">{name}</a></td><td><a href="{name}?{seconds}format=flamegraph">flame graph</a>'


def _shown(name: str, profile: Profile, parameters: Parameters) -> Page:
    if parameters.debug:
        return Page(200, listing(profile, name).encode("utf-8", "replace"), _PLAIN)
    form = parameters.format
    headers = {**_PLAIN, "content-type": TYPES[form]}
    if form != "flamegraph":
        headers["content-disposition"] = f'attachment; filename="{name}{SUFFIXES[form] if form != "pprof" else ""}"'
    return Page(200, written(profile, form, title=f"{name} of process {os.getpid()}"), headers)


def _error(status: int, why: str, more: dict[str, str] | None = None) -> Page:
    """With the header that makes `go tool pprof` print the reason, and not the status alone."""
    return Page(status, f"{why}\n".encode("utf-8", "replace"), {**_PLAIN, "x-go-pprof": "1", **(more or {})})


def _symbol() -> Page:
    return Page(200, b"num_symbols: 0\n", _PLAIN)  # profiles have their names in them


def _trace() -> Page:
    return _error(
        501, "There is no execution trace of a Python process; profile?mode=wall shows where time passes, and block what held loops up."
    )


def _tasks() -> Page:
    return Page(200, orjson.dumps(tasks.tree(tasks.waiting())), {**_PLAIN, "content-type": "application/json"})


def _cmdline() -> Page:
    return Page(200, "\0".join(redacted(sys.orig_argv)).encode("utf-8", "replace"), _PLAIN)


def redacted(words: list[str]) -> list[str]:
    """A command line without secrets: neither those that are seen to be, nor what follows an option with a secret's name."""
    shown: list[str] = []
    for before, word in zip(["", *words], words, strict=False):
        hidden = before.startswith("-") and "=" not in before and secret_name(before.lstrip("-").replace("-", "_"))
        shown.append("[REDACTED]" if hidden and not word.startswith("-") else redact_text(word))
    return shown
