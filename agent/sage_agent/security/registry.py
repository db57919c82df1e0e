"""DIDs that a file knows: documents by DID, read again when the file has changed."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import orjson

from sage_agent.security.did import UnresolvableError, keys_of_document, parse_did_url
from sage_agent.security.keys import VerifyingKey
from sage_obs.errors import ConfigError

_log = logging.getLogger("sage_agent")
_LOOK_EVERY_SECONDS: Final = 1.0
_LONGEST: Final = 16 * 1024 * 1024
Known = Mapping[str, Mapping[str, VerifyingKey]]


def read_registry(path: Path) -> Known:
    """The keys of every DID in a file, a JSON object of DID documents by DID. Raises ConfigError that says what is wrong."""
    hint = 'It is a JSON object such as {"did:sage:…": {"id": "did:sage:…", "verificationMethod": […], "authentication": […]}}.'
    try:
        if path.stat().st_size > _LONGEST:
            raise ConfigError(f"The DID registry {path} is longer than {_LONGEST} bytes.", hint=hint)
        documents = orjson.loads(path.read_bytes())
    except (OSError, orjson.JSONDecodeError) as exc:
        raise ConfigError(f"The DID registry {path} cannot be read: {exc}.", hint=hint) from None
    if not isinstance(documents, dict):
        raise ConfigError(f"The DID registry {path} is no JSON object.", hint=hint)
    known = {}
    for did, document in documents.items():
        try:
            known[parse_did_url(did).did] = keys_of_document(document, did)
        except UnresolvableError as exc:
            raise ConfigError(f"The DID registry {path}: the document of {did[:120]} is not its own ({exc.reason}).", hint=hint) from None
        if not known[did]:
            raise ConfigError(f"The DID registry {path}: {did[:120]} has no key for authentication that can be used.", hint=hint)
    return known


class FileRegistry:
    """Keeps what a file says. A change that cannot be read leaves what was known, and is logged once."""

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._clock = clock
        self._stamp = self._mark()
        self._known = read_registry(path)
        self._looked = clock()

    def find(self, did: str) -> Mapping[str, VerifyingKey] | None:
        """The keys of a DID; None for one the file does not know."""
        if self._clock() - self._looked >= _LOOK_EVERY_SECONDS:
            self._looked = self._clock()
            self._look_again()
        return self._known.get(did)

    def _look_again(self) -> None:
        stamp = self._mark()
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._known = read_registry(self._path)
        except ConfigError as exc:
            _log.warning("the DID registry has changed and cannot be used; what it said before still holds", extra={"why": str(exc)})

    def _mark(self) -> tuple[int, int, int]:
        try:
            found = self._path.stat()
        except OSError:
            return (0, 0, 0)
        return (found.st_mtime_ns, found.st_size, found.st_ino)
