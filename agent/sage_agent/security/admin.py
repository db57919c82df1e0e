"""`/admin/`: look at the running agent and change it, by those who may, from where they may, and written down."""

from __future__ import annotations

import hmac
import logging
import os
import platform
import time
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Any, Final

import orjson

import sage_obs
from sage_agent.callers import Caller, Role
from sage_agent.problems import invalid, other_method
from sage_agent.security.addresses import among, origin
from sage_agent.security.audit import Audit
from sage_agent.security.config import AdminConfig
from sage_agent.security.guard import forbidden, unauthorized
from sage_agent.security.levers import LEVELS, Everywhere
from sage_agent.security.options import Network
from sage_agent.web.failures import answer_failure
from sage_agent.web.guard import Guard, said_also
from sage_agent.web.operations import COUNT, TEXT, Operation, Schema, record
from sage_agent.web.wire import Receive, Scope, Send, check_media_type, head_of, read_body, send_json
from sage_agent.within import running_loop

PREFIX: Final = "/admin/"
_LONGEST_BODY: Final = 4096
_BODY_SECONDS: Final = 10.0
_BEARER: Final = b"bearer "
_FLAG: Final[Schema] = {"type": "boolean"}
_LEVEL: Final[Schema] = {"enum": list(LEVELS)}
_RATE: Final[Schema] = {"type": "number", "minimum": 0, "maximum": 1}
_REACHED: Final[Mapping[str, Schema]] = {"workers": record({"asked": COUNT, "took": COUNT}), "pid": COUNT}
_INFO: Final = record(
    {
        **dict.fromkeys(("agent", "version", "storage", "python", "log_level"), TEXT),
        **dict.fromkeys(("tls", "callers_identified", "audit"), _FLAG),
        "models": {"type": "array", "items": TEXT},
        "uptime_seconds": {"type": "number"},
        "sampling_rate": _RATE,
        "pid": COUNT,
    }
)


def _one(name: str, schema: Schema) -> Schema:
    return record({name: schema}, additionalProperties=False)


def _changing(method: str, path: str, summary: str, answer: Mapping[str, Schema], body: Schema | None = None) -> Operation:
    errors = (404, 503) if body is None else (400, 404, 413, 415, 503)
    return Operation(method, path, summary, record({**answer, **_REACHED}), body, role=Role.ADMIN, errors=errors)


OPERATIONS: Final = (
    Operation("GET", "/admin/info", "What runs here.", _INFO, role=Role.VIEWER, errors=(404,)),
    _changing("PUT", "/admin/log-level", "Log more, or less.", {"level": _LEVEL}, _one("level", _LEVEL)),
    _changing("PUT", "/admin/tracing", "The share of traces that are recorded.", {"sampling_rate": _RATE}, _one("sampling_rate", _RATE)),
    _changing("POST", "/admin/cache/clear", "Forget cached answers.", {"cleared": _FLAG}),
    _changing("POST", "/admin/drain", "As SIGTERM.", {"draining": _FLAG}),
)
Asgi = Callable[[Scope, Receive, Send], Awaitable[None]]


class Admin:
    """An ASGI application. Whoever has the token is an admin; others are who the guard says they are, with their role.

    `facts` are about the agent; `everywhere` makes changes in all of its processes.
    """

    def __init__(
        self,
        config: AdminConfig,
        guard: Guard | None,
        audit: Audit,
        *,
        facts: Callable[[], Mapping[str, object]],
        everywhere: Everywhere,
        proxies: tuple[Network, ...] = (),
    ) -> None:
        self._token = config.token.encode()
        self._networks = config.networks
        self._proxies = proxies
        self._guard = guard
        self._audit = audit
        self._facts = facts
        self._everywhere = everywhere
        self._began = time.time()
        acts = (self._info, self._log_level, self._tracing, self._clear_cache, self._drain)
        self._routes: Mapping[tuple[str, str], tuple[Role, Callable[[Any], Awaitable[Mapping[str, object]]]]] = {
            (one.method, one.path): (one.role or Role.ADMIN, act) for one, act in zip(OPERATIONS, acts, strict=True)
        }

    def renew(self, config: AdminConfig | None) -> None:
        """The token is this one from now on."""
        if config is not None:
            self._token = config.token.encode()

    def operation(self, scope: Scope) -> str:
        """What request metrics call a request."""
        known = (scope["method"], scope["path"]) in self._routes
        return f"{scope['method']} {scope['path']}" if known else "unmatched"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        try:
            await send_json(send, await self._serve(scope, receive), headers=said_also(scope))
        except Exception as exc:  # noqa: BLE001 - the last resort: the caller gets JSON, the log the traceback
            await answer_failure(send, exc, headers=said_also(scope))

    async def _serve(self, scope: Scope, receive: Receive) -> Mapping[str, object]:
        if not self._near(scope):
            raise invalid("There is nothing at this path.", HTTPStatus.NOT_FOUND)
        caller = await self._who(scope)
        method, path = scope["method"], scope["path"]
        route = self._routes.get((method, path))
        methods = [one for one, there in self._routes if there == path]
        if route is None and methods:
            raise other_method(methods)
        if route is None:
            raise invalid(f"There is no {method} here; there are {', '.join(' '.join(one) for one in self._routes)}.", HTTPStatus.NOT_FOUND)
        needed, act = route
        if caller.role < needed:
            self._note(caller, scope, "not allowed")
            raise forbidden(needed)
        asked = await self._read(scope, receive)
        try:
            found = await act(asked)
        except Exception:
            self._note(caller, scope, "failed")
            raise
        self._note(caller, scope, "done", asked)
        return {**found, "pid": os.getpid()}

    def _near(self, scope: Scope) -> bool:
        """Whether it comes from where it may; what a proxy nobody trusts passes on does not come from the proxy."""
        peer, forwarded = scope.get("client"), head_of(scope).get(b"x-forwarded-for", b"").decode("latin-1")
        address = str(peer[0]) if peer else ""
        if forwarded and not among(address, self._proxies):
            return False
        return among(origin(address, forwarded, self._proxies), self._networks)

    async def _who(self, scope: Scope) -> Caller:
        said = head_of(scope).get(b"authorization", b"")
        given = said[len(_BEARER) :].strip() if said[: len(_BEARER)].lower() == _BEARER else b""
        if self._token and given and hmac.compare_digest(given, self._token):
            return Caller("admin token", "", Role.ADMIN, "token")
        if self._guard is None:
            self._audit.refused("not proved", path=scope["path"], peer=str((scope.get("client") or ("",))[0]))
            raise unauthorized()
        return await self._guard.identify(scope)

    async def _read(self, scope: Scope, receive: Receive) -> Any:
        if scope["method"] != "PUT":
            return None
        head = head_of(scope)
        check_media_type(head)
        body = await read_body(head, receive, limit=_LONGEST_BODY, deadline=running_loop().time() + _BODY_SECONDS)
        try:
            asked = orjson.loads(body)
        except orjson.JSONDecodeError:
            asked = None
        if not isinstance(asked, dict) or len(asked) != 1:
            raise invalid("Expected a JSON object with one member.")
        return asked

    def _note(self, caller: Caller, scope: Scope, outcome: str, asked: Any = None) -> None:
        value = "" if asked is None else str(next(iter(asked.values())))
        name = f"{caller.tenant}/{caller.id}" if caller.tenant else caller.id
        path = scope["path"] if (scope["method"], scope["path"]) in self._routes else "unknown"
        self._audit.record("admin", outcome, actor=name, how=caller.how, action=f"{scope['method']} {path}", value=value)

    async def _info(self, asked: Any) -> Mapping[str, object]:
        del asked
        level = logging.getLevelName(logging.getLogger().level).lower()
        return {
            **self._facts(),
            "python": platform.python_version(),
            "uptime_seconds": round(time.time() - self._began, 1),
            "log_level": level,
            "sampling_rate": sage_obs.sampling(),
        }

    async def _log_level(self, asked: Any) -> Mapping[str, object]:
        level = asked.get("level")
        if level not in LEVELS:
            raise invalid(f"`level` is one of {', '.join(LEVELS)}.")
        return {"level": level, **await self._change("log-level", level)}

    async def _tracing(self, asked: Any) -> Mapping[str, object]:
        rate = asked.get("sampling_rate")
        if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 <= rate <= 1:
            raise invalid("`sampling_rate` is a number from 0 to 1.")
        reach = await self._change("tracing", rate)
        return {"sampling_rate": sage_obs.sampling(), **reach}

    async def _clear_cache(self, asked: Any) -> Mapping[str, object]:
        del asked
        return {"cleared": True, **await self._change("cache")}

    async def _drain(self, asked: Any) -> Mapping[str, object]:
        """What SIGTERM does, to the supervisor where there is one; this answer is among those that are waited for."""
        del asked
        return {"draining": True, **await self._change("drain")}

    async def _change(self, name: str, value: Any = None) -> Mapping[str, object]:
        reach = await self._everywhere(name, value)
        return {"workers": {"asked": reach.asked, "took": reach.took}}


def beside(app: Asgi, admin: Asgi) -> Asgi:
    """`/admin/` for the one, everything else for the other; no coroutine stands in between."""

    def serve(scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        return (admin if scope.get("path", "").startswith(PREFIX) else app)(scope, receive, send)

    return serve
