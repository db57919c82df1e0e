"""`sage-obs profile`."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sage_obs.errors import ConfigError, RefusedError

if TYPE_CHECKING:
    from sage_obs.profiling.capture import Captured
    from sage_obs.profiling.profile import Profile

_AT_ONCE = ("heap", "tasks")
"""Kinds that `top` looks at as they are: of memory over a time a table would take tracing, which slows a service down many times over."""
_KINDS = {
    "cpu": "What the processor is used for.",
    "wall": "Where time passes, waiting included.",
    "heap": "Memory by type; with --seconds what is allocated meanwhile and kept, by line.",
    "tasks": "Asyncio tasks and threads by where they stand.",
    "block": "What held event loops up.",
    "mutex": "Which locks were waited for (SAGE_PROFILING_LOCKS=true).",
}


@click.group("profile")
def command() -> None:
    """Look into a running service: processor, time, memory, tasks, blocked loops, locks.

    A service that serves profiles is asked at --url; SAGE_PROFILING_TOKEN has its token. --pid looks at any Python process of this
    machine from outside.
    """


_URL = click.option("--url", metavar="URL", help="Where the service serves profiles. Default: http://127.0.0.1:6060.")
_PID = click.option("--pid", type=click.IntRange(1), help="A process that need not be instrumented, by py-spy.")
_FORCE = click.option("--force", is_flag=True, help="Overwrite files that exist.")
_OUT = click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="File to write: .pb.gz or .prof, .txt (collapsed), .json (speedscope) or .html.",
)
_FLAMEGRAPH = click.option("--flamegraph", type=click.Path(path_type=Path, dir_okay=False), help="Page to draw a flame graph on.")
_OPEN = click.option("--open", "opens", is_flag=True, help="Open the flame graph in a browser.")


def _add(kind: str, words: str) -> None:
    @command.command(kind, help=words)
    @_PID
    @_URL
    @click.option("--seconds", type=click.IntRange(1, 120), help="How long to look. Default: 10, or for what is counted all along, now.")
    @_OUT
    @_FLAMEGRAPH
    @_OPEN
    @_FORCE
    def one(*, pid: int | None, url: str | None, seconds: int | None, **files: Any) -> None:
        _check(files)
        _deliver(_taken(kind, pid=pid, url=url, seconds=seconds), title=kind, **files)


for _kind, _words in _KINDS.items():
    _add(_kind, _words)


@command.command("capture")
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@_PID
@_URL
@click.option("--seconds", type=click.IntRange(1, 120), default=5, show_default=True, help="How long to look.")
@_FORCE
@click.option("--json", "as_json", is_flag=True, help="One JSON object for each kind of profile on stdout.")
def capture_(*, folder: Path, pid: int | None, url: str | None, seconds: int, force: bool, as_json: bool) -> int:
    """Take every profile at once, before something is changed: files and flame graphs in FOLDER.

    With both --url and --pid a service that does not answer is looked at from outside.
    """
    from sage_obs.profiling import capture, fetch

    for path in capture.paths(folder):
        _check({"output": path, "force": force})
    asked = url or (fetch.DEFAULT_URL if pid is None else "")
    found = capture.capture(capture.Subject(asked, pid, _token()), folder, seconds=seconds)
    for one in found:
        _tell(one, as_json=as_json)
    return 0 if any(one.files for one in found) else 1


def _tell(one: Captured, *, as_json: bool) -> None:
    """What came of one kind, for machines or for people."""
    import orjson

    if as_json:
        click.echo(orjson.dumps({"kind": one.kind, "files": [str(path) for path in one.files], "error": one.error}))
        return
    for path in one.files:
        click.echo(str(path))
    if not one.files:
        click.echo(f"{one.kind}: {one.error or 'nothing to be seen'}", err=True)


def _taken(kind: str, *, pid: int | None, url: str | None, seconds: int | None) -> Profile:
    from sage_obs.profiling import fetch

    if pid is not None and url is not None:
        raise ConfigError("--pid and --url name two processes.", hint="Give one of them.")
    if pid is not None:
        return fetch.from_process(pid, kind, seconds=seconds)
    return fetch.from_url(url or fetch.DEFAULT_URL, kind, seconds=seconds, token=_token())


def _token() -> str:
    """The service's own variables, so that whoever runs on its machine needs nothing else."""
    if path := os.environ.get("SAGE_PROFILING_TOKEN_FILE"):
        return Path(path).read_text().strip()
    return os.environ.get("SAGE_PROFILING_TOKEN", "")


@command.command("top")
@_PID
@_URL
@click.option("--kind", type=click.Choice(list(_KINDS)), default="cpu", show_default=True, help="What to look at.")
@click.option("--seconds", type=click.IntRange(1, 120), default=2, show_default=True, help="How long each look is, or from look to look.")
@click.option("--looks", type=click.IntRange(0), default=0, help="How many looks; 0 goes on until Ctrl+C, or once where nobody watches.")
def top_(*, pid: int | None, url: str | None, kind: str, seconds: int, looks: int) -> None:
    """Show the functions with the most, again and again."""
    from sage_obs.cli.profile_table import print_profile
    from sage_obs.cli.profile_top import watch

    over = None if kind in _AT_ONCE else seconds

    def look() -> Profile:
        return _taken(kind, pid=pid, url=url, seconds=over)

    if sys.stdout.isatty():
        watch(look, title=f"{kind}, {'over' if over else 'every'} {seconds} s", looks=looks, pause=0 if over else seconds)
        return
    for number in range(looks or 1):
        time.sleep(seconds if number and not over else 0)
        print_profile(look())


@command.command("diff")
@click.argument("before", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.argument("after", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--normalize", is_flag=True, help="As if both had the same sum: shares are compared, whatever the length and the load.")
@_OUT
@_FLAMEGRAPH
@_OPEN
@_FORCE
def diff_(*, before: Path, after: Path, normalize: bool, **files: Any) -> None:
    """Show what changed from one profile to another, each in any format.

    Of two releases the same code may lie in two folders; it is compared nonetheless.
    """
    from sage_obs.profiling import releases
    from sage_obs.profiling.profile import difference

    _check(files)
    new, old = _read(after), _read(before)
    try:
        old = releases.moved(releases.scaled(old, new) if normalize and old.kinds == new.kinds else old, new)
        found = difference(new, old)
    except ValueError as exc:
        raise ConfigError(f"{exc}.", hint="Compare two profiles of the same kind.") from exc
    _deliver(found, title=f"{before.name} to {after.name}", **files)


@command.command("convert")
@click.argument("source", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.argument("target", type=click.Path(path_type=Path, dir_okay=False))
@_FORCE
def convert_(*, source: Path, target: Path, force: bool) -> None:
    """Write a profile in another format, by the name of the file: .pb.gz or .prof, .txt (collapsed), .json (speedscope), .html."""
    _check({"output": target, "force": force})
    _write(_read(source), target, title=source.name)


def _read(path: Path) -> Profile:
    from sage_obs.profiling import formats

    try:
        return formats.read(path.read_bytes())
    except ValueError as exc:
        hint = "It may be pprof (.pb.gz), collapsed stacks or speedscope's JSON."
        raise ConfigError(f"{path} holds no profile: {exc}.", hint=hint) from exc


def _check(files: dict[str, Any]) -> None:
    """Refuse before anybody waits for a profile."""
    from sage_obs.profiling.formats import form_of

    if (output := files.get("output")) is not None:
        try:
            form_of(output.name)
        except ValueError as exc:
            raise ConfigError(f"It is not clear what to write: {exc}.") from exc
    for path in (files.get("output"), files.get("flamegraph")):
        if path is not None and path.exists() and not files["force"]:
            raise RefusedError(f"{path} exists.", hint="Give another name, or --force.")


def _deliver(profile: Profile, *, title: str, output: Path | None, flamegraph: Path | None, opens: bool, force: bool) -> None:
    del force
    if output is not None:
        _write(profile, output, title=title)
    if opens and flamegraph is None:
        import tempfile

        flamegraph = Path(tempfile.mkdtemp(prefix="sage-obs-profile-")) / "flamegraph.html"
    if flamegraph is not None:
        _write(profile, flamegraph, title=title, form="flamegraph")
    if opens and flamegraph is not None:
        import webbrowser

        webbrowser.open(flamegraph.resolve().as_uri())
    if output is None and flamegraph is None:
        from sage_obs.cli.profile_table import print_profile

        print_profile(profile)


def _write(profile: Profile, path: Path, *, title: str, form: str = "") -> None:
    from sage_obs.profiling.formats import form_of, written

    path.write_bytes(written(profile, form or form_of(path.name), title=title))
    click.echo(str(path))
