"""Names of what is stored: whatever a caller sends becomes a short text that cannot be mistaken for another's."""

from __future__ import annotations

import hashlib

from sage_agent.state.base import SessionKey


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
