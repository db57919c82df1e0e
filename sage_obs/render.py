"""Write rendered files without losing what somebody else wrote, and tell how a folder differs from what would be rendered.

The rule: a file that is there with other content is overwritten only with `force`. Files are compared before any is written, so a
refused export changes nothing. Rendered files carry `MARK`; one that is no longer rendered is left over, and is reported.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sage_obs.errors import DriftError, SageObsError
from sage_obs.files import replace_text

MARK: Final = "Rendered by sage-obs"
"""Stands in every rendered file, in a comment or a description."""


@dataclass(frozen=True, slots=True)
class Drift:
    """How a folder differs from what would be rendered: relative file names, sorted."""

    missing: tuple[str, ...]
    differing: tuple[str, ...]
    left_over: tuple[str, ...]

    def lines(self) -> list[str]:
        """One line for each difference."""
        kinds = (("missing", self.missing), ("differs", self.differing), ("left over", self.left_over))
        return [f"{kind}: {name}" for kind, names in kinds for name in names]


def drift(out: Path, files: Mapping[str, str]) -> Drift:
    """Compare `files` (relative name → text) with the folder. Raises SageObsError for a file that cannot be read."""
    there = {name: _read(out / name) for name in files}
    return Drift(
        missing=tuple(sorted(name for name, text in there.items() if text is None)),
        differing=tuple(sorted(name for name, text in there.items() if text is not None and text != files[name])),
        left_over=tuple(sorted(_left_over(out, files))),
    )


def check(out: Path, files: Mapping[str, str], *, again: str) -> None:
    """Raise DriftError, naming every difference, unless the folder holds exactly what would be rendered. `again` renders it."""
    if lines := drift(out, files).lines():
        raise DriftError(
            f"{out} is not what would be rendered now ({'; '.join(lines)}).", hint=f"Run `{again}` and delete what is left over."
        )


def export(out: Path, files: Mapping[str, str], *, force: bool, again: str) -> tuple[str, ...]:
    """Write the files that are missing or, with `force`, differ; returns the names written. `again` is the command that forces.

    Raises DriftError, before writing anything, where a file would be overwritten without `force`.
    """
    found = drift(out, files)
    if found.differing and not force:
        raise DriftError(
            f"{out} has other content in {', '.join(found.differing)}; nothing was written.",
            hint=f"Look at what differs, then run `{again}` to overwrite, or choose another folder with --out.",
        )
    names = tuple(sorted((*found.missing, *found.differing)))
    for name in names:
        try:
            replace_text(out / name, files[name])
        except OSError as exc:
            raise _failed("write", out / name, exc) from exc
    return names


def _read(path: Path) -> str | None:
    try:
        return path.read_text()
    except FileNotFoundError:
        return None
    except UnicodeDecodeError:
        return ""
    except OSError as exc:
        raise _failed("read", path, exc) from exc


def _left_over(out: Path, files: Mapping[str, str]) -> Iterable[str]:
    """Files with the mark, of the kinds and in the folders that are rendered into, that are not rendered now."""
    kinds = {(str(Path(name).parent), Path(name).suffix) for name in files}
    for parent, suffix in sorted(kinds):
        for path in sorted((out / parent).glob(f"*{suffix}")):
            name = str(path.relative_to(out))
            if name not in files and MARK in (_read(path) or ""):
                yield name


def _failed(doing: str, path: Path, exc: OSError) -> SageObsError:
    return SageObsError(f"Cannot {doing} {path} ({exc.strerror or exc}).", hint="Choose a folder you may write to with --out.")
