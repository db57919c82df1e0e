"""Profiles as speedscope.app reads them: its file format, evented by samples, one profile for each kind."""

from __future__ import annotations

from typing import Any, Final

import orjson

from sage_obs.profiling.profile import Frame, Kind, Profile, folded

_SCHEMA: Final = "https://www.speedscope.app/file-format-schema.json"
_UNITS: Final = {"nanoseconds": "nanoseconds", "bytes": "bytes"}


def encode(profile: Profile, *, title: str = "profile") -> bytes:
    """The file. Of a difference only what grew is in it: there are no negative weights."""
    frames: dict[Frame, int] = {}
    stacks = [[frames.setdefault(frame, len(frames)) for frame in reversed(sample.stack)] for sample in profile.samples]
    data = {
        "$schema": _SCHEMA,
        "name": title,
        "exporter": "sage-obs",
        "activeProfileIndex": profile.position(),
        "shared": {"frames": [{"name": one.name, "file": one.file, "line": one.line} for one in frames]},
        "profiles": [_one(profile, kind, at, stacks) for at, kind in enumerate(profile.kinds)],
    }
    return orjson.dumps(data)


def _one(profile: Profile, kind: Kind, at: int, stacks: list[list[int]]) -> dict[str, Any]:
    weights = [max(0, sample.values[at]) for sample in profile.samples]
    return {
        "type": "sampled",
        "name": f"{kind.type} ({kind.unit})",
        "unit": _UNITS.get(kind.unit, "none"),
        "startValue": 0,
        "endValue": sum(weights),
        "samples": stacks,
        "weights": weights,
    }


def decode(data: bytes) -> Profile:
    """A file of sampled profiles that were taken together. Raises ValueError for anything else."""
    try:
        return _read(orjson.loads(data))
    except (KeyError, TypeError, IndexError, AttributeError) as exc:
        raise ValueError("it is no sampled speedscope file") from exc


def _read(tree: Any) -> Profile:
    frames = [Frame(str(one["name"]), str(one.get("file") or ""), 0, int(one.get("line") or 0)) for one in tree["shared"]["frames"]]
    profiles = tree["profiles"]
    if not profiles or any(one["type"] != "sampled" or one["samples"] != profiles[0]["samples"] for one in profiles):
        raise ValueError("its profiles are not of the same samples")
    kinds = tuple(_kind(str(one["name"]), str(one["unit"])) for one in profiles)
    stacks = [tuple(frames[at] for at in reversed(stack)) for stack in profiles[0]["samples"]]
    values = zip(*([round(weight) for weight in one["weights"]] for one in profiles), strict=True)
    samples = folded((stack, numbers, ()) for stack, numbers in zip(stacks, values, strict=True))
    return Profile(kinds, samples, kinds[int(tree.get("activeProfileIndex") or 0)].type)


def _kind(name: str, unit: str) -> Kind:
    """The unit is in the name where speedscope has none like it."""
    type_, _, rest = name.partition(" (")
    return Kind(type_, rest.removesuffix(")") if rest else ("count" if unit == "none" else unit))
