"""Release folders: `releases/<version>/` with the files a release is made of and a `release.json` that says how to start it.

A folder is complete or absent (it is renamed into place), never changed afterwards, and its digest covers everything in it.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sage_obs.errors import PlatformError
from sage_obs.files import locked, replace_text

MANIFEST: Final = "release.json"
_VERSION: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}", re.ASCII)


@dataclass(frozen=True, slots=True)
class StoredRelease:
    """A release as it lies on disk. In `command`, `{release}` stands for its folder."""

    version: str
    digest: str
    folder: Path
    command: tuple[str, ...]
    environment: Mapping[str, str]

    def argv(self) -> list[str]:
        """The command with the folder filled in."""
        return [part.replace("{release}", str(self.folder)) for part in self.command]


def create(
    root: Path, version: str, *, command: Sequence[str], files: Mapping[str, str], environment: Mapping[str, str] | None = None
) -> StoredRelease:
    """Store a release under `root`/releases. Storing the same content again is harmless, and mends a folder that was corrupt.

    Raises PlatformError for a version that is no plain name, or that exists with other content.
    """
    if not _VERSION.fullmatch(version):
        raise PlatformError(f"`{version}` cannot be a release's version.", hint="Use letters, digits, dots, dashes, up to 64 of them.")
    releases = root / "releases"
    with locked(root / ".releases.lock"):
        releases.mkdir(parents=True, exist_ok=True)
        _sweep(releases)
        _store(releases, version, {"version": version, "command": list(command), "environment": dict(environment or {})}, files)
    return load(root, version)


def _sweep(releases: Path) -> None:
    """Remove what a crash left half-made."""
    for left in releases.glob(".new-*"):
        shutil.rmtree(left, ignore_errors=True)


def _store(releases: Path, version: str, manifest: dict[str, object], files: Mapping[str, str]) -> None:
    scratch = Path(tempfile.mkdtemp(dir=releases, prefix=".new-"))
    try:
        for name, text in files.items():
            replace_text(scratch / name, text)
        manifest["digest"] = _digest(scratch, manifest)
        replace_text(scratch / MANIFEST, json.dumps(manifest, indent=2, sort_keys=True) + "\n")
        scratch.chmod(0o755)
        _publish(scratch, releases / version, str(manifest["digest"]))
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _publish(scratch: Path, folder: Path, digest: str) -> None:
    if not folder.exists():
        scratch.rename(folder)
        return
    try:
        stored = load(folder.parent.parent, folder.name)
    except PlatformError:
        shutil.rmtree(folder)
        scratch.rename(folder)
        return
    if stored.digest != digest:
        raise PlatformError(f"Release {folder.name} exists with other content.", hint="Releases never change: choose another version.")


def load(root: Path, version: str) -> StoredRelease:
    """Read a release and verify its digest. Raises PlatformError when it is missing, unreadable or not what was stored."""
    folder = (root / "releases" / version).absolute()
    if not _VERSION.fullmatch(version) or not folder.is_dir():
        raise PlatformError(f"There is no release {version} in {root / 'releases'}.", hint="`sage-obs release list` shows those there are.")
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        stored = StoredRelease(
            version=manifest["version"],
            digest=manifest["digest"],
            folder=folder,
            command=tuple(manifest["command"]),
            environment=dict(manifest["environment"]),
        )
        actual = _digest(folder, manifest)
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise _corrupt(folder, f"{MANIFEST} cannot be read ({type(exc).__name__})") from exc
    if stored.version != version or stored.digest != actual:
        raise _corrupt(folder, "its content is not what was stored")
    return stored


def _corrupt(folder: Path, reason: str) -> PlatformError:
    return PlatformError(
        f"Release folder {folder} is corrupt: {reason}.", hint="It cannot be run or rolled back to. Create it again, or remove it."
    )


def _digest(folder: Path, manifest: Mapping[str, object]) -> str:
    """SHA-256 over the start command, the environment and every file; the version is a name, not content."""
    content = hashlib.sha256(json.dumps([manifest["command"], manifest["environment"]], sort_keys=True).encode())
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST):
        content.update(f"\0{path.relative_to(folder)}\0".encode())
        content.update(hashlib.sha256(path.read_bytes()).digest())
    return f"sha256:{content.hexdigest()}"


def versions(root: Path) -> tuple[str, ...]:
    """The names of the release folders, intact or not, sorted."""
    releases = root / "releases"
    return (
        tuple(sorted(path.name for path in releases.iterdir() if path.is_dir() and _VERSION.fullmatch(path.name)))
        if releases.is_dir()
        else ()
    )
