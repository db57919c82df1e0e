"""A real nginx on loopback, from the system or from Debian's package unpacked beside the project."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.support.databases import _running, _tree
from tests.support.ports import free_port

_PACKAGES: Final = ("nginx", "libpcre2-8-0")
_CONFIGURATION: Final = """
daemon off; master_process off; pid nginx.pid; error_log stderr notice;
events {{ worker_connections 64; }}
http {{
  access_log off;
  client_body_temp_path b; proxy_temp_path p; fastcgi_temp_path f; uwsgi_temp_path u; scgi_temp_path s;
  upstream agents {{
    {servers}
    keepalive 16;
  }}
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://agents;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_next_upstream error timeout non_idempotent;
      proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
    }}
  }}
}}
"""


def _servers(upstreams: Sequence[str]) -> str:
    return " ".join(f"server {upstream.removeprefix('http://')} max_fails=1 fail_timeout=1s;" for upstream in upstreams)


@contextmanager
def nginx(*upstreams: str) -> Iterator[str]:
    """A proxy before some servers that adds its caller's address to X-Forwarded-For; yields its address.

    What one of them refuses or breaks off without an answer goes to the next.
    """
    tree, port = _tree("nginx", _PACKAGES, "usr/sbin/nginx"), free_port()
    with tempfile.TemporaryDirectory(prefix="sage-obs-nginx-") as folder:
        home = Path(folder)
        (home / "nginx.conf").write_text(_CONFIGURATION.format(port=port, servers=_servers(upstreams)))
        command = [str(tree / "usr/sbin/nginx"), "-p", folder, "-c", str(home / "nginx.conf"), "-e", "stderr"]
        with _running(command, tree, home, None, ready="using the"):
            yield f"http://127.0.0.1:{port}"
