from __future__ import annotations

import re
from pathlib import Path

import pytest

from sage_obs.errors import ExitCode
from sage_obs.runbooks import loader, page
from sage_obs.runbooks.rails import RAILS
from sage_obs.slo.triggers import TRIGGERS

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("name", loader.names())
def test_the_page_says_what_the_runbook_does(name: str) -> None:
    """Every step's title and reason, every rail, every parameter and every exit code stands on it."""
    runbook = loader.catalogue()[name]
    text = page.render(runbook)
    for step in (*runbook.steps, *runbook.closing):
        assert step.title in text
        assert step.why in text
    assert all(f"**{rail}**" in text for rail in RAILS)
    assert all(f"`{one.name}`" in text for one in runbook.parameters)
    assert all(f"| {int(code)} |" in text for code in ExitCode)


def test_every_alert_finds_itself_on_the_page_it_links_to() -> None:
    """With the sentence of its trigger."""
    text = page.render(loader.catalogue()["incident"])
    for trigger in TRIGGERS:
        assert trigger.alert in text
        assert trigger.sentence in text


def test_rendering_is_deterministic_and_committed() -> None:
    """The pages in the repository are what is rendered now."""
    pages = page.pages(loader.catalogue())
    assert pages == page.pages(loader.catalogue())
    for name, text in pages.items():
        assert (ROOT / "runbooks" / name).read_text() == text


def test_links_between_pages_lead_somewhere() -> None:
    """Every relative link names a page that is rendered too."""
    pages = page.pages(loader.catalogue())
    targets = [target for text in pages.values() for target in re.findall(r"\]\(([^)]+)\)", text)]
    assert targets
    assert set(targets) <= set(pages)
