"""Draw every board over a fleet under faults, for docs/boards/: `python tools/board_pictures.py [FOLDER]`."""

from __future__ import annotations

import base64
import sys
import tempfile
from pathlib import Path

import httpx

sys.path.insert(0, str(Path(__file__).parents[1]))

from sage_obs.cli.previewing import profiles_of
from sage_obs.dashboards.preview.server import Preview, serving
from sage_obs.dashboards.render import boards
from tests.support.browser import Page, browsing
from tests.support.fleet import running_fleet

WIDTH, QUALITY = 1200, 55
FIRST = {"sage-fleet", "sage-incident", "sage-rollout"}
"""What is drawn while alerts fire, which they do for a short time in a fleet with a drill's windows."""


def picture(page: Page) -> bytes:
    """The whole page as WebP."""
    page.call("Emulation.setDeviceMetricsOverride", width=WIDTH, height=400, deviceScaleFactor=1, mobile=False)
    height = int(page.evaluate("document.documentElement.scrollHeight"))
    page.call("Emulation.setDeviceMetricsOverride", width=WIDTH, height=height, deviceScaleFactor=1, mobile=False)
    return base64.b64decode(page.call("Page.captureScreenshot", format="webp", quality=QUALITY)["data"])


def main() -> None:
    """Draw them all."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "docs/boards")
    folder.mkdir(parents=True, exist_ok=True)
    every = {board["uid"]: board for board in boards()}
    with tempfile.TemporaryDirectory() as scratch, running_fleet(Path(scratch)) as fleet, httpx.Client(trust_env=False) as client:
        preview = Preview(every, fleet.prometheus.url, client, profiles_of(fleet.agents[1].profiles_url))
        with serving(preview, port=0) as url, browsing(width=WIDTH) as page:
            for uid in sorted(every, key=lambda uid: uid not in FIRST):
                page.open(f"{url}d/{uid}?from=now-90s&refresh=0")
                (folder / f"{uid}.webp").write_bytes(picture(page))


if __name__ == "__main__":
    main()
