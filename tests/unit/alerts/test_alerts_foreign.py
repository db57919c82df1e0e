"""Rules about users' rules."""

from pathlib import Path

import pytest

from sage_obs.alerts.foreign import FileFinding, Level, lint_files

GOOD = """\
- alert: QueueFull
  expr: queue_depth > 10
  for: 1m
  labels: {severity: P2}
  annotations: {summary: "{{ $value }} wait", description: They wait., runbook_url: https://r.example/q}
"""


def linted(folder: Path, *rules: str, head: str = "") -> list[FileFinding]:
    """The findings in a file with these rules in one group, without promtool."""
    text = f"groups:\n- name: own\n{head}  rules:\n" + "".join(f"  {line}\n" for rule in rules for line in rule.splitlines())
    (folder / "own.yml").write_text(text)
    return list(lint_files([folder / "own.yml"], interval=15, promtool=None))


def test_a_good_rule_has_no_findings(tmp_path: Path) -> None:
    """Nothing is found where there is nothing to say."""
    assert linted(tmp_path, GOOD) == []


@pytest.mark.parametrize(
    ("old", "new", "level", "message"),
    [
        ("{severity: P2}", "{severity: page}", Level.WARNING, "has the severity 'page'; ours are P1, P2, P3"),
        ("  labels: {severity: P2}\n", "", Level.WARNING, "has no severity, by which alerts are routed"),
        (", runbook_url: https://r.example/q", "", Level.WARNING, "has no runbook_url"),
        (
            "description: They wait., runbook_url: https://r.example/q",
            "description: ' '",
            Level.WARNING,
            "has no description, no runbook_url",
        ),
        ("{{ $value }}", "many", Level.WARNING, "shows its value in no annotation ({{ $value }})"),
        (
            "{severity: P2}",
            '{severity: P2, depth: "{{ $value }}"}',
            Level.ERROR,
            "has the value in the label depth, which makes a new alert of every value",
        ),
        ("  for: 1m\n", "", Level.WARNING, "has no `for`, so that one evaluation is enough to fire"),
        ("for: 1m", "for: 40s", Level.WARNING, "has for 40 s, which is no multiple of the usual 15 s"),
        ("for: 1m", "for: 1m\n  keep_firing_for: 20s", Level.WARNING, "has keep_firing_for 20 s, which is no multiple of the usual 15 s"),
        ("queue_depth > 10", "sage_agent_request_total > 10", Level.ERROR, "reads sage_agent_request_total, which nothing exposes"),
        ("queue_depth > 10", "sum(", Level.ERROR, "is no PromQL"),
    ],
)
def test_a_defect_is_found_with_its_place(old: str, new: str, level: Level, message: str, tmp_path: Path) -> None:
    """One defect is one finding, which names file, line, group and rule."""
    assert old in GOOD
    (found,) = linted(tmp_path, GOOD.replace(old, new))
    assert (found.file, found.line, found.group, found.rule, found.level) == (str(tmp_path / "own.yml"), 4, "own", "QueueFull", level)
    assert found.message.startswith(message)
    assert str(found).startswith(f"{tmp_path / 'own.yml'}:4: {level}: own QueueFull: {message}")


def test_a_groups_own_interval_is_what_hold_times_are_compared_with(tmp_path: Path) -> None:
    """One minute is no multiple of 45 seconds."""
    (found,) = linted(tmp_path, GOOD, head="  interval: 45s\n")
    assert found.message == "has for 60 s, which is no multiple of its group's 45 s"


def test_what_is_recorded_in_the_files_is_known_and_must_come_first(tmp_path: Path) -> None:
    """A recorded series with our prefix is no unknown one; read before it is recorded, it is old."""
    record = "- {record: sage_own, expr: up}\n"
    reading = GOOD.replace("queue_depth", "sage_own")
    assert linted(tmp_path, record, reading) == []
    (found,) = linted(tmp_path, reading, record)
    assert (found.rule, found.level, found.message) == ("QueueFull", Level.WARNING, "reads sage_own before its group records it")


def test_the_same_alert_twice_is_an_error_and_with_other_labels_is_none(tmp_path: Path) -> None:
    """A warning and a critical alert of one name are usual; two that cannot be told apart are a mistake, in two files as well."""
    assert linted(tmp_path, GOOD, GOOD.replace("P2", "P1")) == []
    (found,) = linted(tmp_path, GOOD, GOOD)
    assert (found.line, found.message) == (9, f"is defined with the same labels in {tmp_path / 'own.yml'}:4 too")
    linted(tmp_path, GOOD)
    (tmp_path / "b.yml").write_text((tmp_path / "own.yml").read_text())
    (other,) = lint_files([tmp_path / "own.yml", tmp_path / "b.yml"], interval=15, promtool=None)
    assert (other.file, other.line) == (str(tmp_path / "b.yml"), 4)


def test_groups_are_looked_at_too(tmp_path: Path) -> None:
    """Two groups of a name are an error in one file; a group without rules is left over."""
    (tmp_path / "own.yml").write_text("groups:\n- name: a\n- name: a\n")
    found = lint_files([tmp_path / "own.yml"], interval=15, promtool=None)
    assert [(one.line, one.level, one.message) for one in found] == [
        (2, Level.WARNING, "has no rules"),
        (3, Level.ERROR, "is the name of another group too, in line 2"),
        (3, Level.WARNING, "has no rules"),
    ]


def test_a_file_that_cannot_be_read_is_a_finding_and_the_others_are_still_looked_at(tmp_path: Path) -> None:
    """Findings come in the order in which files are named."""
    (tmp_path / "broken.yml").write_text("groups:\n- name: a\n  rules: 5\n")
    (tmp_path / "own.yml").write_text("groups:\n- name: a\n")
    found = lint_files([tmp_path / "own.yml", tmp_path / "broken.yml"], interval=15, promtool=None)
    assert [(Path(one.file).name, one.line, one.level) for one in found] == [("own.yml", 2, Level.WARNING), ("broken.yml", 3, Level.ERROR)]
    assert found[1].message == "rules of group a must be a list, not '5'."
