"""Release folders of the local platform."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from sage_obs.errors import PlatformError
from sage_obs.platforms.local import releases


def _create(root: Path, version: str = "1.0", config: str = "a: 1") -> releases.StoredRelease:
    return releases.create(root, version, command=["python", "-m", "x", "{release}/config.yaml"], files={"config.yaml": config})


def test_a_release_is_stored_with_its_content_and_command(tmp_path: Path) -> None:
    """The folder holds the files, and the command has the folder filled in."""
    stored = _create(tmp_path)
    assert (stored.folder / "config.yaml").read_text() == "a: 1"
    assert stored.argv()[-1] == f"{stored.folder}/config.yaml"
    assert releases.versions(tmp_path) == ("1.0",)


def test_the_digest_is_of_the_content_not_of_the_name(tmp_path: Path) -> None:
    """Equal content has an equal digest under any version; other content has another."""
    first, same, other = _create(tmp_path, "1"), _create(tmp_path, "2"), _create(tmp_path, "3", "a: 2")
    assert first.digest == same.digest != other.digest


def test_storing_the_same_content_again_is_harmless_and_other_content_is_refused(tmp_path: Path) -> None:
    """A release never changes under its name, and no scratch folder stays behind."""
    first = _create(tmp_path)
    assert _create(tmp_path) == first
    with pytest.raises(PlatformError, match="exists with other content"):
        _create(tmp_path, config="a: 2")
    assert [path.name for path in (tmp_path / "releases").iterdir()] == ["1.0"]


@pytest.mark.parametrize("version", ["", "../x", "a/b", ".hidden", "x" * 65, "a b", "-rf"])
def test_a_version_that_is_no_plain_name_is_refused(tmp_path: Path, version: str) -> None:
    """A version becomes a folder's name, so it cannot lead elsewhere."""
    with pytest.raises(PlatformError, match="cannot be a release's version"):
        _create(tmp_path, version)


def _edit_config(folder: Path) -> None:
    (folder / "config.yaml").write_text("a: 2")


def _add_file(folder: Path) -> None:
    (folder / "extra").write_text("")


def _drop_manifest(folder: Path) -> None:
    (folder / "release.json").unlink()


def _cut_manifest(folder: Path) -> None:
    (folder / "release.json").write_text('{"version": "1.0"')


def _strip_manifest(folder: Path) -> None:
    (folder / "release.json").write_text('{"version": "1.0"}')


def _swap_command(folder: Path) -> None:
    manifest = json.loads((folder / "release.json").read_text())
    (folder / "release.json").write_text(json.dumps({**manifest, "command": ["rm"]}))


@pytest.mark.parametrize("damage", [_edit_config, _add_file, _drop_manifest, _cut_manifest, _strip_manifest, _swap_command])
def test_a_damaged_folder_is_called_corrupt(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    """Whatever is wrong with a folder, it is found before anything is started from it."""
    damage(_create(tmp_path).folder)
    with pytest.raises(PlatformError, match=r"Release folder .*1\.0 is corrupt"):
        releases.load(tmp_path, "1.0")


def test_storing_a_release_again_mends_a_corrupt_folder(tmp_path: Path) -> None:
    """What the message about a corrupt folder advises works, and what a crash left half-made is swept away."""
    stored = _create(tmp_path)
    _edit_config(stored.folder)
    (tmp_path / "releases/.new-left").mkdir()
    assert _create(tmp_path) == stored
    assert [path.name for path in (tmp_path / "releases").iterdir()] == ["1.0"]


def test_a_missing_release_is_named(tmp_path: Path) -> None:
    """The message says which version is missing and where it was looked for."""
    with pytest.raises(PlatformError, match=r"no release 9\.9"):
        releases.load(tmp_path, "9.9")
