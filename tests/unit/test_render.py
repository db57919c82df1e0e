from pathlib import Path

import pytest

from sage_obs.errors import DriftError, SageObsError
from sage_obs.render import MARK, check, drift, export

FILES = {"a.yml": f"# {MARK}\na: 1\n", "tests/b.yml": f"# {MARK}\nb: 2\n"}


def put(folder: Path, **texts: str) -> None:
    """Write `name` with underscores for slashes."""
    for name, text in texts.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(exist_ok=True)
        path.with_suffix(".yml").write_text(text)


def test_an_export_writes_what_is_missing_and_then_nothing(tmp_path: Path) -> None:
    """The names written are returned; a second export has nothing to do, and the check agrees."""
    out = tmp_path / "new" / "folder"
    assert export(out, FILES, force=False, again="x") == ("a.yml", "tests/b.yml")
    assert {name: (out / name).read_text() for name in FILES} == FILES
    assert export(out, FILES, force=False, again="x") == ()
    check(out, FILES, again="x")


def test_other_content_is_kept_without_force(tmp_path: Path) -> None:
    """The export says which file differs, says how to overwrite it, and writes not even what is missing."""
    put(tmp_path, a="mine")
    with pytest.raises(DriftError, match=r"a\.yml") as caught:
        export(tmp_path, FILES, force=False, again="sage-obs x --force")
    assert "sage-obs x --force" in caught.value.hint
    assert [path.name for path in tmp_path.iterdir()] == ["a.yml"]
    assert (tmp_path / "a.yml").read_text() == "mine"


def test_force_overwrites_what_differs_and_leaves_the_rest(tmp_path: Path) -> None:
    """Files that are not rendered stay."""
    put(tmp_path, a="mine", other="kept", tests__b=FILES["tests/b.yml"])
    assert export(tmp_path, FILES, force=True, again="x") == ("a.yml",)
    assert (tmp_path / "a.yml").read_text() == FILES["a.yml"]
    assert (tmp_path / "other.yml").read_text() == "kept"


def test_a_check_names_every_difference_and_writes_nothing(tmp_path: Path) -> None:
    """Missing, differing and left over; what carries no mark is somebody else's."""
    put(tmp_path, a="mine", old=f"# {MARK}\n", foreign="x: 1\n")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(DriftError) as caught:
        check(tmp_path, FILES, again="x")
    for words in ("missing: tests/b.yml", "differs: a.yml", "left over: old.yml"):
        assert words in caught.value.message
    assert "foreign" not in caught.value.message
    assert sorted(tmp_path.rglob("*")) == before


def test_only_kinds_of_files_that_are_rendered_can_be_left_over(tmp_path: Path) -> None:
    """A page that mentions the mark is not one."""
    export(tmp_path, FILES, force=False, again="x")
    (tmp_path / "README.md").write_text(MARK)
    assert drift(tmp_path, FILES).lines() == []


def test_a_binary_file_differs(tmp_path: Path) -> None:
    """What cannot be read as text is other content, not an error."""
    (tmp_path / "a.yml").write_bytes(b"\xff\xfe\x00")
    assert drift(tmp_path, FILES).differing == ("a.yml",)


def test_a_path_that_cannot_be_a_file_is_an_error(tmp_path: Path) -> None:
    """The message names it and says what to choose instead."""
    (tmp_path / "a.yml").mkdir()
    with pytest.raises(SageObsError, match=r"Cannot read .*a\.yml") as caught:
        export(tmp_path, FILES, force=True, again="x")
    assert "--out" in caught.value.hint


def test_a_folder_that_cannot_be_written_to_is_an_error(tmp_path: Path) -> None:
    """The message names the file and the system's reason."""
    (tmp_path / "out").write_text("a file where the folder should be")
    with pytest.raises(SageObsError, match="Not a directory"):
        export(tmp_path / "out", FILES, force=False, again="x")
