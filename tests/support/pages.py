"""Chromium without a network: what a page that was saved becomes when it is opened."""

from __future__ import annotations

import re
import subprocess
from html import unescape
from pathlib import Path

from tests.support.npm import need

_OPTIONS = ("--headless", "--no-sandbox", "--enable-unsafe-swiftshader", "--disable-dev-shm-usage", "--host-resolver-rules=MAP * ~NOTFOUND")


def opened(page: Path, *, home: Path, fragment: str = "") -> str:
    """The document as it is once its scripts have run; what the browser keeps goes to `home`."""
    options = [*_OPTIONS, f"--user-data-dir={home / 'chromium'}", "--virtual-time-budget=6000"]
    command = [need("chromium"), *options, "--dump-dom", f"{page.as_uri()}{fragment}"]
    return subprocess.run(command, capture_output=True, text=True, timeout=90, check=True).stdout


def words(document: str) -> str:
    """What a person reads of it, on one line."""
    bare = re.sub(r"<(style|script)\b.*?</\1>|<[^>]*>", " ", document, flags=re.DOTALL)
    return " ".join(unescape(bare).split())


def drawn(document: str) -> list[tuple[str, float]]:
    """The boxes of a flame graph: what stands in each, and its width from 0 to 1."""
    found = re.findall(r'<button title="[^"]*" style="left: [^;]*; width: ([\d.e-]+)%[^>]*>([^<]*)</button>', document)
    return [(unescape(name), float(width) / 100) for width, name in found]
