"""Whether a thread waits, now that it is looked at: what it has used of the processor since the last look was used somewhere else."""

from __future__ import annotations

import dis
import os
import platform
from functools import lru_cache
from types import CodeType, FrameType
from typing import Final

_READS: Final = ("recv", "recv_into", "recvfrom", "recvmsg", "send", "sendall", "read", "readinto", "readline", "accept", "connect")
_PAUSES: Final = ("sleep", "acquire", "wait", "select", "poll", "getaddrinfo", "waitpid", "wait4", "waitid", "sigwait")
_BLOCKING: Final = frozenset({*_READS, *_PAUSES, "run_forever", "run_until_complete"})
"""Functions of native code that wait, by what they are called as; an event loop's own are among them."""
_ENTERS: Final = frozenset({"BEFORE_WITH", "LOAD_SPECIAL"})
_MADE_BY: Final = ("CALL", "PRECALL")
"""What a call is made by: 3.11 makes those of known builtins in the first half already."""
_PREPARES: Final = frozenset({"PRECALL", "KW_NAMES"})
"""Parts of a call, in 3.11 and 3.12."""
_IDLE_CODES: Final = 4096
_WAITS: Final = {
    "x86_64": frozenset({0, 7, 23, 35, 43, 45, 47, 61, 230, 232, 247, 270, 271, 281, 288, 299, 441}),
    "aarch64": frozenset({22, 63, 72, 73, 95, 101, 115, 202, 207, 212, 242, 243, 260, 441}),
}.get(platform.machine(), frozenset[int]())
"""System calls that wait: read, poll, select, nanosleep, accept, recvfrom, recvmsg, wait4, clock_nanosleep, epoll_wait, waitid, pselect6,
ppoll, epoll_pwait, accept4, recvmmsg, epoll_pwait2, by their numbers. A futex is not among them: a thread that only waits for its turn to
run Python waits for one, too."""


def idle(native: int, frame: FrameType, *, here: bool, shared: bool) -> bool:
    """Whether the thread waits where it stands.

    It does at a call of something that waits, unless this runs in that very thread (`here`) and nobody else has used the processor
    (`shared`): then it was at work when the signal came. Of other threads the system tells, too.
    """
    if (shared or not here) and _may_wait(frame.f_code, frame.f_lasti):
        return True
    if here:
        return False
    try:
        descriptor = os.open(f"/proc/self/task/{native}/syscall", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:  # it has ended, or the system does not tell
        return False
    try:
        number = os.read(descriptor, 8).partition(b" ")[0]
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return number.isdigit() and int(number) in _WAITS


@lru_cache(maxsize=_IDLE_CODES)
def _may_wait(code: CodeType, at: int) -> bool:
    """Whether the instruction there may be one that waits: a `with`, or a call of what is known to."""
    before = [one for one in dis.get_instructions(code) if one.offset <= at]
    if not before or not before[-1].opname.startswith(_MADE_BY):
        return bool(before) and before[-1].opname in _ENTERS
    left = before.pop().arg or 0
    while before and before[-1].opname in _PREPARES:
        before.pop()
    for one in reversed(before):
        if left <= 0 and isinstance(one.argval, str):
            return one.argval in _BLOCKING
        left -= dis.stack_effect(one.opcode, one.arg if one.opcode >= dis.HAVE_ARGUMENT else None, jump=False)
    return False
