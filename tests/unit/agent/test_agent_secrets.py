"""Secrets that are kept in files."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
from pathlib import Path

import pytest

from sage_agent import config
from sage_agent.config import AgentConfig
from sage_agent.rotation import Rotation
from sage_agent.secrets import FileSource, Secret, SecretError, Secrets, source_of
from sage_obs.errors import ConfigError

_ASKING = {"SAGE_LLM_PROVIDER": "anthropic", "SAGE_LLM_MODEL": "m"}


def _write(path: Path, text: str) -> Path:
    """Replace a file, as whoever rotates a secret does."""
    new = path.with_name(f"{path.name}.new")
    new.write_text(text)
    return new.rename(path)


def test_a_secret_is_read_anew_when_its_file_changes(tmp_path: Path) -> None:
    """What it is now is known after a look, and a look that finds nothing new says so."""
    secret = Secret("name", FileSource(str(_write(tmp_path / "key", "one\n"))))
    assert secret.current() == "one"
    assert not secret.refresh()
    _write(tmp_path / "key", "two\n")
    assert secret.current() == "one"
    assert secret.refresh()
    assert secret.current() == "two"
    assert "two" not in repr(secret)


def test_a_switched_link_is_a_change(tmp_path: Path) -> None:
    """Kubernetes writes a new folder and switches `..data` to it: the file itself is a link through that."""
    for name, text in (("..first", "one"), ("..second", "two")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "key").write_text(text)
    os.utime(tmp_path / "..second" / "key", ns=(1, 1))
    os.utime(tmp_path / "..first" / "key", ns=(1, 1))
    (tmp_path / "..data").symlink_to("..first")
    (tmp_path / "key").symlink_to("..data/key")
    secret = Secret("name", FileSource(str(tmp_path / "key")))
    (tmp_path / "..tmp").symlink_to("..second")
    (tmp_path / "..tmp").rename(tmp_path / "..data")
    assert secret.refresh()
    assert secret.current() == "two"


@pytest.mark.parametrize("how", ["gone", "empty", "binary", "long"])
def test_a_secret_that_cannot_be_read_anew_stays(tmp_path: Path, how: str, caplog: pytest.LogCaptureFixture) -> None:
    """The last good value is kept, its age grows, the failure is logged once, and the next good one is taken."""
    now = [0.0]
    secret = Secret("name", FileSource(str(_write(tmp_path / "key", "sk-good"))), clock=lambda: now[0])
    if how == "gone":
        (tmp_path / "key").unlink()
    else:
        (tmp_path / "key").write_bytes({"empty": b"\n", "binary": b"\xff", "long": b"x" * 70_000}[how])
    for now[0] in (10.0, 20.0):
        assert not secret.refresh()
    assert (secret.current(), secret.age()) == ("sk-good", 20.0)
    assert len(caplog.records) == 1
    assert "sk-good" not in str(caplog.records[0].__dict__)
    _write(tmp_path / "key", "sk-new")
    assert secret.refresh()
    assert (secret.current(), secret.age()) == ("sk-new", 0.0)


@pytest.mark.parametrize("text", ["sk-1", "postgresql://u:p@h/db", "redis://h", "https://h/hook", "a:b", "", "File:/x"])
def test_what_is_no_reference_is_the_secret_itself(text: str) -> None:
    """Addresses and keys with a colon are taken as they are."""
    assert source_of(text) is None


@pytest.mark.parametrize("text", ["vault:the/path", "aws-sm:the/path", "gcp-sm:the/path", "azure-kv:the/path", "keychain://the/path"])
def test_a_store_that_nobody_reads_is_an_error(text: str) -> None:
    """It names what there is, and not what stands behind the scheme."""
    with pytest.raises(SecretError, match="this version has `file:`") as error:
        source_of(text)
    assert "the/path" not in str(error.value)


@pytest.mark.parametrize(
    ("path", "expected"), [("/a/b", "/a/b"), ("///a/b", "/a/b"), ("b", "b")], ids=["a path", "a file address", "beside the process"]
)
def test_a_file_is_named_as_a_path_or_an_address(path: str, expected: str) -> None:
    """`file:/a/b` and `file:///a/b` are the same file."""
    assert FileSource(path).place == f"file {expected}"


def test_every_way_to_name_a_file_reads_it(tmp_path: Path) -> None:
    """`*_FILE`, a reference in the environment, in the file, in lists and through a variable; the source says which file it is."""
    for name in ("own", "one", "two", "fallback", "db"):
        _write(tmp_path / name, f"{name}-secret\n")
    _write(tmp_path / "db", "postgresql://u:db-secret@h/db")
    _write(
        tmp_path / "config.yaml",
        f"""
llm:
  api_key: ${{MY_KEY}}
  api_keys: ["file:{tmp_path}/one", plain, "file://{tmp_path}/two"]
  fallbacks: [{{provider: gemini, model: g, api_key: "file:{tmp_path}/fallback"}}]
storage:
  connection_string: file:{tmp_path}/db
""",
    )
    environ = {**_ASKING, "MY_KEY": f"file:{tmp_path}/own", "OPENAI_API_KEY_FILE": str(tmp_path / "one")}
    loaded = config.load(file=tmp_path / "config.yaml", environ=environ)
    first, second = loaded.llm.targets
    assert first.api_keys == ("own-secret", "one-secret", "plain", "two-secret")
    assert second.api_keys == ("fallback-secret",)
    assert loaded.state.kind == "postgres"
    assert "db-secret" in loaded.state.url
    assert loaded.settings["llm.openai.api_key"].source == f"environment OPENAI_API_KEY: file {tmp_path}/one"
    assert loaded.settings["storage.connection_string"].source.endswith(f"storage.connection_string: file {tmp_path}/db")
    assert "-secret" not in f"{loaded!r}"


def test_a_file_may_hold_a_list(tmp_path: Path) -> None:
    """`SAGE_LLM_API_KEYS_FILE` holds keys, and its own path may have a comma."""
    _write(tmp_path / "a,b", "k1, k2\n")
    loaded = config.load(file=None, environ={**_ASKING, "SAGE_LLM_API_KEYS_FILE": str(tmp_path / "a,b")})
    assert loaded.llm.first.api_keys == ("k1", "k2")


def test_a_secret_of_a_file_is_checked_as_any_other(tmp_path: Path) -> None:
    """What is in the file has to be what the setting takes, and the error does not show it."""
    _write(tmp_path / "db", "mysql://u:hunter2@h")
    with pytest.raises(ConfigError, match="SAGE_DB_CONNECTION_STRING") as error:
        config.load(file=None, environ={"SAGE_DB_CONNECTION_STRING_FILE": str(tmp_path / "db")})
    assert "hunter2" not in f"{error.value} {error.value.hint}"


def test_a_key_of_a_caller_can_be_in_a_file(tmp_path: Path) -> None:
    """The digest that is kept is the key's and not the reference's, in the file as in the environment."""
    _write(tmp_path / "key", "caller-key-0123456789\n")
    entry = {"id": "ci", "key": f"file:{tmp_path}/key"}
    (tmp_path / "config.yaml").write_text(json.dumps({"security": {"api_keys": [entry]}}))
    for loaded in (
        config.load(file=tmp_path / "config.yaml", environ={}),
        config.load(file=None, environ={"SAGE_API_KEYS": json.dumps([entry])}),
    ):
        (known,) = loaded.security.api_keys
        assert known.sha256 == hashlib.sha256(b"caller-key-0123456789").hexdigest()


def _rotation(tmp_path: Path) -> tuple[Rotation, list[AgentConfig]]:
    environ = {**_ASKING, "ANTHROPIC_API_KEY_FILE": str(tmp_path / "key")}
    given: list[AgentConfig] = []
    return Rotation(config.load(file=None, environ=environ), given.append), given


def test_a_rotated_key_reaches_whoever_uses_it(tmp_path: Path) -> None:
    """Nobody is told as long as nothing changes; then everybody is given the configuration with the new key, once."""
    _write(tmp_path / "key", "one")
    rotation, given = _rotation(tmp_path)

    async def main() -> None:
        await rotation.look()
        assert given == []
        _write(tmp_path / "key", "two")
        await rotation.look()
        await rotation.look()

    asyncio.run(main())
    assert [one.llm.first.api_keys for one in given] == [("two",)]


def test_a_configuration_that_cannot_be_used_changes_nothing_until_it_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A file that is broken while a secret changes is looked at again, and complained about once."""
    monkeypatch.chdir(tmp_path)
    _write(tmp_path / "key", "one")
    rotation, given = _rotation(tmp_path)

    async def main() -> None:
        _write(tmp_path / "key", "two")
        _write(tmp_path / "config.yaml", "llm: [")
        await rotation.look()
        await rotation.look()
        assert given == []
        assert len(caplog.records) == 1
        _write(tmp_path / "config.yaml", "")
        await rotation.look()

    asyncio.run(main())
    assert [one.llm.first.api_keys for one in given] == [("two",)]


def test_a_secret_that_looks_like_a_reference_is_in_no_error() -> None:
    """What stands before `://` is named where it is a store that is known by name, and may be half a password elsewhere."""
    with pytest.raises(SecretError, match="`vault:`"):
        source_of("vault:secret/agent")
    with pytest.raises(SecretError, match="no reader for secrets in that store") as error:
        source_of("hunter2://x")
    assert "hunter2" not in str(error.value)


def test_whatever_goes_wrong_with_a_new_secret_the_next_one_is_used(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A defect of whoever is given it does not end the looking; its words, which may quote the secret, are not logged."""
    _write(tmp_path / "key", "one")
    environ, given = {**_ASKING, "ANTHROPIC_API_KEY_FILE": str(tmp_path / "key")}, []

    def apply(renewed: AgentConfig) -> None:
        (key,) = renewed.llm.first.api_keys
        if key == "two":
            raise RuntimeError(f"cannot use {key}")
        given.append(key)

    rotation = Rotation(config.load(file=None, environ=environ), apply)

    async def main() -> None:
        for key in ("two", "two", "three"):
            _write(tmp_path / "key", key)
            await rotation.look()

    asyncio.run(main())
    assert given == ["three"]
    assert [getattr(record, "reason", "") for record in caplog.records if record.levelname == "WARNING"] == ["RuntimeError"]


def test_without_secrets_elsewhere_nothing_runs() -> None:
    """A configuration of plain values costs nothing."""
    loaded = config.load(file=None, environ={"OPENAI_API_KEY": "sk-1"})
    assert len(loaded.secrets) == 0
    asyncio.run(asyncio.wait_for(Rotation(loaded, lambda _: None).run(), 1.0))


def test_secrets_of_one_setting_have_one_age(tmp_path: Path) -> None:
    """The metric's label is the setting: of several files the longest age counts."""
    now = [0.0]
    secrets = Secrets(clock=lambda: now[0])
    for name in "ab":
        _write(tmp_path / name, name)
        assert secrets.find("llm.api_keys", f"file:{tmp_path}/{name}") is not None
    (tmp_path / "a").unlink()
    now[0] = 7.0
    assert not secrets.refresh()
    assert secrets.ages() == {"llm.api_keys": 7.0}
