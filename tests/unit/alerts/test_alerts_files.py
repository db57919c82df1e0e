"""Rules that users write: what is understood of them, and where a complaint points."""

from pathlib import Path

import pytest

from sage_obs.alerts.files import read_rules
from sage_obs.alerts.model import AlertRule, Group, RecordingRule
from sage_obs.alerts.nodes import span
from sage_obs.errors import ConfigError

RULES = """\
groups:
  - name: queue
    interval: 1m
    limit: 5
    labels: {team: shop}
    rules:
      - record: job:queue_depth:max
        expr: max by (job) (queue_depth)
      - alert: QueueFull
        expr: job:queue_depth:max > 10
        for: 1h30m
        keep_firing_for: 90s
        labels: {severity: P2}
        annotations: {summary: full}
"""


def written(folder: Path, text: str | bytes) -> Path:
    """The text as a file."""
    path = folder / "rules.yml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_groups_are_read_with_their_lines(tmp_path: Path) -> None:
    """Durations are seconds, a group's labels are those of its rules, and every rule knows its line."""
    (found,) = read_rules(written(tmp_path, RULES), interval=15)
    assert (found.line, found.lines, found.limit, found.own_interval) == (2, (7, 9), 5, True)
    record = RecordingRule("job:queue_depth:max", "max by (job) (queue_depth)", {"team": "shop"})
    alert = AlertRule("QueueFull", "job:queue_depth:max > 10", 5400.0, 90.0, {"team": "shop", "severity": "P2"}, {"summary": "full"})
    assert found.group == Group("queue", 60.0, (record, alert))


def test_the_operators_resource_holds_the_same_groups(tmp_path: Path) -> None:
    """A PrometheusRule is read as the file in its `spec`; a group without an interval has the usual one."""
    spec = "".join(f"  {line}\n" for line in RULES.replace("    interval: 1m\n", "").splitlines())
    (found,) = read_rules(written(tmp_path, f"kind: PrometheusRule\nspec:\n{spec}"), interval=15)
    assert (found.line, found.group.interval, found.own_interval) == (4, 15, False)


def test_aliases_are_followed_and_do_not_multiply(tmp_path: Path) -> None:
    """Shared labels may be an anchor; a file of aliases of aliases is read in no time."""
    rules = "- {alert: A, expr: up, labels: &l {severity: P1}}\n  - {alert: B, expr: up, labels: {<<: *l, x: y}}\n"
    shared = f"groups:\n- name: a\n  rules:\n  {rules}"
    (found,) = read_rules(written(tmp_path, shared), interval=15)
    assert [dict(rule.labels) for rule in found.group.rules] == [{"severity": "P1"}, {"severity": "P1", "x": "y"}]
    bomb = "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 30))
    with pytest.raises(ConfigError, match="there are no `groups`"):
        read_rules(written(tmp_path, bomb), interval=15)


@pytest.mark.parametrize(
    ("text", "line", "why"),
    [
        ("", 1, "empty"),
        ("# nothing\n", 1, "empty"),
        ("- a\n", 1, "must be a mapping of keys to values, not a list"),
        ("a: 1\n", 1, "no `groups`"),
        ("groups:\n", 1, "groups must be a list, not nothing"),
        ("groups: []\n", 1, "`groups` is empty"),
        ("groups:\n- name: a\n  rules:\n  - alert: x\n   expr: 1\n", 5, "not YAML"),
        ("groups: []\n---\ngroups: []\n", 2, "not YAML"),
        ("a: &a [*a]\n", 1, "an alias leads to what it is in"),
        ("? [a]\n: b\n", 1, "a key must be a text"),
        ("groups: []\ngroups: []\n", 2, "'groups' is there twice"),
        ("groups:\n- {rules: []}\n", 2, "a group needs `name`"),
        ("groups:\n- {name: a, rule: []}\n", 2, "a group has no 'rule'"),
        ("groups:\n- name: a\n  interval: 0s\n", 3, "interval must be more than 0"),
        ("groups:\n- name: a\n  limit: few\n", 3, "limit must be a whole number"),
        ("groups:\n- name: a\n  rules:\n  - alert: x\n    exrp: up\n", 5, "a rule has no 'exrp'"),
        ("groups:\n- name: a\n  rules:\n  - alert: x\n", 4, "a rule needs `expr`"),
        ("groups:\n- name: a\n  rules:\n  - {expr: up}\n", 4, "either `record` or `alert`"),
        ("groups:\n- name: a\n  rules:\n  - {expr: up, record: a, alert: b}\n", 4, "either `record` or `alert`"),
        ("groups:\n- name: a\n  rules:\n  - record: x\n    expr: up\n    for: 5m\n", 6, "a recording rule has no `for`"),
        ("groups:\n- name: a\n  rules:\n  - alert: x\n    expr: up\n    for: 5 minutes\n", 6, "'5 minutes', which is no duration"),
        ("groups:\n- name: a\n  rules:\n  - alert: x\n    expr: [up]\n", 5, "expr must be a text, not a list"),
        (b"groups:\n- name: \xff\n", 2, "not UTF-8"),
    ],
)
def test_what_is_no_file_of_rules_is_refused_with_its_line(text: str | bytes, line: int, why: str, tmp_path: Path) -> None:
    """The error names file and line and says what is wrong there."""
    path = written(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        read_rules(path, interval=15)
    assert caught.value.message.startswith(f"{path}:{line}: ")
    assert why in caught.value.message


def test_a_file_that_is_not_there_or_enormous_is_refused(tmp_path: Path) -> None:
    """Nobody waits for a dump that was named by mistake to be parsed."""
    with pytest.raises(ConfigError, match="No such file"):
        read_rules(tmp_path / "none.yml", interval=15)
    with pytest.raises(ConfigError, match="more than 16 MiB"):
        read_rules(written(tmp_path, b"#" * (16 * 2**20 + 1)), interval=15)


@pytest.mark.parametrize(
    ("text", "seconds"), [("0", 0), ("30s", 30), ("1h30m", 5400), ("1d12h", 129_600), ("1w", 604_800), ("1m500ms", 60.5)]
)
def test_durations_are_prometheuss(text: str, seconds: float) -> None:
    """Several units go from the longest to the shortest."""
    assert span(text) == seconds


@pytest.mark.parametrize("text", ["", "5", "m", "5 m", "30m1h", "-5m", "1.5h", "٣s"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    """A number alone is none."""
    with pytest.raises(ValueError, match="is no duration"):
        span(text)
