"""API keys: who has which, from the settings and from a file that may change."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

import yaml

from sage_agent.callers import Caller
from sage_agent.security.fingerprints import fingerprint
from sage_agent.security.options import KeyEntry, parse_api_keys
from sage_obs.errors import ConfigError

_log = logging.getLogger("sage_agent")
_LOOK_SECONDS: Final = 2.0


def new_key() -> str:
    """A fresh key of 256 bits."""
    return f"sage_{secrets.token_urlsafe(32)}"


class ApiKeys:
    """Knows callers by their keys. A file is looked at every two seconds; one that cannot be read leaves what was there before."""

    def __init__(self, entries: Sequence[KeyEntry], file: Path | None = None, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Raises ConfigError where the file cannot be read now."""
        self._own = _callers(entries)
        self._file = file
        self._clock = clock
        self._seen: tuple[int, int, int] | None = None
        self._looked = clock()
        self._filed: Mapping[str, Caller] = {}
        if file is not None:
            self._seen = _stamp(file)  # before it is read: what is written meanwhile is another stamp, and read in two seconds
            self._filed = _read(file)
        self._callers = {**self._filed, **self._own}

    def renew(self, entries: Sequence[KeyEntry]) -> None:
        """These are the settings' own from now on."""
        self._own = _callers(entries)
        self._callers = {**self._filed, **self._own}

    def caller(self, key: str) -> Caller | None:
        """Who has a key; None for nobody."""
        if self._file is not None:
            self._look(self._file)
        return self._callers.get(fingerprint(key))

    def _look(self, file: Path) -> None:
        now = self._clock()
        if now - self._looked < _LOOK_SECONDS:
            return
        self._looked = now
        stamp = _stamp(file)
        if stamp == self._seen:
            return
        self._seen = stamp
        try:
            self._filed = _read(file)
            self._callers = {**self._filed, **self._own}
        except ConfigError as exc:
            _log.error("the file of API keys cannot be used; the keys from before stay", extra={"reason": str(exc)})
        else:
            _log.info("the file of API keys was read anew", extra={"keys": len(self._callers)})


def _callers(entries: Sequence[KeyEntry]) -> dict[str, Caller]:
    return {entry.sha256: Caller(entry.id, entry.tenant, entry.role, "api_key", entry.rate) for entry in entries}


def _read(file: Path) -> dict[str, Caller]:
    try:
        found = yaml.safe_load(file.read_text())
        return _callers(parse_api_keys([] if found is None else found))
    except OSError as exc:
        raise ConfigError(f"Cannot read the API keys in {file}: {exc.strerror}.", hint="Correct security.api_keys_file.") from exc
    except yaml.YAMLError:
        raise ConfigError(f"{file} is not valid YAML.", hint="It holds a list of {id, tenant, role, sha256}.") from None
    except ValueError as exc:
        raise ConfigError(f"Cannot use the API keys in {file}: {exc}.") from None


def _stamp(file: Path) -> tuple[int, int, int] | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size
