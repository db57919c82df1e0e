"""A post-mortem as Markdown for people and as JSON for machines."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Final
from urllib.parse import quote

from sage_obs.files import replace_text
from sage_obs.runbooks.journal import Event
from sage_obs.runbooks.postmortem import Line, PostMortem, Times, draft
from sage_obs.runbooks.records import Exhibit
from sage_obs.runbooks.steps import Result, Situation
from sage_obs.runbooks.words import clock, moment, span
from sage_obs.slo.triggers import Verdict

MARKDOWN: Final = "postmortem.md"
JSON: Final = "postmortem.json"
TO_WRITE: Final = "_To be written by people: the journal records what happened, not why._"


def as_json(found: PostMortem) -> str:
    """The draft for machines."""
    times = found.times
    measured = {
        "deployed_to_detected": times.to_detect,
        "detected_to_mitigated": times.since_detection(times.mitigated),
        "detected_to_verified": times.since_detection(times.verified),
    }
    named = {
        "bad_release": found.bad.version if found.bad else None,
        "good_release": found.restored.version if found.restored else None,
    }
    return json.dumps({**asdict(found), **named, "seconds": measured, "root_cause": None}, indent=2, sort_keys=True) + "\n"


def as_markdown(found: PostMortem) -> str:
    """The draft for people."""
    parts = [
        f"# Post-mortem: {found.service}, {found.severity}\n\nDraft of run `{found.run}`, from its journal (head `{found.journal_head}`).",
        f"## Summary\n\n{found.summary}",
        f"## Releases\n\n{_releases(found)}",
        f"## Impact\n\n{_bullets(found.impact)}",
        f"## Times\n\n{_table(found.times)}",
        f"## Timeline\n\n{_lines(found.timeline)}",
        f"## Evidence\n\n{_bullets(_exhibit(one) for one in found.evidence)}",
        f"## Root cause\n\n{TO_WRITE}",
        f"## Gaps\n\n{_bullets(found.gaps)}",
        "## Action items\n\n" + "\n".join(f"- [ ] {one}" for one in found.actions),
        f"## Lessons\n\n{TO_WRITE}",
    ]
    return "\n\n".join(parts) + "\n"


def _releases(found: PostMortem) -> str:
    bad = f"`{found.bad.version}` ({found.bad.digest})" if found.bad else "not known"
    restored = f"`{found.restored.version}` ({found.restored.digest})" if found.restored else "none"
    return f"- Bad: {bad}\n- Restored: {restored}"


def _bullets(lines: Iterable[str]) -> str:
    return "\n".join(f"- {one}" for one in lines) or "- none"


def _table(times: Times) -> str:
    rows = [
        ("Deployed", times.deployed, None),
        ("Detected", times.detected, times.to_detect),
        ("Mitigated", times.mitigated, times.since_detection(times.mitigated)),
        ("Verified", times.verified, times.since_detection(times.verified)),
    ]
    lines = ["| | when | after |", "|---|---|---|"]
    for name, at, after in rows:
        what = "the deployment" if name == "Detected" else "detection"
        lines.append(f"| {name} | {clock(at) if at else 'not known'} | {f'{span(after)} after {what}' if after is not None else ''} |")
    return "\n".join(lines)


def _lines(timeline: Sequence[Line]) -> str:
    rows = [f"| {moment(one.at)} | {one.text.replace('|', chr(92) + '|')} | {one.entry} `{one.sha256[:12]}` |" for one in timeline]
    return "\n".join(["| when | what | journal entry |", "|---|---|---|", *rows])


def _exhibit(one: Exhibit) -> str:
    if one.error:
        return f"{one.name}: not captured ({one.error})"
    place = f"[{one.file}]({quote(one.file)})" if one.file.endswith(".html") else f"`{one.file}`"  # a page that a browser opens as it is
    return f"{one.name}: {place}, {one.size} bytes, sha256 `{one.sha256}`"


def step(events: Sequence[Event], now: Situation) -> Result:
    """The closing step: write both files into the run's folder. Writing them again is harmless."""
    found, folder = draft(events), now.where()
    replace_text(folder / MARKDOWN, as_markdown(found))
    replace_text(folder / JSON, as_json(found))
    return Result(Verdict.PASS, f"{folder / MARKDOWN}", {"postmortem": str(folder / MARKDOWN)})
