"""The pages of `docs`, executed and compared with what they are about."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from sage_agent import config
from sage_obs import semconv, testing
from sage_obs.cli import run
from sage_obs.errors import ExitCode
from sage_obs.privacy.content import LEVELS
from sage_obs.profiling.pages import PROFILES
from sage_obs.settings import OPTIONS
from tests.support.pprof import GUIDE_LINES

DOCS = Path(__file__).parents[2] / "docs"


def test_what_the_page_on_content_says_to_verify_holds() -> None:
    """The block under Verify runs as it stands."""
    page = (DOCS / "how-to/capture-content.md").read_text()
    block = page.partition("## Verify")[2].partition("```python\n")[2].partition("```")[0]
    try:
        exec(block, {"sage_obs": __import__("sage_obs")})  # noqa: S102 - it is ours
    finally:
        testing.reset()


def test_what_the_page_on_profiling_says_to_verify_holds(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The block under Verify runs as it stands and prints what the page says, but for the ports, which others may have."""
    monkeypatch.setenv("SAGE_METRICS_PORT", "0")
    monkeypatch.setenv("SAGE_PROFILING_PORT", "0")
    block = _page("profile-a-service").partition("## Verify")[2].partition("```python\n")[2].partition("```")[0]
    try:
        exec(block, {"sage_obs": __import__("sage_obs")})  # noqa: S102 - it is ours
    finally:
        testing.reset()
    printed = capsys.readouterr().out
    assert re.search(r"on: http://127\.0\.0\.1:\d+/debug/pprof/; ticks: SIGPROF, on processor time", printed)


def test_the_page_on_profiling_has_the_guides_lines_every_profile_and_every_variable() -> None:
    """The lines are those that the tests run; what is added is described."""
    page = _page("profile-a-service")
    assert GUIDE_LINES in page
    assert all(f"`{name}`" in page for name in PROFILES)
    for name, option in OPTIONS.items():
        if name.startswith("profiling"):
            assert all(variable in page or variable.removeprefix("SAGE_PROFILING") in page for variable in option.env)


def _page(name: str) -> str:
    return (DOCS / f"how-to/{name}.md").read_text()


def test_the_page_on_content_has_every_level() -> None:
    """A level that is added is described."""
    page = (DOCS / "how-to/capture-content.md").read_text()
    assert re.findall(r"^\| `(\w+)`", page, re.MULTILINE) == list(LEVELS)


@pytest.mark.parametrize(
    "name", sorted({value for value in vars(semconv).values() if isinstance(value, str) and value.startswith("gen_ai.")})
)
def test_the_reference_has_every_attribute(name: str) -> None:
    """Today's names are all there, and beside those that had another one, that."""
    page = (DOCS / "reference/genai.md").read_text()
    assert f"`{name}`" in page
    if name in semconv.OLDER:
        assert re.search(rf"\| `{re.escape(name)}` \| `{re.escape(semconv.OLDER[name])}`", page)


def test_the_page_on_agents_calling_agents_shows_settings_that_can_be_served_with(tmp_path: Path) -> None:
    """Its YAML is read, and lets in whom it says."""
    file = tmp_path / "config.yaml"
    file.write_text(_page("agent-to-agent").partition("```yaml\n")[2].partition("```")[0])
    did = config.load(file=file, environ={}).did
    assert (did.mode, [caller.role.name for caller in did.callers]) == ("required", ["OPERATOR", "OPERATOR"])
    assert did.callers[1].matches("did:web:agents.example:clerk")


def test_what_the_page_on_boards_says_to_verify_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every command in a block of sh runs as it stands, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    commands = [line for block in re.findall(r"```sh\n(.*?)```", _page("use-the-boards"), re.DOTALL) for line in block.splitlines()]
    assert len(commands) == 6
    for command in commands:
        words = shlex.split(command.replace("/var/lib/grafana", str(tmp_path)))
        assert run(words[1:]) == ExitCode.OK, command
