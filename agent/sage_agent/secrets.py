"""Secrets that are kept elsewhere: a setting such as `file:/run/secrets/key` says where, and is read anew when that has changed."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final, Protocol

_log = logging.getLogger("sage_agent")
_LONGEST: Final = 64 * 1024
"""Bytes. A secret is a line; whoever names a larger file has named the wrong one."""
_SCHEME: Final = re.compile(r"([a-z][a-z0-9+.-]*):(//)?", re.ASCII)
_ADDRESSES: Final = frozenset({"http", "https", "postgres", "postgresql", "redis", "rediss", "unix", "sqlite"})
"""Schemes of what is no reference but an address that holds a secret."""
_LATER: Final = frozenset({"vault", "aws-sm", "gcp-sm", "azure-kv"})
"""Stores of secrets that have no reader in this version."""


class SecretError(ValueError):
    """A secret cannot be had. The message says where it should have been, and nothing of what it is."""


class Source(Protocol):
    """Where a secret is kept."""

    @property
    def place(self) -> str:
        """As whoever runs the agent is told."""

    def version(self) -> object:
        """What differs once the secret may have changed, and costs little to ask. Raises SecretError."""

    def read(self) -> str:
        """The secret. Raises SecretError."""


class FileSource:
    """Implements `Source` for a file, which may be a link that is switched to another, as Kubernetes does it."""

    def __init__(self, path: str) -> None:
        self._path = Path(path.removeprefix("//") if path.startswith("///") else path)

    @property
    def place(self) -> str:
        """Its path."""
        return f"file {self._path}"

    def version(self) -> object:
        """Which file it is at the end of all links, and when that was written."""
        try:
            found = self._path.stat()
        except OSError as exc:
            raise self._unreadable(exc.strerror or "unknown error") from exc
        return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns

    def read(self) -> str:
        """What is in it, without the space around; an empty file is one that is being written."""
        try:
            with self._path.open("rb") as file:
                data = file.read(_LONGEST + 1)
            text = data.decode().strip()
        except OSError as exc:
            raise self._unreadable(exc.strerror or "unknown error") from exc
        except UnicodeDecodeError:
            raise self._unreadable("it is not UTF-8 text") from None
        if not text or len(data) > _LONGEST:
            raise self._unreadable("it is empty" if not text else f"it is longer than {_LONGEST} bytes")
        return text

    def _unreadable(self, reason: str) -> SecretError:
        return SecretError(f"the secret in {self.place} cannot be read ({reason})")


STORES: Final[Mapping[str, Callable[[str], Source]]] = {"file": FileSource}
"""By the scheme of a reference: what reads the rest of it."""


def source_of(text: str) -> Source | None:
    """Where a setting says that its secret is kept; None for one that is the secret itself. Raises SecretError for an unknown store."""
    match = _SCHEME.match(text)
    if match is None:
        return None
    scheme = match.group(1)
    if scheme in STORES:
        return STORES[scheme](text.removeprefix(f"{scheme}:"))
    if scheme in _LATER or (match.group(2) and scheme not in _ADDRESSES):
        store = f"`{scheme}:`" if scheme in _LATER else "that store"  # what is no known store may be a secret
        raise SecretError(f"there is no reader for secrets in {store}; this version has {', '.join(f'`{one}:`' for one in STORES)}")
    return None


class Secret:
    """A secret and where it is kept; `clock` is in seconds.

    It is read at once, which raises SecretError. Later, where it cannot be read anew it stays what it was, and that is logged once.
    """

    def __init__(self, name: str, source: Source, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.name = name
        self.place = source.place
        self._source = source
        self._clock = clock
        self._version = source.version()
        self._value = source.read()
        self._seen = clock()
        self._failing = False

    def current(self) -> str:
        """The last that could be read."""
        return self._value

    def age(self) -> float:
        """Seconds since it was last known to be what its store has."""
        return max(0.0, self._clock() - self._seen)

    def refresh(self) -> bool:
        """Read it anew where it may have changed; returns whether it is another now."""
        try:
            version = self._source.version()
            value = self._value if version == self._version else self._source.read()
        except SecretError as exc:
            if not self._failing:
                _log.warning("a secret cannot be read anew and stays what it was", extra={"secret": self.name, "reason": str(exc)})
            self._failing = True
            return False
        changed = value != self._value
        self._version, self._value, self._seen, self._failing = version, value, self._clock(), False
        return changed

    def __repr__(self) -> str:
        return f"Secret({self.name!r}, {self.place!r})"


class Secrets:
    """Every secret of a configuration that is kept elsewhere, by the setting that needs it."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._known: dict[tuple[str, str], Secret] = {}

    def __iter__(self) -> Iterator[Secret]:
        return iter(tuple(self._known.values()))

    def __len__(self) -> int:
        return len(self._known)

    def find(self, name: str, text: str) -> Secret | None:
        """The secret that the text of a setting refers to, None where it is one itself. Raises SecretError."""
        known = self._known.get((name, text))
        if known is not None:
            return known
        source = source_of(text)
        if source is None:
            return None
        return self._known.setdefault((name, text), Secret(name, source, clock=self._clock))

    def refresh(self) -> bool:
        """Look at all of them; returns whether any is another now."""
        changed = [secret.refresh() for secret in self]
        return any(changed)

    def ages(self) -> dict[str, float]:
        """Seconds since each was known to be right; of several of one setting, the longest."""
        found: dict[str, float] = {}
        for secret in self:
            found[secret.name] = max(secret.age(), found.get(secret.name, 0.0))
        return found
