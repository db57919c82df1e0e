from __future__ import annotations

import json
import logging
import logging.config
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import sage_obs
from sage_obs import access
from sage_obs.access import Facts
from sage_obs.conventions import ErrorType, Outcome
from sage_obs.logs.access import AccessLines
from sage_obs.logs.lines import Identity, Lines
from sage_obs.privacy.redaction import MASK
from sage_obs.tracing.context import Request

Start = Callable[..., sage_obs.Handle]
IDENTITY = Identity("a1", "shop", "1.2.3")
AT = 1_700_000_000_123_456_789
FACTS: Facts = ("GET", "/x", 200, "GET /x", Outcome.SUCCESS, None)


def _request(request_id: str = "r1", *, named: bool = False) -> Request:
    return Request(request_id, "ab" * 16, "cd" * 8, sampled=False, named=named)


class _Kept(logging.Handler):
    """Keeps what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@pytest.fixture
def kept() -> Iterator[_Kept]:
    """A handler on the access logger itself."""
    handler = _Kept()
    access.LOGGER.addHandler(handler)
    access.LOGGER.setLevel(logging.INFO)
    yield handler
    access.LOGGER.removeHandler(handler)
    access.LOGGER.setLevel(logging.NOTSET)


def _by_logging(kept: _Kept, request: Request, seconds: float, facts: Facts) -> dict[str, Any]:
    """The line that the record's way makes of a request."""
    access.log(request, seconds, facts)
    record = kept.records.pop()
    record.created = AT / 1e9
    parsed: dict[str, Any] = json.loads(Lines(IDENTITY).line(record))
    return parsed


_texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
_facts = st.tuples(
    _texts,
    _texts,
    st.sampled_from([0, 200, 404, 500]),
    _texts,
    st.sampled_from(Outcome),
    st.none() | st.sampled_from(ErrorType),
)


def test_the_line_is_what_a_record_would_have_become(kept: _Kept) -> None:
    """Whatever a request is called and however it ended, both ways write the same keys in the same order with the same values."""

    @given(_facts, st.floats(0, 1e6), st.booleans())
    def check(facts: Facts, seconds: float, identified: bool) -> None:  # noqa: FBT001 - Hypothesis passes it so
        request = _request("r-7", named=True)
        with sage_obs.context(tenant='"acme"' if identified else None, conversation_id="c9" if identified else None):
            line = AccessLines(IDENTITY).line(request, seconds, facts, at=AT)
            expected = _by_logging(kept, request, seconds, facts)
        assert line.endswith(b"\n")
        assert line.count(b"\n") == 1
        found = json.loads(line)
        assert list(found) == list(expected)
        found.pop("timestamp"), expected.pop("timestamp")
        assert found == expected

    check()


def test_times_are_utc_to_the_microsecond() -> None:
    """The date is made once a second, and the fraction keeps its leading zeros."""
    lines = AccessLines(IDENTITY)
    ats = (AT, AT + 1_000_000_000, AT - 123_000_000)
    assert [json.loads(lines.line(_request(), 0.1, FACTS, at=at))["timestamp"] for at in ats] == [
        "2023-11-14T22:13:20.123456Z",
        "2023-11-14T22:13:21.123456Z",
        "2023-11-14T22:13:20.000456Z",
    ]


@pytest.mark.parametrize(
    ("request_id", "facts"),
    [
        ("api_key=sk-abcdefghijklmnop1234", FACTS),
        ("r", ("GET", "/reset/sk-abcdefghijklmnop1234", 200, "GET /reset/{token}", Outcome.SUCCESS, None)),
        ("r", ("sk-abcdefghijklmnop1234", "/", 405, "unmatched", Outcome.CLIENT_ERROR, None)),
    ],
    ids=["request id", "path", "method"],
)
def test_secrets_of_callers_stay_out(request_id: str, facts: Facts) -> None:
    """What a caller can choose is redacted."""
    line = AccessLines(IDENTITY).line(_request(request_id, named=True), 0.1, facts, at=AT).decode()
    assert "abcdefghijklmnop1234" not in line
    assert MASK in line


def test_what_is_kept_of_paths_that_never_come_again_is_bounded() -> None:
    """A caller who makes up paths does not fill the memory."""
    lines = AccessLines(IDENTITY)
    for number in range(5000):
        lines.line(_request(), 0.1, ("GET", f"/{number}", 404, "unmatched", Outcome.CLIENT_ERROR, None), at=AT)
    assert len(lines._known) <= 2048


def _written(path: Path) -> list[dict[str, Any]]:
    assert sage_obs.flush(5)
    return [line for line in map(json.loads, path.read_text().splitlines()) if line["logger"] == "sage_obs.access"]


def test_where_somebody_listens_on_the_way_they_get_a_record(instrument: Start, kept: _Kept, tmp_path: Path) -> None:
    """A handler of the application's sees every request, and our line is written all the same."""
    instrument(log_output=str(tmp_path / "log"))
    access.served(_request(), 0.1, FACTS)
    assert [record.getMessage() for record in kept.records] == ["GET /x 200"]
    assert [line["message"] for line in _written(tmp_path / "log")] == ["GET /x 200"]


def test_a_filter_on_the_way_is_obeyed(instrument: Start, tmp_path: Path) -> None:
    """An application that filters the access log filters it."""
    instrument(log_output=str(tmp_path / "log"))

    def not_x(record: logging.LogRecord) -> bool:
        return "/x" not in record.getMessage()

    access.LOGGER.addFilter(not_x)
    try:
        access.served(_request(), 0.1, FACTS)
        access.served(_request(), 0.1, ("GET", "/y", 200, "GET /y", Outcome.SUCCESS, None))
    finally:
        access.LOGGER.removeFilter(not_x)
    assert [line["message"] for line in _written(tmp_path / "log")] == ["GET /y 200"]


def test_a_level_above_info_silences_it(instrument: Start, tmp_path: Path) -> None:
    """Who asks for warnings only gets no line for each request."""
    instrument(log_output=str(tmp_path / "log"), log_level="warning")
    access.served(_request(), 0.1, FACTS)
    assert _written(tmp_path / "log") == []


def test_a_path_that_is_no_unicode_still_has_its_line(instrument: Start, tmp_path: Path) -> None:
    """Half a surrogate pair is replaced."""
    instrument(log_output=str(tmp_path / "log"))
    access.served(_request(), 0.1, ("GET", "/\ud800", 200, "GET /x", Outcome.SUCCESS, None))
    assert [line["message"] for line in _written(tmp_path / "log")] == ["GET /? 200"]


def test_after_uninstrument_lines_go_the_applications_way(instrument: Start, kept: _Kept, tmp_path: Path) -> None:
    """Nothing is written to our output any more."""
    instrument(log_output=str(tmp_path / "log"))
    sage_obs.uninstrument()
    access.served(_request(), 0.1, FACTS)
    assert len(kept.records) == 1
    assert (tmp_path / "log").read_text() == ""


def test_a_configuration_that_disables_existing_loggers_costs_no_line(instrument: Start, tmp_path: Path) -> None:
    """`dictConfig` disables what it does not name unless told otherwise; the access log is not meant by that."""
    others = {name: one.disabled for name, one in logging.root.manager.loggerDict.items() if isinstance(one, logging.Logger)}
    instrument(log_output=str(tmp_path / "log"))
    logging.config.dictConfig({"version": 1})
    try:
        assert access.LOGGER.disabled
        access.served(_request(), 0.1, FACTS)
        assert [line["message"] for line in _written(tmp_path / "log")] == ["GET /x 200"]
    finally:
        for name, disabled in others.items():
            logging.getLogger(name).disabled = disabled
