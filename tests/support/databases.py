"""A real PostgreSQL and a real Redis on loopback, from the system or from Debian's packages unpacked beside the project."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from sage_obs.stack import binaries
from tests.support.ports import free_port
from tests.support.services import wait_until

FOLDER: Final = Path(__file__).parents[2] / ".sage-obs/debian"
_POSTGRES: Final = ("postgresql-15", "postgresql-client-15", "libpq5", "libldap-2.5-0", "libsasl2-2", "libxml2", "libicu72")
_REDIS: Final = ("redis-server", "redis-tools", "libjemalloc2", "liblzf1", "libhiredis0.14", "liblua5.1-0", "lua-bitop", "lua-cjson")
"""With the libraries that a plain Debian lacks."""


def _tree(name: str, packages: Sequence[str], program: str) -> Path:
    """The folder that `program` lies in, by its path below it: the system's root, or one the packages are unpacked in, once."""
    if os.access(f"/{program}", os.X_OK):
        return Path("/")
    tree = FOLDER / name
    with binaries._exclusive(FOLDER, lambda: None):
        if not (tree / "complete").exists():
            _unpack(packages, tree)
            (tree / "complete").touch()
    return tree


def _unpack(packages: Sequence[str], tree: Path) -> None:
    shutil.rmtree(tree, ignore_errors=True)
    run = binaries._Run(lambda: None)
    for package in packages:
        with tempfile.TemporaryDirectory(dir=FOLDER) as scratch:
            archive = binaries._download(package, Path(scratch), FOLDER, run)
            binaries._check(run(["dpkg", "-x", str(archive), str(tree)]), package)


@contextmanager
def _home(tree: Path) -> Iterator[tuple[Path, Path, str | None]]:
    """A folder for a server's files, the tree where that server may read it, and whom to run it as: PostgreSQL refuses to be root."""
    user = "nobody" if os.getuid() == 0 else None
    with tempfile.TemporaryDirectory(prefix="sage-obs-database-", ignore_cleanup_errors=True) as folder:
        home = Path(folder)
        if user is not None:
            home.chmod(0o755)
            if tree != Path("/") and not all(parent.stat().st_mode & 0o001 for parent in (tree, *tree.parents)):
                tree = Path(shutil.copytree(tree, home / "tree", symlinks=True))
            (home / "data").mkdir()
            os.chown(home / "data", pwd.getpwnam(user).pw_uid, -1)
        yield home / "data", tree, user


def _environment(tree: Path) -> Mapping[str, str]:
    path = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"}
    return path if tree == Path("/") else {**path, "LD_LIBRARY_PATH": str(next((tree / "usr/lib").glob("*-linux-gnu")))}


@contextmanager
def postgres(*, port: int = 0) -> Iterator[str]:
    """A PostgreSQL server with an empty database; yields its address, `postgresql://tester@127.0.0.1:PORT/postgres`."""
    programs, port = "usr/lib/postgresql/15/bin", port or free_port()
    with _home(_tree("postgres", _POSTGRES, f"{programs}/postgres")) as (data, tree, user):
        make = [str(tree / programs / "initdb"), "-D", str(data), "-U", "tester", "-A", "trust", "--no-sync", "--no-instructions"]
        done = subprocess.run(make, user=user, env=_environment(tree), cwd=data.parent, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        options = ["-D", str(data), "-h", "127.0.0.1", "-p", str(port), "-k", "", "-F"]
        with _running([str(tree / programs / "postgres"), *options], tree, data.parent, user, ready="ready to accept connections"):
            yield f"postgresql://tester@127.0.0.1:{port}/postgres"


@contextmanager
def redis_server(*, port: int = 0) -> Iterator[str]:
    """A Redis server that keeps nothing; yields its address, `redis://127.0.0.1:PORT/0`."""
    port = port or free_port()
    with _home(_tree("redis", _REDIS, "usr/bin/redis-server")) as (data, tree, user):
        data.mkdir(exist_ok=True)
        command = [str(tree / "usr/bin/redis-server"), "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(data)]
        with _running(command, tree, data, user, ready="Ready to accept connections"):
            yield f"redis://127.0.0.1:{port}/0"


@contextmanager
def _running(command: Sequence[str], tree: Path, cwd: Path, user: str | None, *, ready: str) -> Iterator[None]:
    """A server, from when it says that it is ready until the end of the block."""
    with tempfile.NamedTemporaryFile("w+") as log:
        server = subprocess.Popen(command, user=user, env=_environment(tree), cwd=cwd, stdout=log, stderr=subprocess.STDOUT)
        said = Path(log.name).read_text
        try:
            wait_until(lambda: ready in said() or server.poll() is not None, says=said)
            assert server.poll() is None, said()
            yield
        finally:
            server.send_signal(signal.SIGINT)  # PostgreSQL waits for its clients at SIGTERM
            server.wait(20)
