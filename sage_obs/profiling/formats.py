"""A profile as a file, in each format there is."""

from __future__ import annotations

from sage_obs.profiling import collapsed, flamegraph, pprof, speedscope
from sage_obs.profiling.profile import Profile

SUFFIXES = {"pprof": ".pb.gz", "collapsed": ".txt", "speedscope": ".speedscope.json", "flamegraph": ".html"}
_ENDINGS = {
    "pprof": (".pb.gz", ".pb", ".pprof", ".prof"),
    "speedscope": (".json",),
    "collapsed": (".txt", ".collapsed", ".folded"),
    "flamegraph": (".html", ".htm"),
}
TYPES = {
    "pprof": "application/octet-stream",
    "collapsed": "text/plain; charset=utf-8",
    "speedscope": "application/json",
    "flamegraph": "text/html; charset=utf-8",
}


def written(profile: Profile, form: str, *, title: str) -> bytes:
    """The file's bytes. Raises KeyError for a format there is not."""
    writers = {
        "pprof": lambda: pprof.encode(profile),
        "collapsed": lambda: collapsed.encode(profile).encode("utf-8", "replace"),
        "speedscope": lambda: speedscope.encode(profile, title=title),
        "flamegraph": lambda: flamegraph.render(profile, title=title),
    }
    return writers[form]()


def form_of(name: str) -> str:
    """The format a file of that name is to have. Raises ValueError where the name does not say."""
    for form, endings in _ENDINGS.items():
        if name.lower().endswith(endings):
            return form
    raise ValueError(f"the name of {name} ends in none of {', '.join(ending for endings in _ENDINGS.values() for ending in endings)}")


def read(data: bytes) -> Profile:
    """A profile in any format but a page's. Raises ValueError for what is none."""
    if data[:2] == b"\x1f\x8b":
        return pprof.decode(data)
    if data.lstrip()[:1] == b"{":
        return speedscope.decode(data)
    try:
        return collapsed.decode(data.decode())
    except ValueError:
        return pprof.decode(data)


def listing(profile: Profile, name: str) -> str:
    """As text for a person: Go's debug=1."""
    head = f"{name} profile: {len(profile.samples)} places; {', '.join(f'{kind.type}/{kind.unit}' for kind in profile.kinds)}\n"
    comments = "".join(f"# {comment}\n" for comment in profile.comments)
    return (
        head
        + comments
        + "".join(
            f"\n{' '.join(map(str, sample.values))} @ {' '.join(f'{key}={value}' for key, value in sample.labels)}\n"
            + "".join(f"#\t{frame.name}\t{frame.file}:{frame.line}\n" for frame in sample.stack)
            for sample in profile.samples
        )
    )
