from __future__ import annotations

from pathlib import Path

import pytest

from sage_obs.conventions import RUNBOOK_INCIDENT, RUNBOOK_ROLLBACK
from sage_obs.errors import ConfigError
from sage_obs.runbooks import loader, model
from sage_obs.slo.triggers import TRIGGERS

GOOD = """\
metadata: {name: mine, title: Mine, owner: me, summary: Look.}
params:
  service: {default: sage-agent}
limits: {deadline: 5m, automatic: [1/1h]}
steps:
  - id: look
    kind: check
    title: Look
    why: To know.
    any: [error-rate]
    timeout: 90s
"""


def test_the_catalogue_holds_the_runbooks_that_alerts_link_to() -> None:
    """Both load, every trigger's alert leads to incident, and incident calls rollback."""
    found = loader.catalogue()
    assert set(found) == {RUNBOOK_INCIDENT, RUNBOOK_ROLLBACK}
    assert set(found[RUNBOOK_INCIDENT].alerts) == {one.alert for one in TRIGGERS}
    steps = [step.id for step in model.flatten(found[RUNBOOK_INCIDENT], found)]
    assert steps.index("mitigate.capture") < steps.index("mitigate.undo") < steps.index("mitigate.converge") < steps.index("mitigate.bake")


def test_a_runbook_of_ones_own_loads() -> None:
    """Durations are seconds and defaults are filled in."""
    found = loader.load(GOOD, source="mine.yaml")
    assert found.steps[0].timeout == 90.0
    assert found.limits == model.Limits(300.0, (model.Allowance(1, 3600.0),))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("kind: check", "kind: chekc", "mine.yaml, line 7: `steps[0].kind` cannot be `chekc`. Did you mean `check`?"),
        ("    timeout", "    timout", "mine.yaml, line 11: `steps[0].timout` is not known here. Did you mean `timeout`?"),
        ("90s", "soon", "mine.yaml, line 11: `steps[0].timeout` is `soon`: expected a duration such as 90s, 5m or 1h."),
        ("[error-rate]", "[eror-rate]", "line 10: `steps[0].any` cannot hold `eror-rate`. Did you mean `error-rate`?"),
        ("1/1h", "often", "line 4: `limits.automatic` holds `often`: expected runs per duration"),
        ("    title: Look\n", "", "line 6: `steps[0].title` is missing."),
        ("title: Mine, ", "", "`metadata.title` is missing."),
        ("name: mine", "name: My Runbook", "`metadata.name` is `My Runbook`: expected lower-case letters"),
        ("    why: To know.\n", "    why: To know.\n    effect: reversible\n", "`steps[0].effect` is for actions"),
        ("    why: To know.\n", "    why: To know.\n    use: ledger\n", "`steps[0].use` means nothing for a step of kind check"),
        ("    why: To know.\n", "    why: To know.\n    why: Twice.\n", "`steps[0].why` stands there twice"),
        ("    kind: check", "    kind: call\n    use: another", "`steps[0].use`"),
        ("steps:", "steps: []\nother:", "`other` is not known here"),
    ],
)  # fmt: skip
def test_a_mistake_is_named_with_file_line_key_and_suggestion(old: str, new: str, message: str) -> None:
    """Whoever wrote it finds the place and the way out in the message."""
    assert old in GOOD
    with pytest.raises(ConfigError) as caught:
        loader.load(GOOD.replace(old, new), source="mine.yaml")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("steps: [", "mine.yaml, line 1 is not readable as YAML"),
        ("- a list", "mine.yaml must hold a mapping"),
        ("", "mine.yaml must hold a mapping"),
        ("metadata: 3\nsteps: []", "`metadata` must be a mapping"),
        ("steps: 3\nmetadata: {}", "`steps` must be a list"),
        ("metadata: {}", "`steps` must hold at least one step"),
    ],
)
def test_what_is_no_runbook_is_refused(text: str, message: str) -> None:
    """Unreadable files give a message, never a traceback."""
    with pytest.raises(ConfigError) as caught:
        loader.load(text, source="mine.yaml")
    assert message in str(caught.value)


def test_two_steps_with_one_id_are_refused() -> None:
    """Ids name lines of the journal, so they are unique."""
    step = GOOD[GOOD.index("  - id") :]
    with pytest.raises(ConfigError, match="two steps with the id `look`"):
        loader.load(GOOD + step, source="mine.yaml")


def test_an_unreadable_file_and_an_unknown_name_are_errors(tmp_path: Path) -> None:
    """The message names what was asked for and what there is."""
    with pytest.raises(ConfigError, match="Cannot read the runbook"):
        loader.read(tmp_path / "missing.yaml")
    with pytest.raises(ConfigError, match="Did you mean `incident`"):
        loader.source("incidnet")


def test_parameters_are_checked() -> None:
    """Unknown names and values outside the choices are refused."""
    incident = loader.catalogue()[RUNBOOK_INCIDENT]
    assert model.bind(incident, {"service": "mine"})["service"] == "mine"
    with pytest.raises(ConfigError, match="no parameter `sevice`"):
        model.bind(incident, {"sevice": "mine"})
    with pytest.raises(ConfigError, match="cannot be `windows`"):
        model.bind(incident, {"platform": "windows"})


def test_the_locks_of_called_runbooks_are_taken_too() -> None:
    """Whatever may be changed in the course of a run is locked from its start."""
    found = loader.catalogue()
    assert model.locks(found[RUNBOOK_INCIDENT], found, {"service": "mine"}) == ("deploy-mine",)
