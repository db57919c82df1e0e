"""TLS 1.3 with certificates that may change while connections are open."""

from __future__ import annotations

import logging
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sage_obs.errors import ConfigError

_log = logging.getLogger("sage_agent")


@dataclass(frozen=True, slots=True)
class TlsConfig:
    """The files of the certificate, its key and whose client certificates are believed; whether callers must have one of these.

    `redirect_port` is where HTTP is taken and sent on to HTTPS, None for nowhere.
    """

    cert: Path
    key: Path
    key_password: str = field(repr=False)
    client_ca: Path | None
    client_required: bool
    redirect_port: int | None


def make_context(config: TlsConfig) -> ssl.SSLContext:
    """A server's context for new connections. Raises ConfigError where the files are not there or do not belong together."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(config.cert, config.key, password=lambda: config.key_password)
        if config.client_ca is not None:
            context.load_verify_locations(config.client_ca)
            context.verify_mode = ssl.CERT_REQUIRED if config.client_required else ssl.CERT_OPTIONAL
    except FileNotFoundError as exc:
        missing = next((one for one in (config.cert, config.key, config.client_ca) if one is not None and not one.exists()), config.cert)
        raise ConfigError(f"There is no file {missing}.", hint="Correct server.tls.*.") from exc
    except (ssl.SSLError, OSError) as exc:
        reason = getattr(exc, "reason", None) or exc.strerror or "unreadable"
        raise ConfigError(
            f"{config.cert} and {config.key} cannot be used for TLS ({reason}).", hint="They must be PEM, and belong together."
        ) from exc
    return context


class Certificate:
    """The certificate in use. `look` reads its files anew where they have changed; what cannot be used leaves the one before."""

    def __init__(self, config: TlsConfig, *, changed: Callable[[float], None] = lambda _: None) -> None:
        """`changed` is told when the certificate expires, in Unix time, at each change. Raises ConfigError."""
        self._config = config
        self._changed = changed
        self._stamps = self._stamp()
        self.context = make_context(config)

    def tell(self) -> None:
        """Tell when the certificate expires."""
        self._changed(expiry_of(self._config.cert))

    def look(self) -> None:
        """Use the files as they are now."""
        stamps = self._stamp()
        if stamps == self._stamps:
            return
        self._stamps = stamps
        try:
            self.context = make_context(self._config)
        except ConfigError as exc:
            _log.error("the new certificate cannot be used; the one before stays", extra={"reason": exc.message})
            return
        until = expiry_of(self._config.cert)
        self._changed(until)
        _log.info("the certificate was read anew", extra={"expires": until})

    def _stamp(self) -> tuple[tuple[int, int, int] | None, ...]:
        return tuple(_stamp(one) for one in (self._config.cert, self._config.key, self._config.client_ca) if one is not None)


def _stamp(file: Path) -> tuple[int, int, int] | None:
    """What changes with a file; symbolic links are followed, as Kubernetes swaps these."""
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def expiry_of(cert: Path) -> float:
    """When the first certificate of a file expires, in Unix time; 0 where that cannot be told."""
    from cryptography import x509

    try:
        return x509.load_pem_x509_certificates(cert.read_bytes())[0].not_valid_after_utc.timestamp()
    except (OSError, ValueError, IndexError):
        return 0.0


def read_tls(plain: dict[str, Any]) -> TlsConfig | None:
    """Read the settings by argument name; None where TLS is not wanted. Raises ConfigError for half a configuration."""
    cert, key = plain["tls_cert"], plain["tls_key"]
    if not cert and not key:
        if plain["tls_client_ca"] or plain["tls_redirect_port"] is not None or plain["tls_allow"]:
            raise ConfigError(
                "server.tls has no cert and no key.", hint="Set server.tls.cert and server.tls.key, or nothing of server.tls."
            )
        return None
    if not cert or not key:
        raise ConfigError(f"server.tls.{'key' if cert else 'cert'} is missing.", hint="TLS needs both server.tls.cert and server.tls.key.")
    if plain["tls_allow"] and not plain["tls_client_ca"]:
        raise ConfigError("server.tls.allow names callers by certificates that nobody signs.", hint="Set server.tls.client_ca.")
    return TlsConfig(
        cert=Path(cert),
        key=Path(key),
        key_password=plain["tls_key_password"],
        client_ca=Path(plain["tls_client_ca"]) if plain["tls_client_ca"] else None,
        client_required=plain["tls_client_required"],
        redirect_port=plain["tls_redirect_port"],
    )
