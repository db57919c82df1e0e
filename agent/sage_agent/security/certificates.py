"""Callers by their client certificates, which the handshake has verified: whose they are is in their alternative names."""

from __future__ import annotations

import functools
from collections.abc import Sequence

from sage_agent.callers import Caller, Role


class Certificates:
    """Knows callers whose certificate bears a name that is allowed: `dns:NAME` or `uri:URI`.

    `dns:*.example.com` allows names with one more label, `uri:spiffe://example.com/*` everything below a path.
    """

    def __init__(self, allow: Sequence[str]) -> None:
        self._allow = tuple(allow)
        self._known = functools.lru_cache(maxsize=1024)(self._look)

    def caller(self, certificate: bytes) -> Caller | None:
        """Whose certificate this is, in DER; None for nobody who is allowed."""
        return self._known(certificate)

    def _look(self, certificate: bytes) -> Caller | None:
        for name in _names(certificate):
            for allowed in self._allow:
                if _is(name, allowed):
                    return Caller(name, "", Role.OPERATOR, "mtls")
        return None


def _is(name: str, allowed: str) -> bool:
    if allowed.endswith("/*"):
        return name.startswith(allowed[:-1])
    if allowed.startswith("dns:*."):
        label, _, rest = name.removeprefix("dns:").partition(".")
        return name.startswith("dns:") and bool(label) and rest == allowed.removeprefix("dns:*.")
    return name == allowed


def _names(certificate: bytes) -> list[str]:
    from cryptography import x509

    try:
        names = x509.load_der_x509_certificate(certificate).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (ValueError, x509.ExtensionNotFound):
        return []
    dns = [f"dns:{name.lower()}" for name in names.get_values_for_type(x509.DNSName)]
    return [*dns, *(f"uri:{name}" for name in names.get_values_for_type(x509.UniformResourceIdentifier))]
