"""What `sage-agent did` does."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from sage_agent.security.did_open import need_packages
from sage_obs.errors import ConfigError, SageObsError, UnavailableError


class RefusedAnswerError(SageObsError):
    """The other agent answered with an error."""


def create(out: Path, algorithm: str) -> str:
    """Write a new private key, readable by its owner only, and return its did:key. Raises ConfigError for a file that exists."""
    need_packages("sage-agent did")
    from sage_agent.security.signer import make_signer, new_private_key, to_pem

    pem = to_pem(new_private_key(algorithm))
    try:
        with os.fdopen(os.open(out, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(pem)
    except OSError as exc:
        raise ConfigError(f"{out} cannot be written: {exc.strerror}.", hint="A key is never overwritten: name another file.") from None
    return make_signer(pem).did


def document(key: Path, did: str) -> dict[str, Any]:
    """The DID document of a private key. Raises ConfigError."""
    need_packages("sage-agent did")
    from sage_agent.security.signer import did_key, read_signer

    public = read_signer(key).public
    own = did_key(public).removeprefix("did:key:")
    subject = did or f"did:key:{own}"
    name = f"{subject}#{'key-1' if did else own}"
    method = {"id": name, "type": "Multikey", "controller": subject, "publicKeyMultibase": own}
    context = ["https://www.w3.org/ns/did/v1", "https://w3id.org/security/multikey/v1"]
    return {"@context": context, "id": subject, "verificationMethod": [method], "authentication": [name], "assertionMethod": [name]}


def call(url: str, text: str, *, key: Path, keyid: str, timeout: float) -> dict[str, Any]:
    """The answer of an agent to a signed message. Raises ConfigError, UnavailableError and RefusedAnswerError."""
    need_packages("sage-agent did")
    import httpx

    from sage_agent.security.signer import SignedBy, read_signer

    body = {"parts": [{"kind": "text", "text": text}]}
    auth = SignedBy(read_signer(key, keyid=keyid))
    try:
        response = httpx.post(f"{url.rstrip('/')}/v1/messages", json=body, auth=auth, timeout=timeout, follow_redirects=False)
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as exc:
        raise UnavailableError(f"{url} did not answer: {exc}.", hint="Is the agent running there?") from None
    if response.is_success:
        return dict(response.json())
    raise RefusedAnswerError(f"{url} answered {response.status_code}: {response.text[:500]}", hint="Its log says why.")
