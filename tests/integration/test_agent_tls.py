"""TLS, client certificates, API keys and rate limits of a real agent."""

from __future__ import annotations

import json
import signal
import socket
import ssl
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPSConnection
from pathlib import Path

import httpx
import pytest
import trustme

from sage_agent.security.fingerprints import fingerprint
from tests.support.agents import BODY, RunningAgent, running_agent, wait_for_line

_KEY = "sage_a_key_that_is_long_enough"


class Authority:
    """A certificate authority with its files in a folder."""

    def __init__(self, folder: Path) -> None:
        self._ca = trustme.CA()
        self._folder = folder
        self.file = folder / "ca.pem"
        self._ca.cert_pem.write_to_path(self.file)

    def issue(self, name: str, *names: str) -> tuple[Path, Path]:
        """A certificate and its key for these names."""
        cert, key = self._folder / f"{name}.pem", self._folder / f"{name}.key"
        issued = self._ca.issue_cert(*names)
        key.write_bytes(issued.private_key_pem.bytes())
        cert.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
        return cert, key

    def context(self, *own: Path) -> ssl.SSLContext:
        """A client's context that believes this authority, with a certificate of its own perhaps."""
        context = ssl.create_default_context(cafile=self.file)
        if own:
            context.load_cert_chain(own[0], own[1])
        return context


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """One for each test."""
    return Authority(tmp_path)


def _environ(cert: Path, key: Path, **more: str) -> dict[str, str]:
    return {"SAGE_TLS_CERT": str(cert), "SAGE_TLS_KEY": str(key), **more}


def _https(agent: RunningAgent) -> str:
    return f"https://127.0.0.1:{agent.start['port']}"


def test_tls_1_3_serves_and_older_ones_are_refused(tmp_path: Path, authority: Authority) -> None:
    """The chain verifies, the version is 1.3, openssl cannot have 1.2, and plain HTTP gets nothing."""
    with running_agent(tmp_path, environ=_environ(*authority.issue("server", "127.0.0.1"))) as agent:
        answer = httpx.post(f"{_https(agent)}/v1/messages", json=BODY, verify=authority.context())
        assert answer.status_code == httpx.codes.OK
        for version, works in (("-tls1_3", True), ("-tls1_2", False)):
            command = ["openssl", "s_client", "-connect", f"127.0.0.1:{agent.start['port']}", version, "-CAfile", str(authority.file)]
            done = subprocess.run(command, input=b"", capture_output=True, check=False, timeout=20)
            assert (b"BEGIN CERTIFICATE" in done.stdout) == works
        with pytest.raises(httpx.TransportError):
            httpx.post(f"http://127.0.0.1:{agent.start['port']}/v1/messages", json=BODY)
        metrics = httpx.get(f"{agent.ops_url}/metrics").text
        (expiry,) = [line for line in metrics.splitlines() if line.startswith("sage_tls_certificate_expiry_timestamp_seconds{")]
        assert float(expiry.split()[-1]) > time.time()


def test_a_new_certificate_is_used_without_a_failed_request(tmp_path: Path, authority: Authority) -> None:
    """Files that are swapped under load are what new connections get; a broken pair changes nothing."""
    cert, key = authority.issue("server", "127.0.0.1")
    results: Counter[str] = Counter()
    over = threading.Event()
    with running_agent(tmp_path, environ=_environ(cert, key)) as agent:

        def call() -> None:
            while not over.is_set():
                try:
                    answer = httpx.post(f"{_https(agent)}/v1/messages", json=BODY, verify=context)
                    results[str(answer.status_code)] += 1
                except httpx.TransportError as exc:
                    results[type(exc).__name__] += 1

        context = authority.context()
        before = ssl.get_server_certificate(("127.0.0.1", agent.start["port"]))
        thread = threading.Thread(target=call)
        thread.start()
        try:
            cert.write_bytes(b"nonsense")
            wait_for_line(agent.process, "the new certificate cannot be used; the one before stays")
            assert ssl.get_server_certificate(("127.0.0.1", agent.start["port"])) == before
            other = authority.issue("other", "127.0.0.1")
            other[1].replace(key)
            other[0].replace(cert)
            wait_for_line(agent.process, "the certificate was read anew")
            assert ssl.get_server_certificate(("127.0.0.1", agent.start["port"])) != before
            seen = results["200"]
            deadline = time.monotonic() + 10
            while results["200"] < seen + 5 and time.monotonic() < deadline:
                time.sleep(0.02)
        finally:
            over.set()
            thread.join(10)
    assert set(results) == {"200"}


def test_http_is_sent_on_to_https_except_for_probes(tmp_path: Path, authority: Authority) -> None:
    """308 with the same path and query; a host that is none gets nothing to go to."""
    environ = _environ(*authority.issue("server", "127.0.0.1"), SAGE_TLS_REDIRECT_PORT="0")
    with running_agent(tmp_path, environ=environ) as agent:
        port = wait_for_line(agent.process, "http is sent on to https")["port"]
        answer = httpx.post(f"http://127.0.0.1:{port}/v1/messages?a=1", json=BODY)
        assert (answer.status_code, answer.headers["location"]) == (308, f"{_https(agent)}/v1/messages?a=1")
        assert httpx.get(f"http://127.0.0.1:{port}/health/live").json()["status"] == "healthy"
        assert httpx.get(f"http://127.0.0.1:{port}/x", headers={"host": "evil\t.example"}).status_code == httpx.codes.BAD_REQUEST


@pytest.mark.parametrize("name", ["agent-a.example", "agent-b.example"])
def test_only_allowed_client_certificates_may_ask(tmp_path: Path, authority: Authority, name: str) -> None:
    """Without one there is no handshake; with one whose name is not allowed there is a 401."""
    environ = _environ(
        *authority.issue("server", "127.0.0.1"), SAGE_TLS_CLIENT_CA=str(authority.file), SAGE_TLS_ALLOW="dns:agent-a.example"
    )
    with running_agent(tmp_path, environ=environ) as agent:
        answer = httpx.post(f"{_https(agent)}/v1/messages", json=BODY, verify=authority.context(*authority.issue("client", name)))
        assert answer.status_code == (200 if name == "agent-a.example" else 401)
        with pytest.raises(httpx.TransportError):
            httpx.post(f"{_https(agent)}/v1/messages", json=BODY, verify=authority.context())
        stranger = tmp_path / "stranger"
        stranger.mkdir()
        wrong = Authority(stranger).issue("client", "agent-a.example")
        with pytest.raises(httpx.TransportError):
            httpx.post(f"{_https(agent)}/v1/messages", json=BODY, verify=authority.context(*wrong))


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[RunningAgent]:
    """An agent with a key and three messages a minute."""
    keys = [{"id": "ann", "tenant": "acme", "sha256": fingerprint(_KEY)}, {"id": "vic", "role": "viewer", "key": f"{_KEY}_viewer"}]
    environ = {"SAGE_API_KEYS": json.dumps(keys), "SAGE_RATE_LIMIT_PER_SECOND": "0.05", "SAGE_RATE_LIMIT_BURST": "3"}
    with running_agent(tmp_path, environ=environ) as agent:
        yield agent


def test_callers_prove_who_they_are_and_come_as_often_as_they_may(guarded: RunningAgent) -> None:
    """401, 403 and 429 are JSON with a request id; headers count down; probes and metrics need no key; no key is in the log."""
    url = f"{guarded.url}/v1/messages"
    answer = httpx.post(url, json=BODY)
    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
    assert answer.json()["error"]["type"] == "auth"
    assert answer.json()["error"]["request_id"]
    assert httpx.post(url, json=BODY, headers={"x-api-key": f"{_KEY}_viewer"}).status_code == httpx.codes.FORBIDDEN
    mine = {"authorization": f"Bearer {_KEY}"}
    answers = [httpx.post(url, json=BODY, headers=mine) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert [answer.headers["x-ratelimit-remaining"] for answer in answers] == ["2", "1", "0", "0"]
    assert 1 <= int(answers[-1].headers["retry-after"]) <= 20
    stream = httpx.post(f"{url}/stream", json=BODY, headers=mine)
    assert stream.status_code == httpx.codes.TOO_MANY_REQUESTS
    assert httpx.get(f"{guarded.url}/health/ready").status_code == httpx.codes.OK
    lines = httpx.get(f"{guarded.ops_url}/metrics").text.splitlines()
    (refused,) = [
        line for line in lines if line.startswith("sage_agent_rate_limit") and 'decision="refused"' in line and 'scope="caller"' in line
    ]
    assert float(refused.split()[-1]) == 2
    (unproved,) = [line for line in lines if line.startswith("sage_agent_errors_total") and 'error_type="auth"' in line]
    assert float(unproved.split()[-1]) == 2
    assert _KEY not in guarded.process.log.read_text()


def test_a_caller_who_had_connected_may_shake_hands_during_a_drain(tmp_path: Path, authority: Authority) -> None:
    """A connection that was taken before SIGTERM and encrypts after it is answered and told to close."""
    body = json.dumps(BODY).encode()
    ask = b"POST /v1/messages HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n\r\n" % len(body) + body
    with running_agent(tmp_path, environ=_environ(*authority.issue("server", "127.0.0.1"))) as agent:
        with socket.create_connection(("127.0.0.1", agent.start["port"]), timeout=10) as plain:
            httpx.post(f"{_https(agent)}/v1/messages", json=BODY, verify=authority.context())  # the one before it is taken, too
            agent.process.signal(signal.SIGTERM)
            wait_for_line(agent.process, "agent draining")
            time.sleep(0.3)
            with authority.context().wrap_socket(plain, server_hostname="127.0.0.1") as caller:
                caller.sendall(ask)
                answer = caller.recv(65536)
        assert agent.process.popen.wait(10) == 0
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"connection: close" in answer


def test_who_never_shakes_hands_does_not_hold_a_drain(tmp_path: Path, authority: Authority) -> None:
    """A connection on which nothing is said is given up long before the drain's deadline."""
    with (
        running_agent(tmp_path, environ=_environ(*authority.issue("server", "127.0.0.1"))) as agent,
        socket.create_connection(("127.0.0.1", agent.start["port"]), timeout=10),
    ):
        httpx.post(f"{_https(agent)}/v1/messages", json=BODY, verify=authority.context())
        agent.process.signal(signal.SIGTERM)
        assert agent.process.popen.wait(5) == 0


def test_an_idle_encrypted_connection_does_not_hold_a_drain(tmp_path: Path, authority: Authority) -> None:
    """A pooled connection, whose caller hears of its end only when it asks again, is closed long before the drain's deadline."""
    with running_agent(tmp_path, environ=_environ(*authority.issue("server", "127.0.0.1"))) as agent:
        caller = HTTPSConnection("127.0.0.1", agent.start["port"], timeout=10, context=authority.context())
        with closing(caller):
            caller.request("POST", "/v1/messages", json.dumps(BODY))
            assert caller.getresponse().read()
            agent.process.signal(signal.SIGTERM)
            assert agent.process.popen.wait(15) == 0
