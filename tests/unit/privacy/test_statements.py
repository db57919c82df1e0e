from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage_obs.privacy.statements import without_values

CASES = [
    ("SELECT a.b1 FROM t1 WHERE a = 'x''y' AND b = $1 AND c = -12.5e3", "SELECT a.b1 FROM t1 WHERE a = ? AND b = $1 AND c = -?"),
    ("SELECT $$it's$$, $tag$ $$ $tag$, 0x1F, %(x)s, :1, %s", "SELECT ?, ?, ?, %(x)s, :1, %s"),
    (r"SELECT E'it\'s', 'two'", "SELECT ?, ?"),
    ('SELECT "Some name" FROM "t"."2"', 'SELECT "Some name" FROM "t"."2"'),
    ("/* hunter2 */ SELECT 1 -- hunter2", "SELECT ?"),
    ("INSERT INTO t VALUES ('open", "INSERT INTO t VALUES (?"),
    (r"SELECT '\', 'hunter2', 'more'", "SELECT ?"),
    ("SELECT date '2020-01-01', x::int", "SELECT date ?, x::int"),
    ("SET ? ?", "SET ? ?"),
]


@pytest.mark.parametrize(("statement", "expected"), CASES, ids=[text for text, _ in CASES])
def test_values_in_a_statement_are_left_out_and_the_rest_stays(statement: str, expected: str) -> None:
    """Strings of every form, numbers and comments go; parameters, names and casts stay."""
    assert without_values(statement, "postgresql") == expected


def test_double_quotes_and_hashes_are_what_they_are_in_the_system() -> None:
    """In PostgreSQL double quotes hold a name; elsewhere it may be a string. In MySQL a hash begins a comment."""
    assert without_values('SELECT "hunter2"', "mysql") == without_values('SELECT "hunter2"', "") == "SELECT ?"
    assert without_values("SELECT `a` # it's\n, 'hunter2'", "mysql") == "SELECT `a`  \n, ?"
    assert without_values("SELECT a #> b", "postgresql") == "SELECT a #> b"


def test_a_statement_is_not_kept_at_any_length() -> None:
    """A generated statement of megabytes is cut."""
    assert len(without_values("SELECT a" + ", a" * 1_000_000, "postgresql")) < 5000


@given(st.text(), st.sampled_from(["postgresql", "mysql", "sqlite", ""]))
def test_no_string_between_single_quotes_gets_through(text: str, system: str) -> None:
    """Whatever stands in a string that is written as SQL wants it, no word of it is left."""
    escaped = text.replace("'", "''")
    statement = f"SELECT 'hunter2{escaped}hunter2' AS a, 'hunter2'"
    assert "hunter2" not in without_values(statement, system)
