"""The processes a stack is made of: for each, the files it reads and the command that starts it."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sage_obs.alerts.render import RULES_FILES, Links, ResponderRoute
from sage_obs.alerts.render import render as render_alerts
from sage_obs.conventions import (
    DEFAULT_AGENT_PORT,
    DEFAULT_ALERTMANAGER_PORT,
    DEFAULT_METRICS_PORT,
    DEFAULT_PROMETHEUS_PORT,
    DEFAULT_RESPONDER_PORT,
    JOB,
)
from sage_obs.files import replace_text
from sage_obs.slo.windows import Windows, duration
from sage_obs.stack.binaries import home

PORTS: Final[Mapping[str, int]] = {
    "agent": DEFAULT_AGENT_PORT,
    "metrics": DEFAULT_METRICS_PORT,
    "prometheus": DEFAULT_PROMETHEUS_PORT,
    "alertmanager": DEFAULT_ALERTMANAGER_PORT,
    "responder": DEFAULT_RESPONDER_PORT,
}
"""The stack's ports by name; those of the agent are the guide's, and Prometheus keeps clear of them."""


@dataclass(frozen=True, slots=True)
class Part:
    """A process of the stack: it is up when `ready` answers 200, or at once where that is ""; `url` is where people find it.

    `restart` says whether it is started again when it dies, rather than ending the stack; `cwd` is the folder it is started in.
    """

    name: str
    command: tuple[str, ...]
    url: str
    ready: str = ""
    restart: bool = False
    cwd: Path | None = None


@dataclass(frozen=True, slots=True)
class Layout:
    """Where things are: the state folder, the rules' windows, and the port of each part."""

    state: Path
    windows: Windows
    ports: Mapping[str, int]

    def address(self, part: str) -> str:
        """host:port of a part."""
        return f"127.0.0.1:{self.ports[part]}"

    def url(self, part: str) -> str:
        """The base URL of a part."""
        return f"http://{self.address(part)}"

    @property
    def rules(self) -> Path:
        """The folder of the rendered rules and of Alertmanager's configuration."""
        return self.state / "rules"

    @property
    def token(self) -> Path:
        """The file of the secret that Alertmanager shows to the responder."""
        return self.state / "responder.token"

    @property
    def account(self) -> Path:
        """The traffic generator's account."""
        return self.state / "logs/traffic.jsonl"


def write_rules(layout: Layout) -> None:
    """Render rules and routes for this stack's windows and addresses, with a new token for the responder."""
    replace_text(layout.token, secrets.token_urlsafe(32), mode=0o600)
    responder = layout.url("responder")
    rendered = render_alerts(
        layout.windows,
        links=Links(runbooks=f"{responder}/runbooks"),
        responder=ResponderRoute(url=f"{responder}/alerts", token_file=str(layout.token)),
    )
    for name, text in rendered.items():
        replace_text(layout.rules / name, text)


def alertmanager(layout: Layout, binary: Path) -> Part:
    """Alertmanager on loopback, alone."""
    command = (
        str(binary),
        f"--config.file={layout.rules / 'alertmanager.yml'}",
        f"--storage.path={layout.state / 'alertmanager'}",
        f"--web.listen-address={layout.address('alertmanager')}",
        "--cluster.listen-address=",
        "--log.level=warn",
    )
    return Part("alertmanager", command, layout.url("alertmanager"), ready="/-/ready", cwd=home(binary))


def prometheus(layout: Layout, binary: Path, *, targets: Path) -> Part:
    """Prometheus on loopback, keeping two days; it finds the agents in the file `targets`."""
    folder = layout.state / "prometheus"
    replace_text(folder / "prometheus.yml", _prometheus_yml(layout, targets))
    command = (
        str(binary),
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        "--storage.tsdb.retention.time=2d",
        f"--web.listen-address={layout.address('prometheus')}",
        "--enable-feature=exemplar-storage",
        "--log.level=warn",
    )
    return Part("prometheus", command, layout.url("prometheus"), ready="/-/ready", cwd=home(binary))


def _prometheus_yml(layout: Layout, targets: Path) -> str:
    import yaml

    windows = layout.windows
    tree = {
        "global": {
            "scrape_interval": duration(windows.scrape),
            "scrape_timeout": duration(min(windows.scrape, 10)),
            "evaluation_interval": duration(windows.evaluation),
        },
        "rule_files": [str(layout.rules / RULES_FILES)],
        "alerting": {"alertmanagers": [{"static_configs": [{"targets": [layout.address("alertmanager")]}]}]},
        "scrape_configs": [
            {"job_name": JOB, "file_sd_configs": [{"files": [str(targets)], "refresh_interval": "5s"}]},
            {"job_name": "sage-responder", "static_configs": [{"targets": [layout.address("responder")]}]},
        ],
    }
    return str(yaml.safe_dump(tree, sort_keys=True))


def responder(layout: Layout, *, restart: bool) -> Part:
    """The responder that Alertmanager calls."""
    command = (
        *(sys.executable, "-m", "sage_obs", "responder", "serve"),
        *("--state", str(layout.state), "--platform", "local", "--port", str(layout.ports["responder"])),
        *("--prometheus", layout.url("prometheus"), "--profile", layout.windows.name, "--token-file", str(layout.token)),
    )
    return Part("responder", command, layout.url("responder"), ready="/health/live", restart=restart)


def traffic(layout: Layout, *, rate: float, seconds: float) -> Part:
    """The bounded traffic generator: `rate` messages a second for so many seconds."""
    layout.account.unlink(missing_ok=True)
    command = (
        *(sys.executable, "-m", "sage_obs.stack.traffic", "--url", layout.url("agent")),
        *("--rate", f"{rate:g}", "--seconds", f"{seconds:g}", "--account", str(layout.account)),
    )
    return Part("traffic", command, layout.url("agent"))
