"""A fleet as boards are made for: two releases of the agent and a service of somebody's, under traffic with faults, and a past."""

from __future__ import annotations

import contextlib
import ssl
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import httpx
import trustme
from prometheus_client.parser import text_string_to_metric_families

from sage_agent.security.fingerprints import fingerprint
from sage_obs.alerts.catalogue import groups
from sage_obs.alerts.links import Links
from sage_obs.alerts.render import rules_text
from sage_obs.conventions import EXPERIENCE, JOB, LLM_COST, REQUEST_OVERHEAD, REQUESTS
from sage_obs.slo.windows import DRILL
from sage_obs.stack.binaries import find
from tests.support.agents import RunningAgent, running_agent
from tests.support.openai_server import fake_openai
from tests.support.prometheus import Prometheus, running_prometheus
from tests.support.services import Service, running, wait_until

KEY: Final = "sage_a_key_that_is_long_enough"
OLD, NEW = "1.0.0", "1.1.0"
_CONFIG: Final = """\
llm:
  provider: openai
  model: gpt-4o-mini
  base_url: {upstream}
  api_key: file:{secret}
  fallbacks: [{{provider: scripted, model: scripted}}]
  retry: {{max_wait: 100ms}}
  breaker: {{failure_share: 1}}
  scripted: {{latency: 30ms, error_rate: {failing}}}
performance:
  cache: {{enabled: true}}
  concurrency: {{worker_pool_size: 1, max_concurrent: 1}}
budgets: {{agent: 100, tenant: 10, tenants_shown: [acme]}}
security:
  api_keys: [{{id: caller, tenant: acme, sha256: "{key}"}}]
  rate_limit: {{per_second: 1000, burst: 1000}}
  audit: {{path: {folder}/audit.jsonl, key: a key that is long enough to be one}}
secrets: {{refresh: 1s}}
"""
_SHOP: Final = """\
import asyncio
import os

from starlette.applications import Starlette
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route

import sage_obs

sage_obs.instrument("shop", version=os.environ["VERSION"])


@sage_obs.tool("search")
async def search(number):
    await asyncio.sleep(0.01)
    if number % 2:
        raise LookupError("on purpose")


async def ask(request):
    number = int(request.path_params["number"])
    for step in range(number % 4 + 1):
        with sage_obs.llm_call("openai", "gpt-5") as call:
            await asyncio.sleep(0.01)
            call.usage(input=100, output=40, cached_read=50, reasoning=20)
    try:
        await search(number)
    except LookupError:
        pass
    return PlainTextResponse("done")


async def stream(request):
    async def pieces():
        for _ in range(3):
            yield b"piece"
            await asyncio.sleep(0.005)
    return StreamingResponse(pieces())


app = Starlette(routes=[Route("/ask/{number}", ask), Route("/stream", stream)])
"""
PAST: Final = (REQUESTS, REQUEST_OVERHEAD, LLM_COST, EXPERIENCE)
"""What boards compare with an earlier time."""


@dataclass(slots=True)
class Traffic:
    """Bounded traffic from a few threads until told to stop; `met` counts answers by status."""

    over: threading.Event = field(default_factory=threading.Event)
    met: Counter[str] = field(default_factory=Counter)

    @contextmanager
    def flowing(self, agent: str, context: ssl.SSLContext, *, shop: str, fault: str = "") -> Iterator[None]:
        """Traffic to an agent and to the shop while the block lasts; a quarter of the prompts are the `fault`, if there is one."""
        threads = [threading.Thread(target=self._send, args=(agent, context, shop, fault)) for _ in range(3)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self.over.set()
            for thread in threads:
                thread.join(15)

    def _send(self, url: str, context: ssl.SSLContext, shop: str, fault: str) -> None:
        """Prompts that succeed, fail upstream, are refused, repeat or cannot be read."""
        headers = {"authorization": f"Bearer {KEY}"}
        with httpx.Client(base_url=url, verify=context, headers=headers, trust_env=False) as agent, httpx.Client(trust_env=False) as other:
            number = 0
            while not self.over.wait(0.02):
                self._ask(agent, number, fault)
                self._count(other.get(f"{shop}/ask/{number}" if number % 3 else f"{shop}/stream"))
                number += 1

    def _ask(self, client: httpx.Client, number: int, fault: str) -> None:
        prompt = (
            "rate limit" if number % 97 == 50 else ("again", f"new {number}", f"newer {number}", fault or f"newest {number}")[number % 4]
        )
        path = "/v1/messages/stream" if number % 2 else "/v1/messages"
        body = b"{" if number % 31 == 0 else b'{"parts": [{"kind": "text", "text": "%s"}]}' % prompt.encode()
        fresh = {"cache-control": "no-cache"} if prompt == fault else {}  # or one success would be the answer from then on
        self._count(client.post(path, content=body, headers={"content-type": "application/json", **fresh}))

    def _count(self, answer: httpx.Response) -> None:
        answer.read()
        self.met[str(answer.status_code)] += 1


@dataclass(frozen=True, slots=True)
class Fleet:
    """What runs, and the Prometheus that looks at it."""

    prometheus: Prometheus
    agents: tuple[RunningAgent, ...]
    shop: Service
    met: Counter[str]


@contextmanager
def running_fleet(folder: Path) -> Iterator[Fleet]:
    """A fleet whose newer release fails, once everything that boards show has had the time to happen."""
    rules = rules_text(groups(DRILL, links=Links()), profile=DRILL.name)
    authority, traffic = trustme.CA(), Traffic()
    context = ssl.create_default_context()
    authority.configure_trust(context)
    with contextlib.ExitStack() as stack:
        upstream = stack.enter_context(fake_openai()).base_url
        shop = stack.enter_context(_shop(folder / "shop"))
        old = stack.enter_context(_agent(folder / "old", OLD, upstream, failing=0, authority=authority))
        stack.enter_context(traffic.flowing(old.url.replace("http:", "https:"), context, shop=shop.url))
        wait_until(lambda: traffic.met["200"] > _FIRST)
        _backfill(folder, (old.ops_url, shop.ops_url))
        prometheus = stack.enter_context(running_prometheus(folder, DRILL, rules=rules))
        prometheus.scrape(_host(old.ops_url), _host(shop.ops_url))
        time.sleep(DRILL.novelty + 4)  # a release is new only in a job that was there before
        new = stack.enter_context(_agent(folder / "new", NEW, upstream, failing=0.9, authority=None))
        prometheus.scrape(_host(old.ops_url), _host(shop.ops_url), _host(new.ops_url))
        stack.enter_context(traffic.flowing(new.url, context, shop=shop.url, fault="broken"))
        prometheus.wait(lambda: prometheus.query(_FIRING), seconds=60, what="an alert about the newer release")
        time.sleep(20)  # a whole window of everything
        yield Fleet(prometheus, (old, new), shop, traffic.met)


_FIRST: Final = 50
"""Answers after which every series is there that a past is made for."""
_FIRING: Final = 'ALERTS{alertstate="firing", action="rollback"}'


@contextmanager
def _agent(folder: Path, version: str, upstream: str, *, failing: float, authority: trustme.CA | None) -> Iterator[RunningAgent]:
    folder.mkdir()
    (folder / "secret").write_text("key-of-upstream")
    text = _CONFIG.format(upstream=upstream, secret=folder / "secret", failing=failing, key=fingerprint(KEY), folder=folder)
    (folder / "config.yaml").write_text(text)
    environ = {"SAGE_SERVICE_VERSION": version, "SAGE_AGENT_ID": f"agent-{version}", "SAGE_PROFILING_PORT": "0"}
    if authority is not None:
        issued = authority.issue_cert("127.0.0.1", "localhost")
        issued.private_key_pem.write_to_path(folder / "key.pem")
        for blob in issued.cert_chain_pems:
            blob.write_to_path(folder / "cert.pem", append=True)
        environ |= {"SAGE_TLS_CERT": str(folder / "cert.pem"), "SAGE_TLS_KEY": str(folder / "key.pem")}
    with running_agent(folder, environ=environ) as agent:
        yield agent


@contextmanager
def _shop(folder: Path) -> Iterator[Service]:
    folder.mkdir()
    command = ("-m", "uvicorn", "service:app", "--port", "{port}", "--log-level", "warning")
    with running(folder, _SHOP, *command, environ={"VERSION": OLD, "SAGE_AGENT_ID": "shop"}) as service:
        yield service


def _host(url: str) -> str:
    return url.removeprefix("http://")


def _backfill(folder: Path, ops_urls: Sequence[str]) -> None:
    """Blocks in which what is compared with an earlier time has one: as it is scraped now, rising a little with each sample."""
    past, data = folder / "past.om", folder / "data"
    lines = [line for url in ops_urls for line in _risen(url)]
    families: dict[str, list[str]] = {}
    for family, line in lines:
        families.setdefault(family, []).append(line)
    text = "".join(f"# TYPE {family} unknown\n" + "\n".join(found) + "\n" for family, found in sorted(families.items()))
    past.write_text(text + "# EOF\n")
    command = [str(find("promtool")), "tsdb", "create-blocks-from", "openmetrics", str(past), str(data)]
    subprocess.run(command, check=True, capture_output=True)


def _risen(ops_url: str) -> Iterator[tuple[str, str]]:
    now = time.time()
    hours = (*range(-25 * 3600, -86400 - 120, 300), *range(-86400 - 120, -86400 + 300, 5), *range(-3600 - 120, -3600 + 300, 5))
    names = {name for metric in PAST for name in metric.series}
    text = httpx.get(f"{ops_url}/metrics", trust_env=False).text
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name in names:
                labels = {**sample.labels, "job": JOB, "instance": _host(ops_url)}
                pairs = ",".join(f'{key}="{value}"' for key, value in labels.items())
                step = 0 if sample.labels.get("outcome") in {"server_error", "frustrated"} else 1
                for number, at in enumerate(hours):
                    yield sample.name, f"{sample.name}{{{pairs}}} {number * step} {now + at:.3f}"
