"""A thousand malformed requests, as bytes on the wire of a real agent, and the ways in which requests are smuggled."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import h11
import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.agents import BODY, RunningAgent, running_agent

_BODY = json.dumps(BODY).encode()
_METHODS = st.sampled_from([b"POST", b"POST", b"POST", b"GET", b"PUT", b"PATCH", b"DELETE", b"OPTIONS", b"post", b"P\x00ST", b""])
_TARGETS = st.sampled_from(
    [
        b"/v1/messages",
        b"/v1/messages",
        b"/v1/messages/stream",
        b"/sage/message",
        b"/a2a",
        b"/.well-known/agent-card.json",
        b"/%ff",
        b"/v1/messages%2f..",
        b"//v1/messages",
        b"http://x/v1/messages",
        b"*",
        b"x",
        b"/" + b"a" * 9000,
        b"/\xff",
    ]
)
_NAMES = st.sampled_from(
    [
        b"content-type",
        b"content-length",
        b"transfer-encoding",
        b"host",
        b"expect",
        b"connection",
        b"upgrade",
        b"traceparent",
        b"x-request-id",
    ]
) | st.binary(min_size=1, max_size=12)
_VALUES = st.sampled_from(
    [b"application/json", b"chunked", b"5", b"-1", b"100-continue", b"close", b"websocket", b"gzip, chunked", b"x" * 5000]
)
_HEADERS = st.lists(st.tuples(_NAMES, _VALUES | st.binary(max_size=30)), max_size=6)
_BODIES = st.sampled_from([_BODY, b"", b"{", b"[]", b"null", b'{"parts": 1}', b'{"message": []}', b"\xff\xfe", b"[" * 3000]) | st.binary(
    max_size=60
)
_CUTS = st.none() | st.tuples(st.integers(0, 200), st.binary(max_size=3))


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningAgent]:
    """One for all of them, without much patience."""
    environ = {"SAGE_SERVER_REQUEST_TIMEOUT": "300ms", "SAGE_LLM_SCRIPTED_LATENCY": "0", "SAGE_SERVER_MAX_BODY_BYTES": "4096"}
    with running_agent(tmp_path_factory.mktemp("agent"), environ=environ) as running:
        yield running


def _send(agent: RunningAgent, raw: bytes, *, patience: float = 0.6) -> bytes:
    """What comes back until the agent closes, or says nothing for so long."""
    with socket.create_connection(("127.0.0.1", agent.start["port"]), timeout=5) as connection:
        answer = b""
        try:
            connection.sendall(raw)
            connection.settimeout(patience if raw.count(b"\r\n\r\n") else 0.05)
            while piece := connection.recv(65536):
                answer += piece
                if _is_whole(answer):
                    break
        except (TimeoutError, ConnectionError):
            pass
    return answer


def _is_whole(answer: bytes) -> bool:
    try:
        return bool(_parse(answer))
    except h11.RemoteProtocolError:
        return False


def _parse(answer: bytes) -> list[tuple[int, bytes]]:
    """Every whole response, as h11 reads them: status and body."""
    found: list[tuple[int, bytes]] = []
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method="POST", target="/", headers=[("host", "a"), ("content-length", "0")]))
    client.send(h11.EndOfMessage())
    client.receive_data(answer)
    status, body = 0, b""
    while True:
        event = client.next_event()
        if isinstance(event, h11.InformationalResponse):
            continue
        if isinstance(event, h11.Response):
            status, body = event.status_code, b""
        elif isinstance(event, h11.Data):
            body += bytes(event.data)
        elif isinstance(event, h11.EndOfMessage):
            found.append((status, body))
            return found
        else:
            return found


@settings(max_examples=1000, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(method=_METHODS, target=_TARGETS, headers=_HEADERS, body=_BODIES, cut=_CUTS, whole=st.booleans())
def test_a_malformed_request_is_never_the_agents_fault(
    agent: RunningAgent,
    method: bytes,
    target: bytes,
    headers: list[tuple[bytes, bytes]],
    body: bytes,
    cut: tuple[int, bytes] | None,
    *,
    whole: bool,
) -> None:
    """Whatever is sent: no 500, and every refusal is JSON with a request id."""
    lines = [b"%b %b HTTP/1.1" % (method, target), b"host: a", *(name + b": " + value for name, value in headers)]
    if whole:
        lines.append(b"content-length: %d" % len(body))
    raw = b"\r\n".join(lines) + b"\r\n\r\n" + body
    if cut is not None:
        raw = raw[: cut[0]] + cut[1] + raw[cut[0] + len(cut[1]) :]
    answer = _send(agent, raw)
    for status, said in _parse(answer) if answer else []:
        assert status not in {500, 501, 502}, (raw, said)
        if status >= 400:
            error = json.loads(said)["error"]
            assert error["request_id"]
            assert error["message"]
            assert b"Traceback" not in said


def test_after_all_that_the_agent_is_well(agent: RunningAgent) -> None:
    """It answers, holds no connection and no request, and its log has no traceback."""
    assert httpx.post(f"{agent.url}/v1/messages", json=BODY).status_code == httpx.codes.OK
    assert httpx.get(f"{agent.url}/health/ready").json()["status"] == "healthy"
    in_flight = [
        line for line in httpx.get(f"{agent.ops_url}/metrics").text.splitlines() if line.startswith("sage_agent_requests_in_flight{")
    ]
    assert [float(line.split()[-1]) for line in in_flight] == [0.0]
    assert "error.stack" not in agent.process.log.read_text()


_ONE = b"POST /v1/messages HTTP/1.1\r\nhost: a\r\n"


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (_ONE + b"content-length: 3\r\ncontent-length: 4\r\n\r\nabcd", 400),
        (_ONE + b"content-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (_ONE + b"transfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n", 400),
        (_ONE + b"transfer-encoding: xchunked\r\n\r\n0\r\n\r\n", 400),
        (_ONE + b"content-length: +3\r\n\r\nabc", 400),
        (_ONE + b"content-length : 3\r\n\r\nabc", 400),
        (_ONE + b"x: a\r\n b\r\ncontent-length: 2\r\n\r\n{}", 400),
        (_ONE + b"x: a\x00b\r\n\r\n", 400),
        (b"POST /v1/messages HTTP/1.1\r\ncontent-length: 2\r\n\r\n{}", 400),
        (_ONE + b"host: b\r\ncontent-length: 2\r\n\r\n{}", 400),
        (b"POST /v1/messages HTTP/2.0\r\nhost: a\r\ncontent-length: 2\r\n\r\n{}", 505),
        (b"POST /v1/messages HTTP/0.9\r\nhost: a\r\ncontent-length: 2\r\n\r\n{}", 505),
        (_ONE.replace(b"1.1", b"1.0") + b"transfer-encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(_BODY), _BODY), 400),
        (_ONE + b"".join(b"x-%d: 1\r\n" % number for number in range(200)) + b"\r\n", 431),
        (_ONE + b"x: " + b"y" * 40_000 + b"\r\n\r\n", 431),
        (_ONE + b"transfer-encoding: chunked\r\n\r\nZZ\r\n", 400),
        (_ONE + b"content-length: 99999\r\n\r\n", 413),
    ],
    ids=[
        "two lengths",
        "length and chunks",
        "encoding after chunks",
        "unknown encoding",
        "signed length",
        "space before the colon",
        "folded header",
        "zero in a header",
        "no host",
        "two hosts",
        "another version",
        "an older version",
        "chunks before HTTP/1.1",
        "many headers",
        "long header",
        "chunk size",
        "long body",
    ],
)
def test_what_could_be_read_in_two_ways_is_refused_and_the_connection_closed(agent: RunningAgent, raw: bytes, status: int) -> None:
    """Nothing that follows on the connection is taken for a request."""
    second = _ONE + b"content-length: %d\r\n\r\n" % len(_BODY) + _BODY
    with socket.create_connection(("127.0.0.1", agent.start["port"]), timeout=5) as connection:
        connection.sendall(raw + second)
        answer = b""
        try:
            while piece := connection.recv(65536):
                answer += piece
        except ConnectionError:
            pass
    assert answer.startswith(b"HTTP/1.1 %d" % status)
    assert len(re.findall(rb"HTTP/1.1 \d", answer)) == 1
    assert b"connection: close" in answer.lower()


def test_requests_that_are_sent_together_are_answered_in_order(agent: RunningAgent) -> None:
    """Pipelining: each gets its own answer, the last one closes."""
    ask = _ONE + b"content-length: %d\r\n\r\n" % len(_BODY) + _BODY
    wrong = _ONE + b"content-length: 2\r\n\r\n[]"
    last = b"GET /nothing HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n"
    with socket.create_connection(("127.0.0.1", agent.start["port"]), timeout=5) as connection:
        connection.sendall(ask + wrong + ask + last)
        answer = b""
        while piece := connection.recv(65536):
            answer += piece
    statuses = [int(part[:3]) for part in answer.split(b"HTTP/1.1 ")[1:]]
    assert statuses == [200, 400, 200, 404]


def test_a_slow_body_is_given_up_and_one_that_was_announced_is_asked_for(agent: RunningAgent) -> None:
    """Expect: 100-continue is answered before the body is sent; a body that never comes is 408."""
    with socket.create_connection(("127.0.0.1", agent.start["port"]), timeout=5) as connection:
        connection.sendall(_ONE + b"expect: 100-continue\r\ncontent-length: %d\r\n\r\n" % len(_BODY))
        assert connection.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(_BODY)
        assert connection.recv(100).startswith(b"HTTP/1.1 200 ")
    assert _send(agent, _ONE + b"content-length: 50\r\n\r\nabc", patience=3).startswith(b"HTTP/1.1 408 ")


def test_a_body_in_chunks_is_read(agent: RunningAgent) -> None:
    """Whatever their sizes."""
    pieces = [_BODY[at : at + 7] for at in range(0, len(_BODY), 7)]
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
    assert _send(agent, _ONE + b"transfer-encoding: chunked\r\n\r\n" + chunks).startswith(b"HTTP/1.1 200 ")


def test_head_has_no_body(agent: RunningAgent) -> None:
    """And leaves the connection usable."""
    with httpx.Client(base_url=agent.url) as client:
        answer = client.head("/health/live")
        assert (answer.status_code, answer.content) == (200, b"")
        assert client.post("/v1/messages", json=BODY).status_code == httpx.codes.OK


@pytest.mark.parametrize("chunked", [True, False], ids=["chunked", "length"])
def test_a_request_that_would_rather_speak_another_protocol_is_answered_in_this_one(agent: RunningAgent, *, chunked: bool) -> None:
    """As Java's HttpClient asks for h2c with every message; what follows on the connection is not answered."""
    upgrade = b"connection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AAEAAEAA\r\n"
    framed = b"transfer-encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" if chunked else b"content-length: %d\r\n\r\n%b"
    answer = _send_all(agent, _ONE + upgrade + framed % (len(_BODY), _BODY) + b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert len(re.findall(rb"HTTP/1.1 \d", answer)) == 1


def test_what_comes_after_a_body_changes_nothing_of_its_head(agent: RunningAgent) -> None:
    """A trailer is no header: the media type it names is not the body's."""
    chunks = b"%x\r\n%b\r\n0\r\ncontent-type: text/plain\r\n\r\n" % (len(_BODY), _BODY)
    assert _send(agent, _ONE + b"transfer-encoding: chunked\r\n\r\n" + chunks).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("piece", [b"x: %b\r\n" % (b"y" * 100), b"y"], ids=["many", "one"])
def test_trailers_without_an_end_are_refused(agent: RunningAgent, piece: bytes) -> None:
    """They are bounded as a head is."""
    ask = _ONE + b"transfer-encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n" % (len(_BODY), _BODY)
    assert _send(agent, ask + b"x: " + piece * (200_000 // len(piece))).startswith(b"HTTP/1.1 431 ")


def test_an_older_caller_is_not_told_to_continue(agent: RunningAgent) -> None:
    """HTTP/1.0 knows no 100 (RFC 9110, section 10.1.1)."""
    ask = _ONE.replace(b"1.1", b"1.0") + b"expect: 100-continue\r\ncontent-length: %d\r\n\r\n"
    assert _send_all(agent, ask % len(_BODY)).startswith(b"HTTP/1.1 408 ")


def test_who_does_not_read_its_answers_is_not_read_either(agent: RunningAgent) -> None:
    """A caller that only asks is left waiting, and its answers do not pile up."""
    ask = b"GET /nothing HTTP/1.1\r\nhost: a\r\nx: %b\r\n\r\n" % (b"y" * 1000)
    before = _resident(agent)
    with socket.create_connection(("127.0.0.1", agent.start["port"]), timeout=3) as connection:
        with pytest.raises(TimeoutError):
            connection.sendall(ask * 100_000)
        assert _resident(agent) - before < 10_000_000


def test_a_flood_of_small_requests_is_bounded(agent: RunningAgent) -> None:
    """Of nine thousand at once the first is answered, and none of the rest is kept."""
    answer = _send_all(agent, b"GET /n HTTP/1.1\r\nhost:a\r\n\r\n" * 9000)
    assert len(re.findall(rb"HTTP/1.1 \d", answer)) < 9000


def _send_all(agent: RunningAgent, raw: bytes) -> bytes:
    """Everything that comes back until the agent closes."""
    with socket.create_connection(("127.0.0.1", agent.start["port"]), timeout=10) as connection:
        answer = b""
        try:
            connection.sendall(raw)
            while piece := connection.recv(65536):
                answer += piece
        except ConnectionError:
            pass
    return answer


def _resident(agent: RunningAgent) -> int:
    """Bytes of memory that the agent holds."""
    status = Path(f"/proc/{agent.process.pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) * 1024
