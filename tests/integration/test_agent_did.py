"""Agents that prove who they are: real processes, real keys, DID documents over real TLS."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from sage_agent.security.identity import create, document
from sage_agent.security.signer import SignedBy, Signer, make_signer, new_private_key, read_signer, sign_request, to_pem
from sage_obs.processes import spawn, stop
from tests.support.agents import BODY, RunningAgent, read_lines, running_agent, wait_for_line
from tests.support.did_host import DidHost, did_host

_EVERYBODY = {"SAGE_DID_MODE": "required", "SAGE_DID_CALLERS": '["*"]'}


def _signed(agent: RunningAgent, signer: Signer, *, body: object = BODY, path: str = "/v1/messages") -> httpx.Request:
    request = httpx.Request("POST", agent.url + path, json=body)
    sign_request(request, signer)
    return request


def _send(request: httpx.Request) -> httpx.Response:
    with httpx.Client() as client:
        return client.send(request)


def _reasons(agent: RunningAgent, count: int) -> list[str]:
    """Why so many were refused; the log is written a moment later."""
    found: list[str] = []
    for _ in range(200):
        found = [line["reason"] for line in agent.lines() if line.get("message") == "signature refused"]
        if len(found) >= count:
            break
        time.sleep(0.02)
    return found


def _new_signer() -> Signer:
    return make_signer(to_pem(new_private_key("ed25519")))


@contextmanager
def _domain(tmp_path: Path, **environ: str) -> Iterator[tuple[DidHost, RunningAgent]]:
    """A DID host, and an agent that lets its DIDs in."""
    with did_host(tmp_path) as host:
        settings = {
            "SAGE_DID_MODE": "required",
            "SAGE_DID_CALLERS": json.dumps([{"did": f"{host.did}*", "tenant": "acme"}]),
            "SAGE_DID_CA_FILE": str(host.ca_file),
            "SAGE_DID_ALLOW_PRIVATE": "true",
            "SAGE_DID_FETCH_TIMEOUT": "1s",
        }
        with running_agent(tmp_path, environ=settings | environ) as agent:
            yield host, agent


def _of_domain(tmp_path: Path, did: str) -> tuple[Signer, dict[str, Any]]:
    """A key of a DID, and the DID's document."""
    key = tmp_path / f"key-{time.monotonic_ns()}.pem"
    create(key, "ed25519")
    return read_signer(key, keyid=f"{did}#key-1"), document(key, did)


def test_signed_requests_are_let_in_once_on_every_route(tmp_path: Path) -> None:
    """Messages, streams and A2A; unsigned, tampered with or a second time it is 401, in the same words, and counted as that."""
    signer = _new_signer()
    rpc = {"jsonrpc": "2.0", "id": 1, "method": "ListTasks", "params": {}}
    with running_agent(tmp_path, environ=_EVERYBODY) as agent:
        for path in ("/v1/messages", "/a2a/v1/messages", "/sage/message", "/v1/messages/stream"):
            assert _send(_signed(agent, signer, path=path)).status_code == 200, path
        once = _signed(agent, signer)
        assert _send(once).status_code == 200
        tampered = _signed(agent, signer)
        tampered.stream = httpx.ByteStream(tampered.content.replace(b"hello", b"hullo"))
        refusals = [
            _send(once),
            _send(tampered),
            httpx.post(f"{agent.url}/v1/messages", json=BODY),
            httpx.post(f"{agent.url}/a2a", json=rpc),
        ]
        assert {one.status_code for one in refusals} == {401}
        assert len({json.dumps({**one.json()["error"], "request_id": ""}) for one in refusals}) == 1
        assert refusals[0].json()["error"]["type"] == "signature_invalid"
        assert _reasons(agent, 4) == ["sig.replay", "digest.mismatch", "sig.missing", "sig.missing"]
        metrics = httpx.get(f"{agent.ops_url}/metrics").text
        assert 'error_type="signature_invalid"' in metrics
        assert httpx.get(f"{agent.url}/health/live").status_code == 200


def test_tasks_belong_to_the_did_that_asked(tmp_path: Path) -> None:
    """A caller lists and reads its own tasks, another one does not see them."""
    one, other = _new_signer(), _new_signer()
    headers = {"a2a-version": "1.0"}

    def ask(agent: RunningAgent, signer: Signer, method: str, params: Mapping[str, object]) -> dict[str, Any]:
        body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        return dict(httpx.post(f"{agent.url}/a2a", json=body, headers=headers, auth=SignedBy(signer)).json())

    message = {"message": {"messageId": "m", "role": "ROLE_USER", "parts": [{"text": "hi"}]}}
    with running_agent(tmp_path, environ=_EVERYBODY) as agent:
        ids = {ask(agent, one, "SendMessage", message)["result"]["task"]["id"] for _ in range(3)}
        first = ask(agent, one, "ListTasks", {"pageSize": 2})["result"]
        second = ask(agent, one, "ListTasks", {"pageSize": 2, "pageToken": first["nextPageToken"]})["result"]
        assert {task["id"] for task in (*first["tasks"], *second["tasks"])} == ids
        assert (first["totalSize"], len(second["tasks"]), second["nextPageToken"]) == (3, 1, "")
        assert ask(agent, other, "ListTasks", {})["result"]["tasks"] == []
        for task_id in ids:
            assert ask(agent, one, "GetTask", {"id": task_id})["result"]["status"]["state"] == "TASK_STATE_COMPLETED"
            assert ask(agent, other, "GetTask", {"id": task_id})["error"]["code"] == -32001
            assert ask(agent, other, "CancelTask", {"id": task_id})["error"]["code"] == -32001


def test_a_replay_on_another_replica_is_refused(tmp_path: Path) -> None:
    """Replicas share what was used once; the address they answer under is one."""
    environ = {**_EVERYBODY, "SAGE_STORAGE_PATH": str(tmp_path / "state.db"), "SAGE_DID_OWN_URLS": "https://agent.example"}
    request = httpx.Request("POST", "https://agent.example/v1/messages", json=BODY)
    sign_request(request, _new_signer())
    with running_agent(tmp_path, name="first", environ=environ) as first, running_agent(tmp_path, name="second", environ=environ) as second:
        statuses = [
            httpx.post(f"{one.url}/v1/messages", content=request.content, headers=request.headers).status_code for one in (first, second)
        ]
        assert statuses == [200, 401]
        assert _reasons(second, 1) == ["sig.replay"]


def test_a_did_web_is_resolved_remembered_and_its_tenant_known(tmp_path: Path) -> None:
    """Its document is fetched once for as long as its server allows; a key that is not in it is refused."""
    with _domain(tmp_path) as (host, agent):
        did = f"{host.did}:agents:clerk"
        signer, its_document = _of_domain(tmp_path, did)
        stranger, _ = _of_domain(tmp_path, did)
        host.serve_json("/agents/clerk/did.json", its_document)
        assert [_send(_signed(agent, one)).status_code for one in (signer, signer, stranger)] == [200, 200, 401]
        assert host.asked == ["/agents/clerk/did.json"]


@pytest.mark.parametrize(("cache", "environ"), [("no-store", {}), ("max-age=60", {"SAGE_DID_CACHE": "false"})])
def test_a_did_web_is_asked_each_time_where_it_or_the_operator_says_so(tmp_path: Path, cache: str, environ: dict[str, str]) -> None:
    """`no-store` and `did_cache: false` mean it."""
    with _domain(tmp_path, **environ) as (host, agent):
        signer, its_document = _of_domain(tmp_path, host.did)
        host.serve_json("/.well-known/did.json", its_document, cache=cache)
        assert [_send(_signed(agent, signer)).status_code for _ in range(2)] == [200, 200]
        assert len(host.asked) == 2


def test_a_host_that_behaves_badly_lets_nobody_in_and_keeps_nobody_waiting(tmp_path: Path) -> None:
    """A host that hangs, redirects, is not found, says too much, no JSON, or the document of another DID: 401 within its time."""
    with _domain(tmp_path) as (host, agent):
        signers = {
            name: _of_domain(tmp_path, f"{host.did}:{name}")[0] for name in ("hangs", "moved", "gone", "long", "text", "another", "bare")
        }
        elsewhere = {"location": "/.well-known/did.json"}
        _, own = _of_domain(tmp_path, host.did)
        host.serve_json("/.well-known/did.json", own)
        host.answers["/moved/did.json"] = lambda: (302, elsewhere, b"")
        host.answers["/gone/did.json"] = lambda: (404, {}, b"{}")
        host.answers["/long/did.json"] = lambda: (200, {}, b" " * 100_000)
        host.answers["/text/did.json"] = lambda: (200, {}, b"hello")
        host.serve_json("/another/did.json", own)
        host.serve_json("/bare/did.json", {"id": f"{host.did}:bare", "verificationMethod": own["verificationMethod"]})
        began = time.monotonic()
        assert {_send(_signed(agent, one)).status_code for one in signers.values()} == {401}
        assert time.monotonic() - began < 5
        wrong = ["size.exceeded", "record.of-another", "key.not-in-record"]
        assert sorted(_reasons(agent, 7)) == sorted(["record.unreachable"] * 4 + wrong)
        asked = len(host.asked)
        assert _send(_signed(agent, signers["hangs"])).status_code == 401
        assert len(host.asked) == asked


@pytest.mark.parametrize(
    ("environ", "reason"),
    [({"SAGE_DID_ALLOW_PRIVATE": "false"}, "record.private-address"), ({"SAGE_DID_CA_FILE": ""}, "record.unreachable")],
    ids=["private address", "unknown authority"],
)
def test_private_addresses_and_unknown_authorities_are_not_asked(tmp_path: Path, environ: dict[str, str], reason: str) -> None:
    """By default nobody makes an agent call into its own network, and TLS is checked."""
    with _domain(tmp_path, **environ) as (host, agent):
        signer, its_document = _of_domain(tmp_path, host.did)
        host.serve_json("/.well-known/did.json", its_document)
        assert _send(_signed(agent, signer)).status_code == 401
        assert (_reasons(agent, 1), host.asked) == ([reason], [])


def test_a_registry_file_names_keys_of_any_did_and_is_read_again(tmp_path: Path) -> None:
    """A DID of a chain, which this agent does not ask, works from the file; a file that breaks changes nothing."""
    did = "did:sage:ethereum:0x1111111111111111111111111111111111111111"
    (first, known), (second, later) = (_of_domain(tmp_path, did) for _ in range(2))
    registry = tmp_path / "registry.json"
    registry.write_text(json.dumps({did: known}))
    with running_agent(tmp_path, environ={**_EVERYBODY, "SAGE_DID_REGISTRY": str(registry)}) as agent:
        assert [_send(_signed(agent, one)).status_code for one in (first, second)] == [200, 401]
        registry.write_text("{")
        time.sleep(1.1)
        assert _send(_signed(agent, first)).status_code == 200
        registry.write_text(json.dumps({did: later}))
        time.sleep(1.1)
        assert [_send(_signed(agent, one)).status_code for one in (first, second)] == [401, 200]


def test_three_agents_call_one_another_under_one_trace(tmp_path: Path) -> None:
    """A calls B calls C, each request signed by the caller's own key, and the three logs agree on the trace."""
    keys = {}
    for name in ("user", "a", "b"):
        keys[name] = tmp_path / f"{name}.pem"
        create(keys[name], "ed25519")

    def admits(name: str) -> dict[str, str]:
        return {"SAGE_DID_MODE": "required", "SAGE_DID_CALLERS": json.dumps([read_signer(keys[name]).did]), "SAGE_STORAGE_TYPE": "memory"}

    processes = []
    try:
        with running_agent(tmp_path, name="c", environ=admits("b") | {"SAGE_AGENT_ID": "c"}) as last:
            urls = {"c": last.url}
            for name, caller, following in (("b", "a", "c"), ("a", "user", "b")):
                environ = {
                    **admits(caller),
                    "SAGE_AGENT_ID": name,
                    "SAGE_METRICS_PORT": "0",
                    "SAGE_METRICS_HOST": "127.0.0.1",
                    "SAGE_SERVER_HOST": "127.0.0.1",
                    "SAGE_SERVER_PORT": "0",
                    "PYTHONPATH": str(Path(__file__).parents[2]),
                }
                command = [sys.executable, "-m", "tests.support.relay", urls[following], str(keys[name])]
                processes.append(spawn(name, command, log=tmp_path / f"{name}.log", environment=environ))
                urls[name] = f"http://127.0.0.1:{wait_for_line(processes[-1], 'agent listening')['port']}"
            answer = httpx.post(f"{urls['a']}/v1/messages", json=BODY, auth=SignedBy(read_signer(keys["user"]))).raise_for_status()
            assert answer.json()["parts"][0]["text"].startswith("passed on: passed on: ")
            assert httpx.post(f"{urls['b']}/v1/messages", json=BODY, auth=SignedBy(read_signer(keys["user"]))).status_code == 401
            served = [_traces(read_lines(one)) for one in (*processes, last.process)]
            assert len(set.intersection(*served)) == 1
    finally:
        stop(processes, grace=5.0)


def _traces(lines: list[dict[str, Any]]) -> set[str]:
    """The traces of requests that were served."""
    return {line["trace_id"] for line in lines if line.get("trace_id") and line.get("message") != "signature refused"}


def test_the_command_line_makes_shows_and_uses_an_identity(tmp_path: Path) -> None:
    """`did new` never overwrites a key, `did show` prints its document, `did call` sends a signed message and says what went wrong."""

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "sage_agent", "did", *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)

    key = str(tmp_path / "key.pem")
    did = run("new", "--out", key).stdout.strip()
    assert did.startswith("did:key:z6Mk")
    assert (tmp_path / "key.pem").stat().st_mode & 0o777 == 0o600
    again = run("new", "--out", key)
    assert (again.returncode, again.stdout) == (2, "")
    assert "never overwritten" in again.stderr
    shown = json.loads(run("show", "--key", key, "--did", "did:web:agents.example").stdout)
    assert shown["authentication"] == ["did:web:agents.example#key-1"]
    environ = {"SAGE_DID_MODE": "required", "SAGE_DID_CALLERS": json.dumps([did])}
    with running_agent(tmp_path, environ=environ) as agent:
        called = run("call", agent.url, "hello there", "--key", key)
        assert "you sent 2 words" in json.loads(called.stdout)["parts"][0]["text"]
        run("new", "--out", f"{key}.other")
        refused = run("call", agent.url, "hello", "--key", f"{key}.other")
        assert refused.returncode != 0
        assert "401" in refused.stderr
        assert "Traceback" not in refused.stderr


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({"SAGE_DID_MODE": "required"}, "no signature would count"),
        ({**_EVERYBODY, "SAGE_DID_REGISTRY": "/nowhere.json"}, "/nowhere.json cannot be read"),
        ({**_EVERYBODY, "SAGE_DID_CA_FILE": "/nowhere.pem"}, "There is no file /nowhere.pem"),
    ],
)
def test_what_cannot_work_is_said_at_the_start(tmp_path: Path, environ: dict[str, str], said: str) -> None:
    """Exit code 2 and one sentence."""
    process = spawn("agent", [sys.executable, "-m", "sage_agent", "serve"], log=tmp_path / "agent.log", environment=environ)
    try:
        deadline = time.monotonic() + 20
        while process.exit_code is None and time.monotonic() < deadline:
            time.sleep(0.02)
        assert process.exit_code == 2
        assert said in process.log.read_text()
    finally:
        stop([process], grace=1.0)
