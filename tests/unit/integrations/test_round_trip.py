"""Every integration there is, whichever it is: what it changes it puts back."""

from __future__ import annotations

import importlib
import json
import logging
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from sage_obs.integrations import base
from sage_obs.integrations.patch import Patch, recording

ROOT = Path(__file__).parents[3]


def _around() -> dict[str, object]:
    """What an integration may change that is no attribute of a class or module: loggers, signals and the import system."""
    found: dict[str, object] = {"meta_path": tuple(sys.meta_path), "path_hooks": tuple(sys.path_hooks)}
    signals = vars(sys.modules["celery.signals"]) if "celery.signals" in sys.modules else {}
    found |= {f"signal {name}": tuple(getattr(signal, "receivers", None) or ()) for name, signal in signals.items()}
    loggers = [logging.root, *logging.root.manager.loggerDict.values()]
    for logger in loggers:
        if isinstance(logger, logging.Logger):
            found[logger.name] = (tuple(logger.handlers), logger.level, logger.propagate, logger.disabled, tuple(logger.filters))
    return found


@pytest.fixture(params=base.NAMES)
def integration(request: pytest.FixtureRequest) -> Iterator[base.Integration]:
    """An integration whose library is imported, and which is off again afterwards."""
    found = base.load(request.param)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what libraries say of each other when they are imported
        importlib.import_module(found.module)
        found.install()
        found.uninstall()
    yield found
    found.uninstall()


def test_install_and_uninstall_are_the_identity(integration: base.Integration) -> None:
    """After any number of installs and uninstalls every attribute is the object it was, and in between it is not."""
    before = _around()
    with recording() as replaced:
        integration.install()
        first = list(replaced)
        during = [one.there() for one in first]
        integration.install()
        assert [one.there() for one in first] == during
        assert replaced == first
        assert all(one.there() is not one.original for one in first)
        assert first or _around() != before
        integration.uninstall()
        integration.uninstall()
    assert all(one.there() is one.original for one in first)
    assert _around() == before


def test_a_second_round_trip_replaces_the_same(integration: base.Integration) -> None:
    """An integration can be installed again after it was uninstalled, and does then what it did before."""
    rounds = []
    for _ in range(2):
        with recording() as replaced:
            integration.install()
        integration.uninstall()
        rounds.append(replaced)
    assert rounds[0] == rounds[1]


IMPORTED = """\
import importlib, json, sys, warnings
import sage_obs
from sage_obs.integrations import base
from sage_obs.integrations.patch import recording

def load():
    for name in base.NAMES:
        importlib.import_module(base.load(name).module)

warnings.simplefilter("ignore")
if sys.argv[1] == "before":
    load()
with recording() as replaced:
    sage_obs.instrument("late", metrics_host="127.0.0.1", metrics_port=0, log_output="/dev/null")
    load()
sage_obs.uninstrument()
print(json.dumps(sorted([one.owner.__name__, one.attribute, one.there() is one.original] for one in replaced)))
"""


def _replaced(when: str) -> list[tuple[str, str, bool]]:
    """What is replaced where libraries are imported before or after `instrument`, and whether it came back."""
    done = subprocess.run([sys.executable, "-c", IMPORTED, when], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return [(owner, attribute, back) for owner, attribute, back in json.loads(done.stdout.splitlines()[-1])]


def test_libraries_that_are_imported_after_instrument_are_patched_the_same_and_put_back() -> None:
    """Whichever comes first, the same attributes are replaced, and `uninstrument` brings every one of them back.

    Before, a function may have been copied into other modules of its package, where it is replaced too.
    """
    before, after = _replaced("before"), _replaced("after")
    assert set(after) <= set(before)
    assert {(owner.partition(".")[0], attribute) for owner, attribute, _ in set(before) - set(after)} <= {
        (owner.partition(".")[0], attribute) for owner, attribute, _ in after
    }
    assert len(after) >= len(base.NAMES)
    assert all(back for _, _, back in (*before, *after))


def test_a_patch_that_somebody_wrapped_stays_theirs_and_a_missing_attribute_is_skipped() -> None:
    """Taking a patch back never takes somebody else's wrapper away; what the library has no longer is no error."""

    class Owner:
        def kept(self) -> str:
            return "original"

    with recording() as replaced:
        patch = Patch(Owner, "kept", lambda original: lambda self: original(self) + "!")
        patch.install()
        Patch(Owner, "gone", lambda original: original).install()
    assert [one.attribute for one in replaced] == ["kept"]
    ours = Owner.kept
    theirs = lambda self: ours(self) + "?"  # noqa: E731 - it stands for somebody's wrapper
    Owner.kept = theirs  # type: ignore[method-assign]
    patch.uninstall()
    assert Owner.kept is theirs
    assert Owner().kept() == "original!?"
