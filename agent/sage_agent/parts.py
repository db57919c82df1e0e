"""The parts of a runtime, put together: what serves requests, and what stands behind it."""

from __future__ import annotations

import asyncio
import importlib.metadata
import logging
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any, Final

import orjson

import sage_obs
from sage_agent.a2a import mount as a2a
from sage_agent.a2a.paths import OPERATIONS as A2A_OPERATIONS
from sage_agent.a2a.paths import operation as a2a_operation
from sage_agent.config import AgentConfig
from sage_agent.flow import answers
from sage_agent.flow.answers import Answers
from sage_agent.flow.calls import ModelCalls
from sage_agent.flow.config import FlowConfig
from sage_agent.flow.conversations import Conversations
from sage_agent.flow.report import keep_reporting, report
from sage_agent.flow.service import Asking, Memory, Service, Simple
from sage_agent.flow.spending import Spending
from sage_agent.flow.steps import Steps
from sage_agent.llm.providers.select import wire_name
from sage_agent.llm.retries import Retries
from sage_agent.llm.targets import Target, open_targets
from sage_agent.rotation import Rotation
from sage_agent.security import admin
from sage_agent.security.audit import NoAudit, open_audit, record_start
from sage_agent.security.build import build_doors
from sage_agent.security.levers import Everywhere
from sage_agent.security.schemes import admins, callers
from sage_agent.state.base import State, StateError
from sage_agent.state.open import keep_counting
from sage_agent.tools.config import ToolsConfig
from sage_agent.web.app import OPERATIONS, App, operation
from sage_agent.web.guard import Guard
from sage_agent.web.openapi import document
from sage_agent.web.operations import HEALTH
from sage_agent.web.wire import Scope
from sage_obs.errors import UnavailableError

_log = logging.getLogger("sage_agent")
_PAUSE_SECONDS: Final = 5.0


class Parts:
    """A runtime put together: what serves requests, what stands behind it, and what has to be begun and ended."""

    def __init__(
        self,
        config: AgentConfig,
        state: State,
        calls: ModelCalls,
        memory: Memory,
        simple: Simple | None,
        *,
        steps: Steps | None,
        everywhere: Everywhere,
    ) -> None:
        self.calls = calls
        self._everywhere = everywhere
        self._simple = simple
        self.state = state
        self._config = config
        self._agent = config.layer.agent_id
        self._memory = memory
        self._service = Service(
            calls, config.concurrency, asking=_asking(config.flow), memory=memory, simple=simple, steps=steps, agent=self._agent
        )
        self._rotation = Rotation(config, self.renew)
        self._tasks: list[asyncio.Task[None]] = []
        self._audit = open_audit(config.security.audit)
        self._record = self._audit or NoAudit()
        self._doors = build_doors(config.security, config.did, state, self._audit)
        self._a2a = mount_a2a(config, self._service, state, self._doors.tasks)
        served = App(self._service, config.server, self._doors.messages, described=orjson.dumps(describe(config)))
        lean = sage_obs.instrument_app(served, operation=operation, protocol=config.protocol)
        app = lean if self._a2a is None else a2a.beside(lean, _measured(self._a2a))
        self._admin = self._make_admin(config)
        self.app = app if self._admin is None else admin.beside(app, _measured(self._admin, self._admin.operation, config.protocol))

    def expose(self) -> None:
        """Put what can be counted on /metrics, once there is one."""
        (self._simple.calls if self._simple is not None else self.calls).expose()
        report(self._service, self._agent)
        self._doors.expose()
        if self._audit is not None:
            self._audit.expose()
        if self._memory.answers is not None:
            answers.expose()
        if self._memory.spending is not None:
            self._memory.spending.expose()

    def renew(self, config: AgentConfig) -> None:
        """Go on with the secrets that the configuration has by now; nothing else of it counts."""
        self.calls.renew(config.llm)
        if self._simple is not None:
            self._simple.calls.renew(config.llm.for_simple)
        self._doors.renew(config.security)
        if self._admin is not None:
            self._admin.renew(config.security.admin)
        for secret in config.secrets:
            self._record.record("secret", "renewed", setting=secret.name, place=secret.place)
        if config.state.url:
            self.state.store.renew(config.state.url)

    async def open(self) -> None:
        """Connect to the store, and get what callers are known by. Raises UnavailableError and ConfigError."""
        try:
            await self.state.store.open()
        except StateError as exc:
            hint = "Start it or correct storage.*; SAGE_STORAGE_TYPE=memory keeps nothing."
            raise UnavailableError(f"Where state is kept cannot be used: {exc.message}", hint=hint) from exc
        await self._doors.open()
        self._note_start()
        forever = (lambda: keep_reporting(self._service, self._agent), lambda: keep_counting(self.state.store), self._rotation.run)
        self._tasks = [asyncio.create_task(keep(one)) for one in forever]

    async def close(self) -> None:
        """Settle what is open, and let go; what cannot be closed keeps nothing else from it."""
        for task in self._tasks:
            task.cancel()
        for close in self._closing():
            try:
                await close()
            except Exception:  # noqa: BLE001 - whatever it is, the rest is to be closed
                _log.exception("something could not be closed")

    def _closing(self) -> Iterator[Callable[[], Awaitable[None]]]:
        if self._a2a is not None:
            yield self._a2a.close
        yield self._doors.close
        if self._memory.spending is not None:
            yield self._memory.spending.close
        yield self.calls.close
        if self._simple is not None:
            yield self._simple.calls.close
        yield self.state.store.close
        self._record.record("agent", "stopped")
        if self._audit is not None:
            yield self._audit.close

    def _note_start(self) -> None:
        config = self._config
        if self._audit is not None:
            changed = {path: (value.shown(), value.source) for path, value in config.settings.items() if value.source != "default"}
            record_start(self._audit, changed, [(secret.name, secret.place) for secret in config.secrets])

    def _make_admin(self, config: AgentConfig) -> admin.Admin | None:
        if config.security.admin is None:
            return None
        return admin.Admin(
            config.security.admin,
            self._doors.admin,
            self._record,
            facts=lambda: self._facts(config),
            everywhere=self._everywhere,
            proxies=config.security.proxies,
        )

    def _facts(self, config: AgentConfig) -> dict[str, object]:
        return {
            "agent": self._agent,
            "version": importlib.metadata.version("sage-obs"),
            "models": [f"{one.provider} {one.model}" for one in config.llm.targets],
            "storage": config.state.kind,
            "tls": config.server.tls is not None,
            "callers_identified": config.security.identifies,
            "audit": config.security.audit is not None,
        }


async def keep(work: Callable[[], Awaitable[None]], *, pause: float = _PAUSE_SECONDS) -> None:
    """Do work that is to go on while the agent runs. What fails is a defect: it is logged, and begun again after `pause` seconds."""
    while True:
        try:
            await work()
        except Exception:  # noqa: BLE001 - a defect must not be the end of, say, the renewal of secrets
            _log.exception("work in the background has failed and is begun again")
        else:
            return
        await asyncio.sleep(pause)


def describe(config: AgentConfig) -> dict[str, Any]:
    """The OpenAPI document of what is served on the agent's port."""
    known = callers(config.security, config.did)
    served = [*OPERATIONS, *(A2A_OPERATIONS if a2a.wanted(config.a2a.enabled) else ())]
    operations = [(one, known if one.role else {}) for one in served if config.layer.health or one not in HEALTH]
    if config.security.admin is not None:
        operations += [(one, admins(config.security)) for one in admin.OPERATIONS]
    return document(operations, title=config.layer.agent_id, version=importlib.metadata.version("sage-obs"))


def mount_a2a(config: AgentConfig, service: Service, state: State, guard: Guard) -> a2a.Mount | None:
    """A2A, to be loaded when it is first asked something; None where it is off. Raises A2aMissingError."""
    if not a2a.wanted(config.a2a.enabled):
        return None

    def load() -> a2a.Endpoint:
        from sage_agent.a2a.endpoint import A2aEndpoint

        version = importlib.metadata.version("sage-obs")
        return A2aEndpoint(config.a2a, config.server, service, state.tasks, guard, name=config.layer.agent_id, version=version)

    return a2a.Mount(load)


def _measured(mounted: a2a.Asgi, operation: Callable[[Scope], str] = a2a_operation, protocol: str = "a2a") -> a2a.Asgi:
    return sage_obs.instrument_app(mounted, operation=operation, protocol=protocol)


def build(config: AgentConfig, state: State, *, everywhere: Everywhere) -> Parts:
    """Put a runtime together; `everywhere` makes an admin's changes in all processes of the agent."""
    llm, flow, asked = config.llm, config.flow, config.llm.for_simple.targets
    targets = open_targets(llm.for_simple, connections=config.concurrency.worker_pool_size)
    calls, simple = _calls(config, targets[len(targets) - len(llm.targets) :]), None
    if llm.simple is not None:
        simple = Simple(_calls(config, targets), llm.simple_max_chars)
    keep = flow.sessions.max_turns > 0
    memory = Memory(
        conversations=Conversations(state.sessions, flow.sessions) if keep else None,
        answers=Answers(state.cache, flow.cache, asked=repr((asked, config.tools.functions))) if flow.cache.enabled else None,
        spending=_spending(config, state) if flow.budgets.any else None,
    )
    return Parts(config, state, calls, memory, simple, steps=_steps(config.tools), everywhere=everywhere)


def _steps(config: ToolsConfig) -> Steps | None:
    """Tools for the model to call; what they need is imported only where there are any."""
    if not config.functions:
        return None
    from sage_agent.tools.toolbox import open_toolbox

    toolbox = open_toolbox(config)
    return None if toolbox is None else Steps(toolbox, most=config.max_steps)


def _calls(config: AgentConfig, targets: Sequence[Target]) -> ModelCalls:
    return ModelCalls(Retries(targets, max_wait=config.llm.max_wait, rounds=config.llm.rounds), timeout=config.llm.timeout)


def _spending(config: AgentConfig, state: State) -> Spending:
    asked = [(wire_name(target.provider), target.model) for target in config.llm.for_simple.targets]
    return Spending(state.budgets, config.flow.budgets, agent=config.layer.agent_id, asked=asked)


def _asking(flow: FlowConfig) -> Asking:
    return Asking(flow.max_tokens, flow.max_input_tokens, flow.system_prompt, flow.overhead)
