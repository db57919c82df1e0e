"""The components of the layer: which of them a plan wants, each starting and failing alone."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, fields
from types import FrameType
from typing import TYPE_CHECKING, Any, Final, Literal

from sage_obs import semconv
from sage_obs.component import Component
from sage_obs.conventions import COMPONENT_UP, HEALTH_STATUS
from sage_obs.errors import ConfigError, SageObsError
from sage_obs.genai import prices, requests
from sage_obs.genai.requests import Recorder
from sage_obs.health import gauges
from sage_obs.health.board import board
from sage_obs.health.component import HealthComponent
from sage_obs.integrations import base
from sage_obs.integrations.base import NotFoundError
from sage_obs.integrations.component import LibraryComponent
from sage_obs.integrations.hook import ImportHook
from sage_obs.logs.component import LogsComponent
from sage_obs.metrics import active, prefork
from sage_obs.metrics.component import MetricsComponent, sharing_for, store_for
from sage_obs.metrics.push import Endpoint, PushComponent, target
from sage_obs.metrics.requests import RequestMetrics
from sage_obs.metrics.store import Store
from sage_obs.ops.component import OpsComponent
from sage_obs.privacy import content
from sage_obs.runtime.component import RuntimeComponent
from sage_obs.settings import Settings
from sage_obs.tracing.component import TracingComponent

if TYPE_CHECKING:
    from sage_obs.profiling.component import ProfilingComponent

_log = logging.getLogger("sage_obs")
_SHARE_AT_EXIT: Final = 0.75
"""How much of the exit timeout is spent waiting; the rest is the interpreter's, so that the whole exit keeps the promise."""
_LEAST_SECONDS: Final = 0.1
"""What every component may take to stop, however long the others took."""

Libraries = Literal["auto"] | Sequence[str]
PARTS: Final = ("logs", "traces", "health", "metrics", "runtime", "push", "ops", "profiling", "pyroscope")
"""What can be switched off by name, besides the integrations."""

NEEDS: Final = {
    **dict.fromkeys(("gunicorn", "granian", "logging", "loguru", "structlog"), "logs"),
    **dict.fromkeys(("httpx", "aiohttp-client", "requests", "httpx2"), "traces"),
    **dict.fromkeys(("psycopg", "asyncpg", "sqlalchemy", "redis"), "traces"),
}
"""What an integration is for, where that is one part only: other people's lines become ours, a client carries the trace on or has spans."""


@dataclass(frozen=True, slots=True)
class Status:
    """Whether a component is on, and what it does or why it is off."""

    on: bool
    why: str

    def __str__(self) -> str:
        return f"{'on' if self.on else 'off'}: {self.why}"


@dataclass(frozen=True, slots=True)
class Plan:
    """What instrument() was asked for, settled; equal plans need no restart."""

    values: tuple[tuple[str, Any], ...] = field(repr=False)
    libraries: Libraries
    disable: frozenset[str]

    @classmethod
    def of(cls, settings: Settings, libraries: Libraries | None, disable: Iterable[str] | None) -> Plan:
        """The plan of these settings, wherever their values came from. Raises ConfigError for what is no list of names."""
        values = tuple((one.name, getattr(settings, one.name)) for one in fields(settings) if one.name != "sources")
        auto = libraries is None or libraries == "auto"
        return cls(values, "auto" if auto else _names("libraries", libraries), frozenset(_names("disable", disable)))

    def check(self) -> None:
        """Raise ConfigError for a name in `disable` that nothing has."""
        for name in sorted(self.disable - {*PARTS, *base.NAMES}):
            raise ConfigError(f"There is nothing called `{name}` to disable.", hint=f"There are: {', '.join((*PARTS, *base.NAMES))}.")


def _names(argument: str, given: object) -> tuple[str, ...]:
    """One name or several; None is none of them."""
    if isinstance(given, str):
        return (given,)
    names = tuple(given) if isinstance(given, Iterable) else () if given is None else (given,)
    for name in names:
        if not isinstance(name, str):
            raise ConfigError(f"`{argument}` takes names, not a {type(name).__name__}.", hint=f"For example: {argument}=['httpx'].")
    return names


class Layer:
    """The components of one plan."""

    def __init__(self, settings: Settings, plan: Plan) -> None:
        self.settings = settings
        self.plan = plan
        self.statuses: dict[str, Status] = {}
        self._running: list[Component] = []
        self._store = store_for(settings)
        self._hook = ImportHook()
        self._ops: OpsComponent | None = None
        self._refreshed: tuple[Callable[[], None], ...] = ()
        self._metrics: MetricsComponent | None = None
        self._profiling: ProfilingComponent | None = None

    @property
    def metrics_port(self) -> int | None:
        """The port of the operations server, None while there is none."""
        return None if self._ops is None else self._ops.port

    @property
    def profiling_port(self) -> int | None:
        """The port profiles are served on, None while they are not."""
        return None if self._profiling is None else self._profiling.port

    def report(self) -> dict[str, Status]:
        """The statuses as they are now: the port may have been taken over or left meanwhile."""
        now = {one.name: one.words for one in (self._metrics, self._ops) if one is not None and one in self._running}
        return {**self.statuses, **{name: Status(on=True, why=why) for name, why in now.items() if self.statuses[name].on}}

    def start(self, *, strict: bool) -> None:
        """Start what is wanted. Where a component fails, the others run; if `strict`, they stop and its error is raised."""
        settings = self.settings
        active.use(self._store)
        semconv.use(settings.semconv)
        content.use(settings.content)
        self._use_prices()
        board().begin()
        requests.use(Recorder(RequestMetrics(self._store, agent_id=settings.agent_id), objective=settings.overhead_objective))
        for component in self._wanted():
            if (error := self._start(component)) is not None and strict:
                self.stop(settings.exit_timeout)
                raise error

    def _use_prices(self) -> None:
        try:
            prices.use(prices.load(self.settings.prices_file))
        except SageObsError as exc:  # it was readable a moment ago
            active.internal_error("genai", exc)

    def _wanted(self) -> Iterable[Component]:
        """The components that are switched on, in the order they start; the rest are noted as off."""
        settings, on = self.settings, self._on
        if on("logs", wanted=settings.logs):
            yield LogsComponent(settings, self._store)
        if on("traces", wanted=settings.traces):
            yield TracingComponent(settings, self._store)
        if healthy := on("health", wanted=settings.health):
            yield HealthComponent(board())
        if on("metrics", wanted=settings.metrics):
            self._refreshed = (self._refresh_health,) if healthy else ()
            sharing = sharing_for(settings, self._store)
            self._metrics = MetricsComponent(self._store, sharing, refresh=self._refresh, on_company=self._meet_company)
            yield self._metrics
        if on("runtime", wanted=self._metrics is not None):
            runtime = RuntimeComponent(self._store)
            self._refreshed = (*self._refreshed, runtime.refresh)
            yield runtime
        if (goal := target(settings, os.environ)).url and on("push", wanted=self._metrics is not None):
            yield PushComponent(settings, self._store, refresh=self._refresh, endpoint=_endpoint)
        elif not goal.url:
            self._rests("push", goal.why)
        if on("ops", wanted=self._metrics is not None or healthy):
            self._ops = OpsComponent(settings, metrics=self._metrics, board=board() if healthy else None)
            yield self._ops
        yield from self._profilers()
        yield from self._libraries()

    def _profilers(self) -> Iterable[Component]:
        """Loaded where they are wanted."""
        settings = self.settings
        if self._on("profiling", wanted=settings.profiling):
            from sage_obs.profiling.component import ProfilingComponent

            self._profiling = ProfilingComponent(settings)
            yield self._profiling
        if settings.profiling_server and self._on("pyroscope", wanted=True):
            from sage_obs.profiling.push import PyroscopeComponent

            yield PyroscopeComponent(settings)

    def _on(self, name: str, *, wanted: bool) -> bool:
        if name in self.plan.disable:
            self._rests(name, "in `disable`")
        elif not wanted:
            source = self.settings.sources.get(name)
            self._rests(name, f"switched off by {source.source}" if source else "nothing to serve")
        else:
            return True
        return False

    def _libraries(self) -> Iterable[Component]:
        """Integrations, but for those that would have nothing to do."""
        asked = self.plan.libraries != "auto"
        for name in self.plan.libraries if asked else base.NAMES:
            need = NEEDS.get(name)
            if need is not None and not self._is_on(need):
                self._rests(name, f"{need} are off")
            elif self._on(name, wanted=True):
                yield LibraryComponent(name, self._hook, asked=asked)

    def _is_on(self, name: str) -> bool:
        return name in self.statuses and self.statuses[name].on

    def _start(self, component: Component) -> Exception | None:
        try:
            self._set(component.name, Status(on=True, why=component.start()))
        except NotFoundError as exc:
            self._rests(component.name, str(exc))
            return None
        except Exception as exc:  # noqa: BLE001 - each component fails alone
            self._set(component.name, Status(on=False, why=str(exc) if isinstance(exc, SageObsError) else f"{type(exc).__name__}: {exc}"))
            _log.warning("%s is off: %s", component.name, self.statuses[component.name].why)
            return exc
        self._running.append(component)
        return None

    def _rests(self, name: str, why: str) -> None:
        """Note what nobody wants or nothing is there for: no gauge says that it is down."""
        self.statuses[name] = Status(on=False, why=why)

    def _set(self, name: str, status: Status) -> None:
        self.statuses[name] = status
        self._store.cell(COMPONENT_UP, name).set(1.0 if status.on else 0.0)

    def _refresh(self) -> None:
        """Bring gauges up to date before a scrape, which one that fails must not cost all the others."""
        for refresh in self._refreshed:
            try:
                refresh()
            except Exception as exc:  # noqa: BLE001 - as said
                active.internal_error("metrics", exc)

    def _refresh_health(self) -> None:
        gauges.refresh(self._store, board(), agent_id=self.settings.agent_id)

    def flush(self, timeout: float) -> bool:
        """Send what waits, within `timeout` seconds in all; whether everything went out."""
        deadline = time.monotonic() + timeout
        done = [component.flush(_left(deadline)) for component in reversed(self._running)]
        return all(done)

    def send(self) -> None:
        """The process may end in a moment: send what waits, within the exit timeout in all."""
        self.flush(self.settings.exit_timeout * _SHARE_AT_EXIT)

    def finish(self) -> None:
        """The process ends: send what waits, within the exit timeout in all."""
        deadline = time.monotonic() + self.settings.exit_timeout * _SHARE_AT_EXIT
        for component in reversed(self._running):
            component.finish(_left(deadline))

    def stop(self, timeout: float) -> None:
        """Stop everything and put everything back, within about `timeout` seconds."""
        deadline = time.monotonic() + timeout
        requests.use(None)
        self._hook.remove()
        for component in reversed(self._running):
            try:
                component.stop(_left(deadline))
            except Exception as exc:  # noqa: BLE001 - the others must be put back all the same
                active.internal_error(component.name, exc)
        self._running = []
        self.statuses = {name: Status(on=False, why="uninstrumented") for name in self.statuses}
        active.use(Store())
        prices.use({})
        semconv.use("legacy")
        content.use(content.Content.OFF)

    def prepare_fork(self, frame: FrameType | None) -> None:
        """A child is about to be forked from `frame`; what supervises workers leaves the port to them."""
        if self._metrics in self._running and self._metrics is not None:
            self._metrics.sharing.prepare_fork()
            if self._metrics.sharing.on and prefork.is_supervisor(frame):
                self._hand_over()

    def _meet_company(self) -> None:
        """Children share with this process, which did not fork them; the answer under way must not wait for itself."""
        if prefork.is_supervisor(prefork.main_frame()):
            threading.Thread(target=self._hand_over, name="sage-obs-hand-over", daemon=True).start()

    def _hand_over(self) -> None:
        """Leave the port to the workers, and with it what is said of health: this process serves nothing."""
        if self._ops in self._running and self._ops is not None and self._ops.port is not None:
            self._ops.release()
            self._store.keep(HEALTH_STATUS, frozenset())

    def restart_after_fork(self) -> None:
        """Be sane in a forked child: threads begin anew, the port stays the parent's for as long as it has it."""
        for component in self._running:
            component.restart_after_fork()
        self._store.keep(HEALTH_STATUS, frozenset())  # the parent's, which nobody here keeps up to date
        if self._ops in self._running and self._ops is not None:
            self._set(self._ops.name, Status(on=self._ops.at_work, why=self._ops.words))


def _endpoint(url: str) -> Endpoint:
    """Where metrics are posted, loaded where they are."""
    from sage_obs.tracing.post import Endpoint, manner_of

    return Endpoint(url, manner_of("metrics"))


def _left(deadline: float) -> float:
    return max(_LEAST_SECONDS, deadline - time.monotonic())
