"""Distributions with entry points, made up in a folder that a program has on its path."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path


def distribution(folder: Path, name: str, entry_points: Mapping[str, str], *, version: str = "1.0", source: str = "") -> None:
    """Write `name`, with a module of its name (`-` is `_`) and entry points: group → `name = value`."""
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (info / "entry_points.txt").write_text("".join(f"[{group}]\n{line}\n" for group, line in entry_points.items()))
    if source:
        (folder / f"{name.replace('-', '_')}.py").write_text(source)
