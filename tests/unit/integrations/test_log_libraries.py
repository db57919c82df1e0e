from __future__ import annotations

import asyncio
import io
import json
import logging
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from loguru import logger as loguru_logger

import sage_obs
from sage_obs.integrations.base import load

Start = Callable[..., sage_obs.Handle]


@pytest.fixture
def log(instrument: Start, tmp_path: Path) -> Callable[..., list[dict[str, Any]]]:
    """The layer is on at level info; the lines so far."""
    path = tmp_path / "log"
    instrument(log_output=str(path), libraries=["loguru", "structlog"])

    def lines() -> list[dict[str, Any]]:
        sage_obs.flush()
        return [json.loads(text) for text in path.read_text().splitlines()]

    return lines


@pytest.fixture
def handlers() -> Iterator[io.StringIO]:
    """Loguru with one handler, on a buffer; afterwards it has the handlers it had, and structlog its defaults."""
    core: Any = loguru_logger._core  # type: ignore[attr-defined]
    before, level = core.handlers, core.min_level
    core.handlers = {}
    buffer = io.StringIO()
    loguru_logger.add(buffer, format="{message}", level="TRACE")
    yield buffer
    core.handlers, core.min_level = before, level
    structlog.reset_defaults()


def test_loguru_comes_out_as_our_lines(handlers: io.StringIO, log: Callable[[], list[dict[str, Any]]]) -> None:
    """Message, level, what is bound, the exception and the request are in their places; the application's own handler goes on."""

    @sage_obs.agent("worker")
    def work() -> str:
        loguru_logger.bind(colour="red", name="bound", trace_id="t1").success("done {}", 1)
        try:
            raise KeyError("k")  # noqa: TRY301 - to have one
        except KeyError:
            loguru_logger.exception("failed")
        loguru_logger.debug("too little")
        return sage_obs.current().request_id

    request_id = work()
    done, failed = [line for line in log() if line["logger"] == __name__]
    assert (done["message"], done["level"], done["colour"], done["extra.name"]) == ("done 1", "success", "red", "bound")
    assert done["trace_id"] == "t1"
    assert done["request_id"] == failed["request_id"] == request_id
    assert failed["level"] == "error"
    assert failed["error.type"] == "KeyError"
    assert "raise KeyError" in failed["error.stack"]
    assert [line for line in handlers.getvalue().splitlines() if line in {"done 1", "failed", "too little"}] == [
        "done 1",
        "failed",
        "too little",
    ]


def test_loguru_gets_its_handlers_back_as_they_are_by_then(handlers: io.StringIO, instrument: Start) -> None:
    """What the application adds and removes meanwhile counts; the rest is as before, and writes again."""
    core: Any = loguru_logger._core  # type: ignore[attr-defined]
    before, level = dict(core.handlers), core.min_level
    instrument(log_output="/dev/null", libraries=["loguru"])
    assert len(core.handlers) == 2
    sage_obs.uninstrument()
    assert (core.handlers, core.min_level) == (before, level)
    loguru_logger.info("back")
    assert handlers.getvalue() == "back\n"
    instrument(log_output="/dev/null", libraries=["loguru"])
    later = io.StringIO()
    loguru_logger.remove()
    loguru_logger.add(later, format="{message}", level="ERROR")
    sage_obs.uninstrument()
    loguru_logger.error("late")
    assert later.getvalue() == "late\n"
    assert len(core.handlers) == 1


@pytest.mark.usefixtures("handlers")
def test_an_application_that_sets_loguru_up_after_us_is_heard_all_the_same(log: Callable[[], list[dict[str, Any]]]) -> None:
    """`remove()` and `configure()` are what every loguru application begins with."""
    buffer = io.StringIO()
    loguru_logger.remove()
    loguru_logger.add(buffer)
    loguru_logger.info("one")
    loguru_logger.configure(handlers=[{"sink": buffer}])
    loguru_logger.info("two")
    assert [line["message"] for line in log()][-2:] == ["one", "two"]
    assert buffer.getvalue().count("\n") == 2


@pytest.mark.usefixtures("handlers")
def test_only_what_loguru_would_write_to_the_terminal_rests(
    log: Callable[[], list[dict[str, Any]]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Files, functions and handlers get every message, from another thread too; stdout and stderr get nothing, in whatever form."""
    taken: list[str] = []
    loguru_logger.add(tmp_path / "own.log", format="{message}", enqueue=True)
    loguru_logger.add(taken.append, format="{message}")
    handler = loguru_logger.add(logging.FileHandler(tmp_path / "handler.log"), format="{message}")
    on_terminal: tuple[Any, ...] = (sys.stdout, sys.stderr, sys.stdout.write, logging.StreamHandler(sys.stderr))
    for sink in on_terminal:
        loguru_logger.add(sink, format="{message}")
    loguru_logger.info("kept")
    loguru_logger.complete()
    assert [line["message"] for line in log()][-1:] == ["kept"]
    assert taken == ["kept\n"]
    assert (tmp_path / "own.log").read_text().strip() == (tmp_path / "handler.log").read_text().strip() == "kept"
    assert capsys.readouterr() == ("", "")
    loguru_logger.remove(handler)


@pytest.mark.usefixtures("handlers")
@pytest.mark.parametrize("enqueue", [False, True])
def test_a_loguru_that_leads_into_the_standard_library_makes_one_line(log: Callable[[], list[dict[str, Any]]], enqueue: bool) -> None:  # noqa: FBT001 - two cases
    """What loguru passes on to loggers of the standard library has its line already; what else is logged on the way is heard."""

    class PassingOn(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            logging.getLogger("on.the.way").warning("another")
            logging.getLogger(record.name).handle(record)

    loguru_logger.add(PassingOn(), format="{level}: {message}", enqueue=enqueue)
    loguru_logger.warning("once")
    loguru_logger.complete()
    assert sorted(line["message"] for line in log()[-2:]) == ["another", "once"]


@pytest.mark.usefixtures("handlers")
def test_a_file_that_structlog_writes_to_is_written_to_besides(log: Callable[[], list[dict[str, Any]]], tmp_path: Path) -> None:
    """Processors run once, the file has what was rendered, and what a processor drops is nowhere."""
    seen: list[str] = []

    def watch(_logger: Any, _name: str, event: Any) -> Any:
        seen.append(event["event"])
        if event["event"] == "dropped":
            raise structlog.DropEvent
        return event

    with (tmp_path / "own.log").open("w") as file:
        structlog.configure(processors=[watch, structlog.processors.KeyValueRenderer()], logger_factory=structlog.PrintLoggerFactory(file))
        structlog.get_logger().info("kept", size=3)
        structlog.get_logger().info("dropped")
    assert seen == ["kept", "dropped"]
    assert (tmp_path / "own.log").read_text() == "size=3 event='kept'\n"
    assert [(line["message"], line["size"]) for line in log() if line["logger"] == "structlog"] == [("kept", 3)]


@pytest.mark.usefixtures("handlers")
def test_a_root_logger_that_leads_into_loguru_makes_no_circle(log: Callable[[], list[dict[str, Any]]]) -> None:
    """The usual bridge from the standard library to loguru, set up after us: a record of either side is one line."""

    class Intercepting(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            loguru_logger.opt(depth=6, exception=record.exc_info).log(record.levelname, record.getMessage())

    root = logging.getLogger()
    found = list(root.handlers)
    root.handlers[:] = [Intercepting()]
    try:
        logging.getLogger("library").warning("from the library")
        loguru_logger.warning("from the application")
    finally:
        root.handlers[:] = found
    assert [line["message"] for line in log()][-2:] == ["from the library", "from the application"]


@pytest.mark.usefixtures("handlers")
def test_values_that_log_while_they_are_formatted_block_nobody(log: Callable[[], list[dict[str, Any]]]) -> None:
    """Threads that log through both libraries at once, with such values, all come to an end with all their lines."""

    class Chatty:
        def __str__(self) -> str:
            loguru_logger.info("inner")
            logging.getLogger("inner").info("inner")
            return "value"

    def work(number: int) -> None:
        for _ in range(50):
            loguru_logger.bind(value=Chatty()).info(f"loguru {number}")
            logging.getLogger("outer").info("logging %d", number, extra={"value": Chatty()})

    threads = [threading.Thread(target=work, args=(number,), daemon=True) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not [thread for thread in threads if thread.is_alive()]
    outer = [line for line in log() if "value" in line]
    assert len(outer) == 400
    assert {line["value"] for line in outer} == {"value"}


@pytest.mark.usefixtures("handlers")
def test_a_loguru_logger_of_its_own_is_left_alone(log: Callable[[], list[dict[str, Any]]]) -> None:
    """A handler of a copied logger, which has a core of its own, writes as ever."""
    import copy

    core: Any = loguru_logger._core  # type: ignore[attr-defined]
    kept, core.handlers = core.handlers, {}
    other = copy.deepcopy(loguru_logger)
    core.handlers = kept
    buffer = io.StringIO()
    other.add(buffer, format="{message}")
    other.info("mine")
    assert buffer.getvalue() == "mine\n"
    assert "mine" not in [line["message"] for line in log()]


def _stdlib_configuration() -> None:
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.stdlib.add_logger_name,
            structlog.stdlib.add_log_level,
            structlog.stdlib.PositionalArgumentsFormatter(),
            structlog.processors.TimeStamper(fmt="iso"),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )


def _no_positional_arguments() -> None:
    structlog.configure(
        processors=[structlog.stdlib.render_to_log_kwargs],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
    )


def _bytes() -> None:
    structlog.configure(
        processors=[structlog.contextvars.merge_contextvars, structlog.processors.JSONRenderer(serializer=lambda *_, **__: b"")],
        logger_factory=structlog.BytesLoggerFactory(io.BytesIO()),
        wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG),
    )


@pytest.mark.usefixtures("handlers")
@pytest.mark.parametrize("configure", [lambda: None, _stdlib_configuration, _no_positional_arguments, _bytes])
def test_structlog_comes_out_as_our_lines(
    configure: Callable[[], None], log: Callable[[], list[dict[str, Any]]], capsys: pytest.CaptureFixture[str]
) -> None:
    """However it is configured, before or after: the event is the message, keys are extras, ids and exception are in their places."""
    configure()
    logger = structlog.get_logger("shop").bind(colour="red")

    @sage_obs.agent("worker")
    def work() -> str:
        logger.warning("done %d", 1, size=3, name="bound")
        try:
            raise KeyError("k")  # noqa: TRY301 - to have one
        except KeyError:
            logger.exception("failed")
        logger.debug("too little")
        return sage_obs.current().request_id

    request_id = work()
    done, failed = [line for line in log() if line["logger"] in {"shop", "structlog"}]
    assert (done["message"], done["level"], done["colour"], done["size"]) == ("done 1", "warning", "red", 3)
    assert done["extra.name"] == "bound"
    assert done["request_id"] == failed["request_id"] == request_id
    assert (failed["level"], failed["error.type"]) == ("error", "KeyError")
    assert "exception" not in failed
    assert {"extra.level", "extra.timestamp", "extra.message", "event"}.isdisjoint(done)
    assert capsys.readouterr().out == ""


@pytest.mark.usefixtures("handlers")
def test_structlogs_own_ways_stay(log: Callable[[], list[dict[str, Any]]], capsys: pytest.CaptureFixture[str]) -> None:
    """Captured logs are captured, dropped events dropped, asynchronous methods have their ids, and afterwards all is as configured."""

    def drop(_logger: Any, _name: str, event: Any) -> Any:
        if event["event"] == "dropped":
            raise structlog.DropEvent
        return event

    before = structlog.get_config()
    with structlog.testing.capture_logs() as captured:
        structlog.get_logger().info("captured", x=1)
    assert captured == [{"event": "captured", "x": 1, "log_level": "info"}]
    structlog.configure(processors=[drop, structlog.processors.KeyValueRenderer()])
    structlog.get_logger().info("dropped")

    @sage_obs.agent("worker")
    async def work() -> str:
        await structlog.get_logger().ainfo("later")
        return sage_obs.current().request_id

    request_id = asyncio.run(work())
    lines = log()
    assert [line["message"] for line in lines if line["logger"] == "structlog"] == ["later"]
    assert lines[-1]["request_id"] == request_id
    sage_obs.uninstrument()
    structlog.get_logger().info("back", x=1)
    assert capsys.readouterr().out == "x=1 event='back'\n"
    structlog.reset_defaults()
    assert {key: value for key, value in structlog.get_config().items() if key != "processors"} == {
        key: value for key, value in before.items() if key != "processors"
    }


def test_a_logger_that_returns_its_event_still_does(instrument: Start) -> None:
    """What is no writing logger, such as the one for tests, is left alone."""
    instrument(log_output="/dev/null", libraries=["structlog"])
    logger = structlog.wrap_logger(structlog.ReturnLogger(), processors=[structlog.processors.KeyValueRenderer()])
    assert logger.info("mine", x=1) == "x=1 event='mine'"


def test_switched_off_logs_leave_both_libraries_alone(instrument: Start) -> None:
    """Where there are no lines of ours there is nothing to send them to."""
    handle = instrument(logs=False)
    assert handle.status()["loguru"].why == handle.status()["structlog"].why == "logs are off"
    assert load("loguru").name == "loguru"
