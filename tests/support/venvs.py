"""Virtual environments with other versions of libraries than these tests run with, made once and kept between runs."""

from __future__ import annotations

import fcntl
import hashlib
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path
from typing import Final

FOLDER: Final = Path(__file__).parents[2] / ".sage-obs/venvs"
_SECONDS: Final = 300


def python_with(name: str, requirements: Sequence[str]) -> Path:
    """The interpreter of an environment with these requirements; everything else is found where these tests find it.

    Processes that ask at the same time wait for the one that makes it. Raises CalledProcessError with pip's words where it cannot.
    """
    digest = hashlib.sha256("\n".join((*sorted(requirements), sys.version)).encode()).hexdigest()[:8]
    folder = FOLDER / f"{name}-{digest}"
    python = folder / "bin/python"
    FOLDER.mkdir(parents=True, exist_ok=True)
    with (FOLDER / f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "complete").exists():
            _run([sys.executable, "-m", "venv", "--clear", str(folder)])
            _run([str(python), "-m", "pip", "--quiet", "--disable-pip-version-check", "install", *requirements])
            site = folder / f"lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"
            (site / "behind.pth").write_text("\n".join(_behind()) + "\n")
            (folder / "complete").touch()
    return python


def _behind() -> list[str]:
    """Where these tests find their libraries and the project itself; what the environment has comes before it."""
    root = FOLDER.parents[1]
    return [sysconfig.get_path("purelib"), str(root), str(root / "agent")]


def _run(command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)
    if done.returncode:
        raise AssertionError(f"{' '.join(command)}: {done.stdout}{done.stderr}")
