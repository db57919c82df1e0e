"""An incident as somebody writes it down: jobs, their instances, and what each instance goes through."""

from __future__ import annotations

import bisect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from sage_obs.alerts.nodes import Node, read
from sage_obs.alerts.simulation.model import Incident, Series
from sage_obs.alerts.timeline import Instance, Phase, Traffic, input_series
from sage_obs.conventions import REQUEST_OVERHEAD

_KEYS: Final = ("scrape", "ends", "jobs", "series")
_INSTANCE: Final = ("instance", "begins", "phases")
_TRAFFIC: Final = ("requests", "failed", "frustrated", "p95")
_PHASE: Final = ("for", "version", *_TRAFFIC, "probe", "up", "fresh")
_PROBES: Final = {"passing": 1.0, "failing": 0.0, "none": None}
_BOOLEANS: Final = {"true": True, "false": False, "yes": True, "no": False}
_LABEL: Final = r'\s*[A-Za-z_]\w*\s*=\s*(?:"(?:[^"\\]|\\.)*"|\'(?:[^\'\\]|\\.)*\')\s*'
_SERIES: Final = re.compile(rf"[A-Za-z_:][\w:]*\s*(?:\{{(?:{_LABEL}(?:,{_LABEL})*,?\s*)?\}})?", re.ASCII)
_NUMBER: Final = r"(?:(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?|nan|inf)"
_VALUE: Final = re.compile(rf"_(?:x\d+)?|stale|[-+]?{_NUMBER}(?:[-+]{_NUMBER})?(?:x\d+)?", re.ASCII | re.IGNORECASE)
_MOST: Final = 1_000_000
"""Scrapes of one incident: half a year at production's interval, and a typing error beyond that."""


def load(path: Path, *, scrape: float) -> Incident:
    """The incident of a file, whose instances are scraped every `scrape` seconds unless it says otherwise.

    Raises ConfigError, with file and line, for what cannot be understood.
    """
    root = read(path)
    root.only(_KEYS, "an incident")
    content = root.mapping("an incident")
    if "jobs" not in content and "series" not in content:
        raise root.wrong("there is nothing in this incident", hint="It needs `jobs`, or `series` of your own.")
    step = content["scrape"].seconds("scrape") if "scrape" in content else scrape
    if step <= 0:
        raise content["scrape"].wrong("scrape must be more than 0")
    jobs = [(job, tuple(_instances(job, node, step))) for job, node in content["jobs"].mapping("jobs").items()] if "jobs" in content else []
    own = tuple(_own(content["series"])) if "series" in content else ()
    last = max((_end(one) for _, instances in jobs for one in instances), default=0)
    ends = _ticks(content["ends"], "ends", step) if "ends" in content else last
    if not 0 < ends <= _MOST:
        raise content.get("ends", root).wrong(
            f"the incident lasts {ends} scrapes, not between 1 and {_MOST}", hint="Say with `ends: 2h` how long it lasts."
        )
    scripted = (Series(one["series"], one["values"]) for job, instances in jobs for one in input_series(instances, job=job, scrape=step))
    return Incident((*scripted, *own), step, ends * step)


def _end(instance: Instance) -> int:
    return instance.begins + sum(phase.ticks for phase in instance.phases)


def _instances(job: str, node: Node, step: float) -> Iterator[Instance]:
    seen: set[str] = set()
    _label(node, job, "the job's name")
    for one in node.items(f"job {job}"):
        one.only(_INSTANCE, "an instance")
        content = one.mapping("an instance")
        name = (
            _label(content["instance"], content["instance"].text("instance"), "instance")
            if "instance" in content
            else f"{job}-{len(seen) + 1}:9090"
        )
        if name in seen:
            raise one.wrong(f"job {job} has two instances {name}")
        seen.add(name)
        if "phases" not in content:
            raise one.wrong(f"instance {name} needs `phases`")
        phases = content["phases"].items("phases")
        if not phases:
            raise content["phases"].wrong("`phases` is empty")
        begins = _ticks(content["begins"], "begins", step) if "begins" in content else 0
        yield Instance(name, begins, tuple(_phases(phases, step)))


def _label(node: Node, text: str, what: str) -> str:
    """A text that is a label's value as it stands."""
    if set(text) & set('"\\\n'):
        raise node.wrong(f"{what} has a quotation mark, a backslash or a line break")
    return text


def _phases(nodes: tuple[Node, ...], step: float) -> Iterator[Phase]:
    """What a phase does not say stays as it was in the phase before; another version is another process unless it says otherwise."""
    before: dict[str, Node] = {}
    running = ""
    for node in nodes:
        node.only(_PHASE, "a phase")
        said = node.mapping("a phase")
        before = {**before, **said}
        if "for" not in said:
            raise node.wrong("a phase needs `for`, how long it lasts")
        if "version" not in before:
            raise node.wrong("the first phase of an instance needs `version`")
        if not (ticks := _ticks(said["for"], "for", step)):
            raise said["for"].wrong("a phase lasts at least one scrape")
        version = _label(before["version"], before["version"].text("version"), "version")
        yield Phase(
            ticks=ticks,
            version=version,
            traffic=_traffic(before, step),
            probe=_probe(before.get("probe")),
            up=_boolean(before["up"], "up") if "up" in before else True,
            fresh=_boolean(said["fresh"], "fresh") if "fresh" in said else running not in ("", version),
        )
        running = version


def _traffic(said: dict[str, Node], step: float) -> Traffic | None:
    if "requests" in said and said["requests"].value in (None, "none"):
        return None
    usual = Traffic()
    return Traffic(
        requests=_number(said["requests"], "requests", most=1e9) * step if "requests" in said else usual.requests,
        failed=_number(said["failed"], "failed") if "failed" in said else usual.failed,
        frustrated=_number(said["frustrated"], "frustrated") if "frustrated" in said else usual.frustrated,
        p95=_p95(said["p95"]) if "p95" in said else usual.p95,
    )


def _probe(node: Node | None) -> float | None:
    if node is None:
        return 1.0
    text = "none" if node.value is None else node.text("probe")
    if text not in _PROBES:
        raise node.wrong(f"probe is {text!r}, which is none of {', '.join(_PROBES)}")
    return _PROBES[text]


def _boolean(node: Node, what: str) -> bool:
    text = node.text(what).lower()
    if text not in _BOOLEANS:
        raise node.wrong(f"{what} is {text!r}, neither true nor false")
    return _BOOLEANS[text]


def _number(node: Node, what: str, *, most: float = 1.0) -> float:
    """A number from 0 to `most`; `30%` is 0.3."""
    text = node.text(what)
    try:
        value = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError as exc:
        raise node.wrong(f"{what} is {text!r}, which is no number") from exc
    if not 0 <= value <= most:
        raise node.wrong(f"{what} is {text}, which is not from 0 to {most:g}")
    return value


def _p95(node: Node) -> float:
    """Seconds, or a duration such as `40ms`, as near as the histogram's buckets can say it.

    Prometheus interpolates within a bucket, of which the last twentieth is out of reach where all that is slower is in it too.
    """
    text = node.text("p95")
    asked = node.seconds("p95") if text[-1:].isalpha() else _number(node, "p95", most=3600.0)
    bounds = REQUEST_OVERHEAD.buckets
    if not bounds[0] < asked <= bounds[-1]:
        raise node.wrong(f"p95 is {text}, which is not over {bounds[0]:g} s and at most {bounds[-1]:g} s, where the histogram ends")
    above = bisect.bisect_left(bounds, asked)
    lower, upper = bounds[above - 1 : above + 1]
    return min(asked, lower + 0.949 * (upper - lower))


def _ticks(node: Node, what: str, step: float) -> int:
    """A duration in scrapes, of which it must be a multiple."""
    seconds = node.seconds(what)
    ticks = round(seconds / step)
    if abs(ticks * step - seconds) > 1e-6:  # noqa: PLR2004 - what floats lose
        raise node.wrong(f"{what} is {seconds:g} s, which is no multiple of the {step:g} s between two scrapes")
    return ticks


def _own(node: Node) -> Iterator[Series]:
    for one in node.items("series"):
        one.only(("series", "values"), "a series")
        content = one.mapping("a series")
        if len(content) < 2:  # noqa: PLR2004 - both keys
            raise one.wrong("a series needs `series`, its name with labels, and `values`, one for each scrape")
        yield Series(_name(content["series"]), _notated(content["values"]))


def _name(node: Node) -> str:
    """A metric with labels that are all given: `queue_depth{job="shop"}`."""
    text = node.text("series")
    if not _SERIES.fullmatch(text.strip()):
        raise node.wrong(f"{text!r} is no series", hint='A series is such as queue_depth{job="shop", queue="mail"}.')
    return text


def _notated(node: Node) -> str:
    text = node.text("values")
    for token in text.split():
        if not _VALUE.fullmatch(token):
            raise node.wrong(
                f"{token!r} is no value of a series",
                hint="Values are such as 5, 0+10x20 (0 and 20 times 10 more), 5x20, _, _x20 and stale.",
            )
    return text
