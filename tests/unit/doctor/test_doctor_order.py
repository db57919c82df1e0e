from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from sage_obs.doctor import order
from sage_obs.doctor.findings import World
from sage_obs.integrations import base

SOUND = """\
import os
os.environ["PROMETHEUS_MULTIPROC_DIR"] = "/tmp/x"
import sage_obs
from opentelemetry import trace
trace.set_tracer_provider(object())
sage_obs.instrument("shop")
import prometheus_client
from library import complete
import uvicorn

def later():
    uvicorn.run("app:app")

if __name__ == "__main__":
    uvicorn.run("app:app", workers=2)
"""
SEEDED = {
    "late import": ("from library import complete\nimport sage_obs\nsage_obs.instrument()\n", "imports complete from library before"),
    "late call": ("import uvicorn\nuvicorn.run(app)\nfrom sage_obs import instrument as go\ngo()\n", "only after it returns"),
    "late folder": (
        "import os\nfrom prometheus_client import Counter\nos.environ['PROMETHEUS_MULTIPROC_DIR'] = '/tmp/x'\n",
        "after prometheus_client was imported",
    ),
    "late default": (
        "import os, prometheus_client\nos.environ.setdefault('PROMETHEUS_MULTIPROC_DIR', '/tmp/x')\n",
        "after prometheus_client was imported",
    ),
    "late provider": (
        "import sage_obs as s\ns.instrument()\nfrom opentelemetry import trace\ntrace.set_tracer_provider(x)\n",
        "sets a tracer provider after",
    ),
    "main only": (
        "import uvicorn, sage_obs\nif __name__ == '__main__':\n    sage_obs.instrument()\n    uvicorn.run('app:app', workers=4)\n",
        "never call instrument()",
    ),
    "no python": ("def (:\n", "SyntaxError"),
}


def test_what_is_said_to_be_replaced_is_replaced() -> None:
    """Each function of a module that an integration names is another one while it is installed, and itself afterwards."""
    names = [(one, name) for one in base.NAMES for name in getattr(base.load(one), "functions", ())]
    assert ("litellm", "litellm.completion") in names
    assert order.patched() == {name for _, name in names}
    for one, name in names:
        module, _, attribute = name.rpartition(".")
        original = getattr(importlib.import_module(module), attribute)
        base.load(one).install()
        try:
            assert getattr(importlib.import_module(module), attribute) is not original
        finally:
            base.load(one).uninstall()
        assert getattr(importlib.import_module(module), attribute) is original


@pytest.fixture
def _patched(monkeypatch: pytest.MonkeyPatch) -> None:
    """An integration that replaces a function of a module."""
    monkeypatch.setattr(order, "patched", lambda: frozenset({"library.complete"}))


def _examine(folder: Path, source: str, *command: str) -> list[str]:
    (folder / "app.py").write_text(source)
    return [finding.what for finding in order.order(World(environ={}, command=command or ("python", "app.py"), folder=folder))]


@pytest.mark.usefixtures("_patched")
def test_a_program_in_the_right_order_has_no_findings(tmp_path: Path) -> None:
    """What is set before, patched before and served after is as it should be; what a function does happens later."""
    assert _examine(tmp_path, SOUND) == []


@pytest.mark.usefixtures("_patched")
@pytest.mark.parametrize("name", sorted(SEEDED))
def test_what_comes_too_late_is_found(tmp_path: Path, name: str) -> None:
    """With the line it stands on."""
    source, said = SEEDED[name]
    [what] = _examine(tmp_path, source)
    assert said in what
    assert what.startswith("app.py")


@pytest.mark.parametrize("command", ["python -u app.py", "python -m app", "uvicorn app:app --port 1", "gunicorn app:make()"])
def test_the_program_is_found_in_its_command(tmp_path: Path, command: str) -> None:
    """As a file, a module, or the module of an application."""
    assert len(_examine(tmp_path, SEEDED["late call"][0], *command.split())) == 1


def test_without_a_program_there_is_nothing_to_read(tmp_path: Path) -> None:
    """No command, or one whose text is not here, is no finding."""
    assert list(order.order(World(environ={}, command=(), folder=tmp_path))) == []
    assert list(order.order(World(environ={}, command=("python", "gone.py"), folder=tmp_path))) == []
