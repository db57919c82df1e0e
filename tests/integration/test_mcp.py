"""The real SDK at both ends, over each of its transports."""

from __future__ import annotations

import asyncio
import datetime as dt
import importlib
import importlib.metadata
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn

import sage_obs
from sage_obs.conventions import ERRORS, INTERNAL_ERRORS, REQUEST_DURATION, REQUESTS, REQUESTS_IN_FLIGHT, TOOL_CALLS, TOOL_DURATION
from sage_obs.semconv import TOOL_ARGUMENTS, TOOL_RESULT
from sage_obs.testing import capture
from tests.support.metrics import value
from tests.support.ports import free_port

mcp: Any = importlib.import_module("mcp")
memory: Any = importlib.import_module("mcp.shared.memory")
http: Any = importlib.import_module("mcp.client.streamable_http")
stdio: Any = importlib.import_module("mcp.client.stdio")

Start = Callable[..., sage_obs.Handle]
Work = Callable[[Any], Awaitable[None]]
pytestmark = pytest.mark.filterwarnings("ignore")
"""What it warns of is its own business with pydantic and anyio."""
OLD = importlib.metadata.version("mcp").startswith("1.")
TOOLS = """\
import importlib
import logging

import sage_obs

try:
    Server = importlib.import_module("mcp.server.mcpserver").MCPServer
except ImportError:
    Server = importlib.import_module("mcp.server.fastmcp").FastMCP
server = Server("shop")


@server.tool()
async def add(x: int, y: int) -> str:
    logging.getLogger("shop").info("adding")
    return f"{x + y} {sage_obs.current().trace_id}"


@server.tool()
def fail() -> str:
    raise ValueError("broken")
"""


@pytest.fixture
def server() -> Any:
    """A server of two tools, made before anything is instrumented."""
    found: dict[str, Any] = {}
    exec(TOOLS, found)  # noqa: S102 - the same program that is run over stdio
    return found["server"]


@asynccontextmanager
async def in_memory(server: Any) -> AsyncIterator[Any]:
    """A session with a server in the same loop."""
    low = getattr(server, "_mcp_server", None) or server._lowlevel_server
    async with memory.create_client_server_memory_streams() as ((read, write), streams):
        task = asyncio.create_task(low.run(*streams, low.create_initialization_options()))
        try:
            async with mcp.ClientSession(read, write) as session:
                await session.initialize()
                yield session
        finally:
            task.cancel()
            await asyncio.wait([task])


@asynccontextmanager
async def over_http(server: Any) -> AsyncIterator[Any]:
    """A session with a server behind uvicorn."""
    port = free_port()
    web = uvicorn.Server(
        uvicorn.Config(server.streamable_http_app(), port=port, log_config=None, lifespan="on", timeout_graceful_shutdown=1)
    )
    task = asyncio.create_task(web.serve())
    while not web.started:  # noqa: ASYNC110 - uvicorn has no event for it
        await asyncio.sleep(0.01)
    try:
        async with (
            http.streamable_http_client(f"http://127.0.0.1:{port}/mcp") as (read, write, *_),
            mcp.ClientSession(read, write) as session,
        ):
            await session.initialize()
            yield session
    finally:
        web.should_exit = True
        await task


TRANSPORTS = {"in memory": in_memory, "over http": over_http}


def _text(result: Any) -> str:
    return str(result.content[0].text)


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_tool_is_counted_at_both_ends_of_one_trace(server: Any, transport: str) -> None:
    """The client counts a tool and the server a request; an error in the answer is one; what carries them is no request of its own."""
    traces = []

    @sage_obs.agent("caller")
    async def caller(session: Any) -> None:
        await session.list_tools()
        traces.append(sage_obs.current().trace_id)
        assert _text(await session.call_tool("add", {"x": 1, "y": 2})) == f"3 {traces[0]}"
        assert "Error executing tool fail" in _text(await session.call_tool("fail", {}))

    with capture() as seen:
        _in_session(transport, server, caller)
    assert seen.value(TOOL_CALLS.name, tool="add", outcome="success") == seen.value(f"{TOOL_DURATION.name}_count", tool="add") == 1
    assert seen.value(TOOL_CALLS.name, tool="fail", outcome="server_error") == seen.value(TOOL_CALLS.name) - 1 == 1
    requests = {name: seen.value(REQUESTS.name, protocol="mcp", operation=f"tools/call {name}") for name in ("add", "fail")}
    assert requests == {"add": 1, "fail": 1}
    assert seen.value(REQUESTS.name, operation="tools/call fail", outcome="server_error") == 1
    assert seen.value(REQUESTS.name, operation="tools/list", outcome="success") >= 1
    assert seen.value(f"{REQUEST_DURATION.name}_count", protocol="mcp") == seen.value(REQUESTS.name, protocol="mcp")
    assert seen.value(REQUESTS.name, protocol="http") == 0
    assert seen.value(ERRORS.name, error_type="tool_error") == seen.value(ERRORS.name) == 1
    assert seen.value(REQUESTS_IN_FLIGHT.name) == seen.value(INTERNAL_ERRORS.name) == 0
    spans = {span.span_id: span for span in seen.spans}
    served = seen.span("tools/call add")
    above = [served.name]
    while (parent := spans.get(served.parent_id)) is not None:
        served = parent
        above.append(parent.name)
    assert [name for name in above if not name.startswith("MCP send")] == ["tools/call add", "execute_tool add", "invoke_agent caller"]
    assert seen.span("execute_tool fail").attributes["error.type"] == "tool_error"
    (line,) = [line for line in seen.lines if line["message"] == "adding"]
    assert line["trace_id"] == traces[0]


def _in_session(transport: str, server: Any, work: Work) -> None:
    async def main() -> None:
        async with TRANSPORTS[transport](server) as session:
            await work(session)

    asyncio.run(main())


@pytest.mark.parametrize(("content", "told"), [("full", ('{"x":1,"y":2}', "3 ")), ("no_tool_content", None), ("off", None)])
def test_what_a_tool_is_given_and_says_is_on_its_span_where_that_is_asked_for(
    server: Any, content: str, told: tuple[str, str] | None
) -> None:
    """Arguments and result at the client, and nothing of either otherwise."""

    @sage_obs.agent("caller")
    async def caller(session: Any) -> None:
        await session.call_tool("add", {"x": 1, "y": 2})

    with capture(content=content) as seen:
        _in_session("in memory", server, caller)
    attributes = seen.span("execute_tool add").attributes
    found = attributes.get(TOOL_ARGUMENTS), attributes.get(TOOL_RESULT)
    if told is None:
        assert found == (None, None)
    else:
        assert found[0] == told[0]
        assert told[1] in str(found[1])


def test_what_a_client_makes_up_is_no_operation_and_its_own_fault(server: Any) -> None:
    """A tool nobody has is a call that fails at both ends, and no more series than one come of many of them."""

    async def caller(session: Any) -> None:
        for number in range(3):
            with pytest.raises(Exception, match="nknown"):
                _raised(await session.call_tool(f"none{number}", {}))

    with capture() as seen:
        _in_session("in memory", server, caller)
    assert seen.value(REQUESTS.name, protocol="mcp", outcome="success") == seen.value(REQUESTS.name, protocol="mcp") - 3
    made_up = [span.name for span in seen.spans if span.kind == "server" and "none" in span.name]
    assert made_up == []
    assert seen.value(REQUESTS.name, operation="tools/call", outcome="client_error") == 3
    assert seen.value(TOOL_CALLS.name, outcome="client_error") == 3
    assert seen.value(TOOL_CALLS.name) == 3
    assert seen.value(REQUESTS_IN_FLIGHT.name) == 0


def _raised(result: Any) -> None:
    """Raise what the answer says, as some versions of the SDK do by themselves."""
    raise RuntimeError(_text(result))


def test_a_call_that_is_given_up_was_cancelled_or_timed_out(server: Any) -> None:
    """The client's patience ends; the tool counts as timed out there, and the trace stays usable."""
    waiting = asyncio.Event()

    @server.tool()  # type: ignore[untyped-decorator]
    async def wait() -> str:
        await waiting.wait()
        return ""

    async def caller(session: Any) -> None:
        patience = dt.timedelta(seconds=0.05) if OLD else 0.05
        with pytest.raises(Exception, match=r"[Tt]imed out"):
            await session.call_tool("wait", {}, patience)
        task = asyncio.create_task(session.call_tool("wait", {}))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    with capture() as seen:
        _in_session("in memory", server, caller)
    assert seen.value(TOOL_CALLS.name, tool="wait", outcome="server_error") == 1
    assert seen.value(TOOL_CALLS.name, tool="wait", outcome="cancelled") == 1
    assert seen.value(INTERNAL_ERRORS.name) == 0


def test_a_server_that_has_the_transport_already_keeps_its_lines_off_it_too(tmp_path: Path) -> None:
    """`stdio_server` may have been imported by name before `instrument()`."""
    program = tmp_path / "server.py"
    program.write_text(EARLY)
    hello = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "c", "version": "1"}}
    request = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": hello}) + "\n"
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen([sys.executable, str(program)], stdin=-1, stdout=-1, stderr=-1, text=True, env=environ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(request)
        process.stdin.flush()
        first = process.stdout.readline()
        rest, log = process.communicate(timeout=30)
    assert [json.loads(line)["jsonrpc"] for line in (first + rest).splitlines()] == ["2.0"]
    assert '"message":"serving"' in log


EARLY = """\
import asyncio
import logging

from mcp.server.lowlevel import Server
from mcp.server.stdio import stdio_server

import sage_obs

sage_obs.instrument("shop", metrics_port=0, log_output="stdout")
server = Server("shop")


async def main():
    async with stdio_server() as (read, write):
        logging.getLogger("shop").info("serving")
        await server.run(read, write, server.create_initialization_options())


asyncio.run(main())
"""


def test_lines_of_a_server_on_stdio_keep_off_what_it_says(tmp_path: Path) -> None:
    """Stdout is the protocol's, so lines go to stderr; the trace of the caller goes on in the other process."""
    program = tmp_path / "server.py"
    program.write_text('import sage_obs\nsage_obs.instrument("shop", metrics_port=0)\n' + TOOLS + "server.run()\n")
    said = []

    @sage_obs.agent("caller")
    async def caller() -> None:
        parameters = mcp.StdioServerParameters(command=sys.executable, args=[str(program)], env={"PYTHONPATH": os.pathsep.join(sys.path)})
        with (tmp_path / "log").open("w") as log:
            async with stdio.stdio_client(parameters, errlog=log) as (read, write), mcp.ClientSession(read, write) as session:
                await session.initialize()
                said.append(_text(await session.call_tool("add", {"x": 1, "y": 2})))
                said.append(f"3 {sage_obs.current().trace_id}")

    with capture() as seen:
        asyncio.run(caller())
    assert said[0] == said[1]
    assert not [message for message in seen.messages if "arse" in message]
    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines() if line.startswith("{")]
    found = {line["message"]: line.get("trace_id") for line in lines}
    assert f"3 {found['MCP tools/call add ok']}" == f"3 {found['adding']}" == said[0]


ALONE = """\
import sage_obs
from tests.integration import test_mcp

sage_obs.instrument("alone", metrics_host="127.0.0.1", metrics_port=0, log_output="/dev/null")
found = {}
exec(test_mcp.TOOLS, found)


@sage_obs.agent("caller")
async def caller(session):
    assert test_mcp._text(await session.call_tool("add", {"x": 1, "y": 2})) == f"3 {sage_obs.current().trace_id}"
    print("done")


test_mcp._in_session("in memory", found["server"], caller)
"""


def test_the_trace_goes_along_without_a_backend_for_spans() -> None:
    """In a process where nobody receives spans, and OpenTelemetry has no provider, the server has the caller's trace all the same."""
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", ALONE], cwd=root, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.endswith("done\n"), done.stderr


def test_nothing_is_measured_while_the_layer_is_off(instrument: Start, server: Any) -> None:
    """After `uninstrument` both ends are the SDK's own, and a session goes on."""

    async def caller(session: Any) -> None:
        await session.call_tool("add", {"x": 1, "y": 2})
        assert value(TOOL_CALLS, tool="add") == 1
        sage_obs.uninstrument()
        assert _text(await session.call_tool("add", {"x": 1, "y": 2})) == "3 "

    instrument(libraries=["mcp"], log_output="/dev/null")
    _in_session("in memory", server, caller)
