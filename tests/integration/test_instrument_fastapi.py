from __future__ import annotations

from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from sage_obs.conventions import ERRORS, REQUESTS, REQUESTS_IN_FLIGHT, TIME_TO_FIRST_BYTE
from tests.support.otlp import attributes, receiver
from tests.support.services import Service, running

SERVICE = """\
import asyncio
import logging

from fastapi import APIRouter, BackgroundTasks, Body, Depends, FastAPI, HTTPException
from fastapi.responses import StreamingResponse

app = FastAPI()
log = logging.getLogger("service")


def denied():
    raise HTTPException(403)


router, nested, sub = APIRouter(prefix="/v1"), APIRouter(prefix="/{tenant}/things"), FastAPI()


@nested.get("/{thing:int}")
async def thing(tenant: str, thing: int):
    return {"thing": thing}


@router.get("/denied/{x}", dependencies=[Depends(denied)])
def never(x):
    return {}


@router.post("/items/{item_id}")
async def items(item_id: int, count: int = Body(embed=True)):
    return {"count": count}


@app.get("/stream/{n}")
async def stream(n: int):
    async def pieces():
        for number in range(n):
            yield f"{number} "
            await asyncio.sleep(0)

    return StreamingResponse(pieces())


@app.get("/later")
async def later(tasks: BackgroundTasks):
    tasks.add_task(log.info, "after the answer")
    return {"now": True}


@app.get("/broken/{x}")
async def broken(x):
    raise RuntimeError("broken")


@sub.get("/leaf/{y}")
def leaf(y):
    log.info("leaf")
    return y


router.include_router(nested)
app.include_router(router, prefix="/api")
app.mount("/sub", sub)

import sage_obs

sage_obs.instrument("shop", sampling_rate=1.0)
"""
UVICORN = ("-m", "uvicorn", "service:app", "--port", "{port}")


def _serve(service: Service, client: httpx.Client) -> None:
    def ask(method: str, path: str, status: int, **arguments: object) -> httpx.Response:
        answer = client.request(method, service.url + path, **arguments)  # type: ignore[arg-type]
        assert answer.status_code == status
        assert answer.headers["x-request-id"]
        return answer

    ask("GET", "/api/v1/acme/things/7", 200)
    ask("GET", "/api/v1/denied/7", 403)
    ask("POST", "/api/v1/items/3", 200, json={"count": 1})
    ask("POST", "/api/v1/items/3", 422, json={"count": "many"})
    ask("GET", "/nowhere/7", 404)
    ask("GET", "/later", 200)
    assert ask("GET", "/stream/3", 200).text == "0 1 2 "
    ask("GET", "/sub/leaf/9", 200, headers={"x-request-id": "r1"})


def test_every_kind_of_fastapi_route_is_measured_by_its_template(tmp_path: Path) -> None:
    """An app that was imported before instrument(), under uvicorn: routers, mounts, refusals, validation, streams, background tasks."""
    with running(tmp_path, SERVICE, *UVICORN) as service, httpx.Client(trust_env=False) as client:
        _serve(service, client)
        for operation, outcome in (
            ("GET /api/v1/{tenant}/things/{thing}", "success"),
            ("GET /api/v1/denied/{x}", "client_error"),
            ("POST /api/v1/items/{item_id}", "success"),
            ("POST /api/v1/items/{item_id}", "client_error"),
            ("unmatched", "client_error"),
            ("GET /later", "success"),
            ("GET /stream/{n}", "success"),
            ("GET /sub/leaf/{y}", "success"),
        ):
            service.reaches(1, REQUESTS, operation=operation, outcome=outcome, protocol="http", agent_id="a1")
        service.reaches(8, REQUESTS)
        service.reaches(1, ERRORS, error_type="auth")
        service.reaches(2, ERRORS, error_type="invalid_request")
        assert service.value(TIME_TO_FIRST_BYTE, suffix="_count") == 1
        assert service.value(TIME_TO_FIRST_BYTE, suffix="_count", operation="GET /stream/{n}") == 1
        service.reaches(0, REQUESTS_IN_FLIGHT)
        assert service.line("leaf")["request_id"] == "r1"
        assert service.line("GET /sub/leaf/9 200")["operation"] == "GET /sub/leaf/{y}"
        later = service.line("after the answer")
        assert later["request_id"] == service.line("GET /later 200")["request_id"]
        assert client.get(f"{service.url}/health/live").json()["status"] == "healthy"
        client.get(f"{service.url}/broken/1")
        service.reaches(1, REQUESTS, operation="GET /broken/{x}", outcome="server_error")
        service.reaches(9, REQUESTS)


@pytest.mark.parametrize("disable", ["", "fastapi"])
def test_fastapis_own_spans_give_way_to_ours(tmp_path: Path, disable: str) -> None:
    """A request is one server span; switched off by name FastAPI's telemetry is as it was, which shows that there is something to do."""
    source = SERVICE.replace("sampling_rate=1.0", f"sampling_rate=1.0, disable=[{disable!r}]" if disable else "sampling_rate=1.0")
    with receiver() as traces, running(tmp_path, source, *UVICORN, environ={"OTEL_EXPORTER_OTLP_ENDPOINT": traces.url}) as service:
        httpx.get(f"{service.url}/sub/leaf/1", trust_env=False)
        httpx.get(f"{service.url}/stream/1", trust_env=False)
        service.reaches(2, REQUESTS)
        traces.wait(2)
    servers = [span for span in traces.spans if span.kind == span.SPAN_KIND_SERVER]
    ours = [span for span in servers if "http.route" not in attributes(span)]
    assert sorted(span.name for span in ours) == ["GET /stream/{n}", "GET /sub/leaf/{y}"]
    twice = bool(disable) and hasattr(FastAPI(), "_native_telemetry")  # which its older versions have not
    assert (len(servers) > len(ours)) == twice
    assert (len(traces.spans) > len(ours)) == twice
