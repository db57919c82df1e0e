"""Names of what is stored: whatever a caller sends becomes a short text that cannot be mistaken for another's."""

from __future__ import annotations

import hashlib

from sage_agent.state.base import Owner, SessionKey


def digest(*parts: str) -> str:
    """40 hexadecimal digits for a list of texts; another list, cut elsewhere, has others."""
    whole = hashlib.sha256()
    for part in parts:
        data = part.encode("utf-8", "surrogatepass")
        whole.update(b"%d:" % len(data))
        whole.update(data)
    return whole.hexdigest()[:40]


def owner_of(key: SessionKey) -> str:
    """Under what the conversations of a user stand."""
    return digest("user", key.tenant, key.user)


def task_owner(owner: Owner) -> tuple[str, str]:
    """Under what the tasks of a tenant stand, and among them those of a user, "" for all of them."""
    return digest("tenant", owner.tenant), "" if owner.user is None else digest("user", owner.tenant, owner.user)


def raw(text: str) -> bytes:
    """A text as bytes in the order of its characters, whatever it holds: databases refuse some, such as zeros and halves of pairs."""
    return text.encode("utf-8", "surrogatepass")


def text_of(data: bytes) -> str:
    """The text that was made `raw`."""
    return bytes(data).decode("utf-8", "surrogatepass")
