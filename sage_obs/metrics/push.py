"""Metrics to an OTLP/HTTP endpoint, beside or instead of being scraped.

Every process pushes what it has counted itself, as an instance of its own, which is what a Collector and whatever stands behind it
expect: a series has one writer, sums are made there, and a process that has ended is a series that ends. A scrape is the other way
round: it reaches one process of several by chance, and so has to show all of them.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol
from urllib.parse import urlsplit

from sage_obs.conventions import EXPORT_FAILURES
from sage_obs.metrics.active import internal_error
from sage_obs.metrics.store import Store
from sage_obs.privacy.redaction import redact_text
from sage_obs.settings import Settings

if TYPE_CHECKING:  # the SDK is loaded where something is pushed
    from opentelemetry.sdk.resources import Resource

_PATH: Final = "/v1/metrics"
_OTLP: Final = frozenset({"otlp", "otlp_proto_http", "otlp_proto_grpc"})
_EXPORTER: Final = "OTEL_METRICS_EXPORTER"
_BASE: Final = "OTEL_EXPORTER_OTLP_ENDPOINT"
_PROTOCOLS: Final = ("OTEL_EXPORTER_OTLP_METRICS_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")


class Answer(Protocol):
    """What became of a post."""

    @property
    def taken(self) -> bool:
        """Whether it was taken."""

    @property
    def rejected(self) -> int:
        """How many data points of it were not."""


class Endpoint(Protocol):
    """What takes OTLP."""

    def post(self, body: bytes) -> Answer:
        """Post a message, again where that may help, for a bounded time."""

    def hurry(self) -> None:
        """Try nothing again from now on."""

    def close(self) -> None:
        """Let go of the connection."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where metrics are pushed to; no `url`, and why, where they are not."""

    url: str
    why: str = ""


def target(settings: Settings, environ: Mapping[str, str]) -> Target:
    """Where the settings and OpenTelemetry's variables say that metrics go.

    OTEL_EXPORTER_OTLP_ENDPOINT alone is not enough, which most have set for their spans: the exporter has to be named too.
    """
    names = {name.strip().lower() for name in environ.get(_EXPORTER, "").split(",")} - {""}
    endpoint, source = settings.metrics_endpoint, settings.sources["metrics_endpoint"].source
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return Target("", "OTEL_SDK_DISABLED is set")
    if endpoint and not source.startswith("environment OTEL_"):
        return Target(_url(endpoint))
    if names and not names & _OTLP:
        return Target("", f"{_EXPORTER} is {environ[_EXPORTER]}")
    base = environ.get(_BASE, "") if names else ""
    if not endpoint and not base:
        return Target("", "no endpoint is set (SAGE_METRICS_ENDPOINT)")
    if _protocol(environ) == "grpc":
        return Target("", "the OTLP protocol is grpc, and only http/protobuf is spoken")
    return Target(_url(endpoint) if endpoint else base.rstrip("/") + _PATH)


def _url(endpoint: str) -> str:
    """An endpoint without a path gets the protocol's."""
    return endpoint.rstrip("/") + _PATH if urlsplit(endpoint).path in {"", "/"} else endpoint


def _protocol(environ: Mapping[str, str]) -> str:
    return next((environ[name].strip().lower() for name in _PROTOCOLS if environ.get(name)), "")


class Pusher:
    """Calls `push` every `interval` seconds and when it is asked to, from a daemon thread of its own; the last time when it is closed."""

    def __init__(self, push: Callable[[], bool], *, interval: float) -> None:
        self._push = push
        self._interval = interval
        self._changed = threading.Condition()
        self._asked = 0
        self._done = 0
        self._well = True
        self._closing = False
        self._thread = threading.Thread(target=self._work, name="sage-obs-push", daemon=True)
        self._thread.start()

    def flush(self, timeout: float) -> bool:
        """Push now, waiting at most `timeout` seconds; whether it went well."""
        if threading.current_thread() is self._thread:
            return False
        with self._changed:
            self._asked += 1
            ticket = self._asked
            self._changed.notify_all()
            return self._changed.wait_for(lambda: self._done >= ticket, max(0.0, timeout)) and self._well

    def close(self, timeout: float) -> bool:
        """Push once more and end, waiting at most `timeout` seconds; whether all of it went well."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join(max(0.0, timeout))
        return self._well and not self._thread.is_alive()

    def _work(self) -> None:
        due = time.monotonic() + self._interval
        closing = False
        while not closing:
            with self._changed:
                self._changed.wait_for(lambda: self._closing or self._asked > self._done, max(0.0, due - time.monotonic()))
                closing, asked = self._closing, self._asked
            due = time.monotonic() + self._interval
            well = self._push()
            with self._changed:
                self._done, self._well = asked, well
                self._changed.notify_all()


class PushComponent:
    """Pushes a store; `refresh` brings its gauges up to date before, `endpoint` makes what stands for a URL."""

    name = "push"

    def __init__(self, settings: Settings, store: Store, *, refresh: Callable[[], None], endpoint: Callable[[str], Endpoint]) -> None:
        self._settings = settings
        self._store = store
        self._refresh = refresh
        self._make = endpoint
        self._failures = store.cell(EXPORT_FAILURES, "metrics")
        self._endpoint: Endpoint | None = None
        self._pusher: Pusher | None = None
        self._since = 0.0

    def start(self) -> str:
        """Push from now on. Raises ImportError where the encoder cannot be had, which must not come up in the thread."""
        from sage_obs.metrics import otlp  # noqa: F401 - as said
        from sage_obs.resource import resource_of

        goal = target(self._settings, os.environ)
        self._begin(goal.url, resource_of(self._settings))
        return f"every {self._settings.metrics_interval:g} s to {redact_text(goal.url)}"

    def _begin(self, url: str, resource: Resource) -> None:
        self._since = time.time()
        self._url, self._resource = url, resource
        self._endpoint = None
        self._pusher = Pusher(self._push, interval=self._settings.metrics_interval)

    def _push(self) -> bool:
        from opentelemetry.context import _SUPPRESS_INSTRUMENTATION_KEY, attach, detach, set_value

        unobserved = attach(set_value(_SUPPRESS_INSTRUMENTATION_KEY, True))
        try:
            well = self._export()
        except Exception as exc:  # noqa: BLE001 - the thread must outlive whatever is wrong with one push
            internal_error("metrics", exc)
            well = False
        finally:
            detach(unobserved)
        if not well:
            self._failures.add()
        return well

    def _export(self) -> bool:
        """Push once. The connection is made by the first push: not while a child is being forked."""
        from sage_obs.metrics.otlp import request

        if (endpoint := self._endpoint) is None:
            endpoint = self._endpoint = self._make(self._url)
        self._refresh()
        answer = endpoint.post(request(self._store, self._resource, since=self._since, now=max(self._since, time.time())))
        return answer.taken and not answer.rejected

    def flush(self, timeout: float) -> bool:
        """Push now, within `timeout` seconds."""
        return self._pusher is None or self._pusher.flush(timeout)

    def finish(self, timeout: float) -> bool:
        """Push a last time, within `timeout` seconds."""
        pusher, self._pusher = self._pusher, None
        if pusher is None:
            return True
        if (endpoint := self._endpoint) is not None:
            endpoint.hurry()
        done = pusher.close(timeout)
        if (endpoint := self._endpoint) is not None:
            endpoint.close()
        return done

    def stop(self, timeout: float) -> None:
        """Push a last time and end."""
        self.finish(timeout)

    def restart_after_fork(self) -> None:
        """Push for itself in a forked child, which counts from zero; the parent's thread and connections are the parent's."""
        if self._pusher is not None:
            from sage_obs.resource import forked

            self._begin(self._url, forked(self._resource))
