"""What is kept of a key."""

from __future__ import annotations

import hashlib


def fingerprint(key: str) -> str:
    """The SHA-256 of a key in hexadecimal. Keys are looked up by this, so that how long that takes says nothing of the key."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()
