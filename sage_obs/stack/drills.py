"""The drills there are: what is broken on purpose, and how."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sage_obs.stack.up import DEFAULT_CONFIG

GOOD_VERSION: Final = "1.0.0"
BAD_VERSION: Final = "1.1.0"
_FAILING_CONFIG: Final = f"""\
{DEFAULT_CONFIG.rstrip()}
    # A third of the calls fail.
    error_rate: 0.3333
"""


@dataclass(frozen=True, slots=True)
class Drill:
    """A fault to inject into a stack.

    `config` is the agent's configuration in the bad release. `kill_responder` says whether the responder is ended with SIGKILL
    between asking for the rollback and seeing it done.
    """

    name: str
    title: str
    config: str
    kill_responder: bool = False


DRILLS: Final = {
    drill.name: drill
    for drill in (
        Drill("bad-release", "A release that fails a third of its requests.", _FAILING_CONFIG),
        Drill(
            "bad-release-responder-killed",
            "The same, and the responder is killed with -9 in the middle of the rollback.",
            _FAILING_CONFIG,
            kill_responder=True,
        ),
    )
}
"""Every drill by name."""
