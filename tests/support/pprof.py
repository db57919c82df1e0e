"""What reads profiles beside us: Go's own tool, and the message as protocol buffers have it."""

from __future__ import annotations

import gzip
import os
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from tests.support.databases import _tree

GUIDE_LINES = """\
curl http://localhost:6060/debug/pprof/profile?seconds=30 > cpu.prof
go tool pprof cpu.prof
curl http://localhost:6060/debug/pprof/heap > mem.prof
go tool pprof mem.prof
curl http://localhost:6060/debug/pprof/goroutine > goroutine.prof
go tool pprof goroutine.prof
"""
"""As the deployment guide has them."""
_PPROF = "usr/lib/go-1.19/pkg/tool/linux_amd64/pprof"
_PART = descriptor_pb2.FieldDescriptorProto
_NUMBERS = {"int64": _PART.TYPE_INT64, "uint64": _PART.TYPE_UINT64, "bool": _PART.TYPE_BOOL, "string": _PART.TYPE_STRING}
_MESSAGES: dict[str, dict[str, tuple[int, str, bool]]] = {
    "Profile": {
        "sample_type": (1, "ValueType", True),
        "sample": (2, "Sample", True),
        "mapping": (3, "Mapping", True),
        "location": (4, "Location", True),
        "function": (5, "Function", True),
        "string_table": (6, "string", True),
        "drop_frames": (7, "int64", False),
        "keep_frames": (8, "int64", False),
        "time_nanos": (9, "int64", False),
        "duration_nanos": (10, "int64", False),
        "period_type": (11, "ValueType", False),
        "period": (12, "int64", False),
        "comment": (13, "int64", True),
        "default_sample_type": (14, "int64", False),
    },
    "ValueType": {"type": (1, "int64", False), "unit": (2, "int64", False)},
    "Sample": {"location_id": (1, "uint64", True), "value": (2, "int64", True), "label": (3, "Label", True)},
    "Label": {"key": (1, "int64", False), "str": (2, "int64", False), "num": (3, "int64", False), "num_unit": (4, "int64", False)},
    "Mapping": {
        "id": (1, "uint64", False),
        "filename": (5, "int64", False),
        "has_functions": (7, "bool", False),
        "has_filenames": (8, "bool", False),
        "has_line_numbers": (9, "bool", False),
    },
    "Location": {
        "id": (1, "uint64", False),
        "mapping_id": (2, "uint64", False),
        "address": (3, "uint64", False),
        "line": (4, "Line", True),
    },
    "Line": {"function_id": (1, "uint64", False), "line": (2, "int64", False)},
    "Function": {
        "id": (1, "uint64", False),
        "name": (2, "int64", False),
        "system_name": (3, "int64", False),
        "filename": (4, "int64", False),
        "start_line": (5, "int64", False),
    },
}
"""profile.proto of github.com/google/pprof: name → field → number, type, repeated."""


@cache
def _message() -> Any:
    file = descriptor_pb2.FileDescriptorProto(name="profile.proto", package="perftools.profiles", syntax="proto3")
    for message, parts in _MESSAGES.items():
        made = file.message_type.add(name=message)
        for name, (number, kind, repeated) in parts.items():
            field = made.field.add(name=name, number=number, label=_PART.LABEL_REPEATED if repeated else _PART.LABEL_OPTIONAL)
            field.type = _NUMBERS.get(kind, _PART.TYPE_MESSAGE)
            if kind in _MESSAGES:
                field.type_name = f".perftools.profiles.{kind}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("perftools.profiles.Profile"))


def parsed(data: bytes) -> Any:
    """The message in a compressed profile, as google.protobuf reads it."""
    message = _message()()
    message.ParseFromString(gzip.decompress(data))
    return message


def go_pprof(*arguments: str, home: Path, code: int = 0) -> str:
    """What `go tool pprof` prints, from Go on PATH or from Debian's package; what it keeps goes to `home`."""
    go = shutil.which("go")
    command = [go, "tool", "pprof"] if go is not None else [str(_tree("go", ("golang-1.19-go",), _PPROF) / _PPROF)]
    environ = {**os.environ, "PPROF_TMPDIR": str(home), "HOME": os.environ.get("HOME", str(home))}
    done = subprocess.run([*command, *arguments], cwd=home, env=environ, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr
