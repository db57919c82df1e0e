"""Packages of npm in a folder beside the project, installed once; node itself from PATH, else from Debian's packages."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path
from typing import Final

from sage_obs.stack import binaries

FOLDER: Final = Path(__file__).parents[2] / ".sage-obs/npm"


def installed(*packages: str) -> Path:
    """The folder that has these packages, such as `typescript@5.9.3`, in its node_modules."""
    folder = FOLDER / hashlib.sha256(" ".join(packages).encode()).hexdigest()[:16]
    with binaries._exclusive(FOLDER, lambda: None):
        if not (folder / "complete").exists():
            need("npm")
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "package.json").write_text("{}")
            subprocess.run(["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", *packages], cwd=folder, check=True)
            (folder / "complete").touch()
    return folder


def need(package: str, program: str = "") -> str:
    """The path of a program, from Debian's package where it is not there and may be installed."""
    name = program or package
    if shutil.which(name) is None and os.getuid() == 0:
        subprocess.run(["apt-get", "-qq", "update"], check=True)
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        subprocess.run(["apt-get", "-qq", "install", "-y", package], check=True, env=environment, stdout=subprocess.DEVNULL)
    found = shutil.which(name)
    assert found, f"{name} is needed and is not there. Type: sudo apt-get install -y {package}"
    return found
