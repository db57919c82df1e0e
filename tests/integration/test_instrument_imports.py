from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

LATER = """\
import importlib
import json
import sys

import sage_obs
from sage_obs.integrations import base
from sage_obs.integrations.patch import Patch

installed = []
original = Patch.install

def install(patch):
    original(patch)
    if patch._owner.__dict__.get(patch._attribute) is patch._placed:
        installed.append(patch._attribute)

Patch.install = install
handle = sage_obs.instrument("later", metrics_host="127.0.0.1", metrics_port=0, log_output="/dev/null")
found = {}
for name in sys.argv[1:]:
    integration = base.load(name)
    assert integration.module not in sys.modules, name
    assert handle.status()[name].why.endswith("once it is imported"), handle.status()[name]
    before = len(installed)
    importlib.import_module(integration.module)
    found[name] = installed[before:]
print(json.dumps(found))
"""
EXPECTED = {
    "fastapi": ["__call__"],
    "flask": ["__call__", "wsgi_app", "full_dispatch_request"],
    "django": ["__call__", "__call__", "resolve_request"],
    "aiohttp-client": ["send"],
    "aiohttp": ["_handle_request", "_start", "write", "write_eof"],
    "requests": ["send"],
    "httpx2": ["send", "send"],
    "loguru": ["emit", "remove", "write", "write"],
    "structlog": ["_proxy_to_logger"],
    "gunicorn": ["setup"],
    "granian": ["configure_logging"],
    "grpc": [
        *("server", "server", "start", "_reject_rpc", "start"),
        *("__call__", "with_call", "future", "__call__", "__call__", "__call__", "with_call", "future", "__call__"),
        *["__call__"] * 4,
    ],
}


def test_a_library_that_is_imported_after_instrument_is_patched_then(tmp_path: Path) -> None:
    """instrument() imports none of them; importing one installs its integration, once, and brings in no other."""
    (tmp_path / "later.py").write_text(LATER)
    command = [sys.executable, "-W", "error", str(tmp_path / "later.py"), *EXPECTED]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env={})
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found.pop("fastapi") == ["__call__", *EXPECTED["fastapi"]], "Starlette's comes with it"
    assert found == {name: patched for name, patched in EXPECTED.items() if name != "fastapi"}
