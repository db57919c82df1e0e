"""What Prometheus's and Alertmanager's own tools say of rendered files."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sage_obs.alerts.render import ALERTMANAGER_FILE, RULES_FILES, TESTS_FOLDER
from sage_obs.errors import UnavailableError

_TIMEOUT: Final = 300.0


@dataclass(frozen=True, slots=True)
class ToolReport:
    """What a tool found; `output` is all it said."""

    command: str
    passed: bool
    output: str


def check_rules(promtool: Path, folder: Path) -> ToolReport:
    """`promtool check rules`."""
    return run([str(promtool), "check", "rules", *sorted(path.name for path in folder.glob(RULES_FILES))], folder)


def check_config(amtool: Path, folder: Path) -> ToolReport:
    """`amtool check-config`."""
    return run([str(amtool), "check-config", ALERTMANAGER_FILE], folder)


def run_tests(promtool: Path, folder: Path, *, names: Sequence[str] = ()) -> ToolReport:
    """`promtool test rules` with every test file, or those named."""
    files = [f"{TESTS_FOLDER}/{name}.yml" for name in names] or sorted(str(path.relative_to(folder)) for path in folder.glob("tests/*.yml"))
    return run([str(promtool), "test", "rules", *files], folder)


def run_each_test(promtool: Path, folder: Path) -> Iterator[ToolReport]:
    """`promtool test rules` with one test file after the other, as many at once as there are processors."""
    names = sorted(path.stem for path in folder.glob(f"{TESTS_FOLDER}/*.yml"))
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        yield from pool.map(lambda name: run_tests(promtool, folder, names=(name,)), names)


def write(folder: Path, files: Mapping[str, str]) -> None:
    """Put rendered files where the tools can read them."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def check_files(promtool: Path, files: Sequence[str], folder: Path) -> ToolReport:
    """`promtool check rules` of these files, their names as seen from the folder, for what Prometheus would refuse."""
    return run([str(promtool), "check", "rules", "--lint=none", *files], folder)


def run(argv: list[str], folder: Path, *, timeout: float = _TIMEOUT) -> ToolReport:
    """What a tool says in this folder. Raises UnavailableError where it cannot be run or has not ended after `timeout` seconds."""
    command = " ".join([Path(argv[0]).name, *argv[1:]])
    try:
        done = subprocess.run(argv, cwd=folder, capture_output=True, text=True, timeout=timeout, check=False)
    except subprocess.TimeoutExpired as exc:
        raise UnavailableError(f"`{command}` gave no answer within {timeout:.0f} s.", hint="Run it again on a less busy machine.") from exc
    except OSError as exc:
        raise UnavailableError(f"Cannot run {argv[0]} ({exc.strerror}).", hint="Install Prometheus and Alertmanager.") from exc
    return ToolReport(command, done.returncode == 0, (done.stdout + done.stderr).strip())
