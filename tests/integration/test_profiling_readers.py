"""Profiles as programs of others read them: speedscope itself, in a browser, and Datadog's pprof-format."""

from __future__ import annotations

import base64
import json
import subprocess
from pathlib import Path

import pytest

from sage_obs.profiling import pprof
from sage_obs.profiling.formats import SUFFIXES, read, written
from sage_obs.profiling.profile import Frame, Kind, Profile, Sample
from tests.support.npm import installed, need
from tests.support.pages import opened, words

pytestmark = pytest.mark.system

LEAF, CALLER, OTHER = Frame("leaf", "/src/a.py", 10, 12), Frame("caller", "/src/a.py", 20, 24), Frame("<lambda>", "/src/ü b.py", 1, 2)
PROFILE = Profile(
    kinds=(Kind("samples", "count"), Kind("cpu", "nanoseconds")),
    samples=(
        Sample((LEAF, CALLER), (7, 70_000_000), (("task", "much"), ("thread", "MainThread"))),
        Sample((OTHER, CALLER), (3, 30_000_000), (("thread", "MainThread"),)),
    ),
    default="cpu",
    period_kind=Kind("cpu", "nanoseconds"),
    period=10_000_000,
    time=1_700_000_000_000_000_000,
    duration=1_000_000_000,
    comments=("a comment",),
)
STRANGE = Profile(
    kinds=(Kind("n", ""), Kind("größe", "bytes")),
    samples=(
        Sample((Frame("\0\u2028</script>;"), Frame("f", "", 0, 2**31)), (-(2**63), 2**63 - 1), (("a", "b" * 1000),)),
        Sample((Frame("f", "", 0, 2**31),) * 200, (0, -1)),
    ),
    default="größe",
    duration=-1,
)
_SPEEDSCOPE = "speedscope@1.25.0"
_PPROF_FORMAT = "pprof-format@2.3.2"
_READ_AND_WRITE = """
const fs = require("fs"), zlib = require("zlib"), { Profile } = require("pprof-format");
const [source, target] = process.argv.slice(1);
const found = Profile.decode(zlib.gunzipSync(fs.readFileSync(source)));
fs.writeFileSync(target, zlib.gzipSync(Buffer.from(found.encode())));
const text = at => found.stringTable.strings[Number(at)];
const functions = new Map(found.function.map(one => [String(one.id), one]));
const called = line => functions.get(String(line.functionId));
const frame = line => [text(called(line).name), text(called(line).filename), Number(line.line)];
const places = new Map(found.location.map(one => [String(one.id), one.line.map(frame)]));
console.log(JSON.stringify({
  kinds: found.sampleType.map(one => [text(one.type), text(one.unit)]),
  default: text(found.defaultSampleType),
  comments: found.comment.map(text),
  samples: found.sample.map(one => ({
    stack: one.locationId.flatMap(id => places.get(String(id))),
    values: one.value.map(each => String(BigInt.asIntN(64, BigInt(each)))),
    labels: one.label.map(label => [text(label.key), text(label.str)]),
  })),
}));
"""


@pytest.mark.parametrize("profile", [PROFILE, STRANGE, Profile(PROFILE.kinds)], ids=["usual", "strange", "empty"])
def test_pprof_format_reads_what_we_write_and_we_what_it_writes(tmp_path: Path, profile: Profile) -> None:
    """Names, places, values to the last bit, labels and comments are the same in both directions."""
    source, target = tmp_path / "ours.pb.gz", tmp_path / "theirs.pb.gz"
    source.write_bytes(pprof.encode(profile))
    command = [need("nodejs", "node"), "-e", _READ_AND_WRITE, str(source), str(target)]
    done = subprocess.run(command, cwd=installed(_PPROF_FORMAT), capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert [tuple(one) for one in found["kinds"]] == [(kind.type, kind.unit) for kind in profile.kinds]
    assert found["default"] == profile.default
    assert found["comments"] == list(profile.comments)
    assert [tuple(map(int, one["values"])) for one in found["samples"]] == [sample.values for sample in profile.samples]
    assert [[tuple(frame) for frame in one["stack"]] for one in found["samples"]] == [
        [(frame.name, frame.file, frame.line) for frame in sample.stack] for sample in profile.samples
    ]
    assert [[tuple(label) for label in one["labels"]] for one in found["samples"]] == [list(sample.labels) for sample in profile.samples]
    assert pprof.decode(target.read_bytes()) == profile


def _in_speedscope(data: bytes, name: str, home: Path) -> str:
    """What speedscope shows of a file: its list of functions, with their time in all and of their own."""
    loads = home / "load.js"
    loads.write_text(f"speedscope.loadFileFromBase64({json.dumps(name)}, {json.dumps(base64.b64encode(data).decode())})")
    page = installed(_SPEEDSCOPE) / "node_modules/speedscope/dist/release/index.html"
    return words(opened(page, home=home, fragment=f"#localProfilePath={loads}&view=sandwich"))


@pytest.mark.parametrize("form", ["pprof", "speedscope", "collapsed"])
def test_speedscope_shows_every_format(tmp_path: Path, form: str) -> None:
    """Each file we write is read by it with the same functions and the same shares."""
    shown = _in_speedscope(written(PROFILE, form, title="a title"), f"profile{SUFFIXES[form]}", tmp_path)
    place = {name: f" ({frame.file}:{frame.line})" if form == "collapsed" else "" for name, frame in (("leaf", LEAF), ("caller", CALLER))}
    whole, most, none = ("100,000,000", "70,000,000", "0") if form == "collapsed" else ("100.00ms", "70.00ms", "0.00ns")
    assert f"{most} (70%) {most} (70%) leaf{place['leaf']}" in shown
    assert f"{whole} (100%) {none} (<0.01%) caller{place['caller']}" in shown
    assert ("a title - speedscope" in shown) == (form == "speedscope")


@pytest.mark.parametrize("form", ["pprof", "speedscope", "collapsed"])
def test_what_is_converted_is_shown_alike(tmp_path: Path, form: str) -> None:
    """A profile that went by way of another format comes to speedscope with the same functions and shares."""
    back = read(written(PROFILE, form, title="a title"))
    shown = _in_speedscope(written(back, "pprof", title=""), "profile.pb.gz", tmp_path)
    assert "(70%) leaf" in shown
    assert "(30%) <lambda>" in shown
