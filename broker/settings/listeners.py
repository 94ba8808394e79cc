"""A listener: where connections come in, what is spoken there, and who may come. Pure."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from pathlib import Path

from broker.errors import ConfigError

PROTOCOLS = ("mqtt", "websocket", "lines")
"""What a listener may speak. The first bytes of a connection tell which it is."""
ADMIN = "admin"
"""Or this alone: HTTP, for those who administer."""

CLIENT_CERTIFICATES = ("none", "optional", "required")
USERS = ("cn", "san")


@dataclass(frozen=True, slots=True, kw_only=True)
class Listener:
    """A `[[listeners]]`. Its bounds are those of the settings of the same name."""

    host: str = "127.0.0.1"
    port: int | None = None
    unix_socket: Path | None = None
    """In place of host and port. For this user alone."""
    protocols: tuple[str, ...] = PROTOCOLS
    """Or ADMIN alone."""
    allow_anonymous: bool | None = None
    """Here; None: as the broker's `allow_anonymous`."""
    allow_without_tls: bool = False
    """Administration on the network also without TLS: whoever is on the way reads the passwords of
    those who administer."""
    proxy_protocol: bool = False
    """Each connection begins with the header of a proxy, which names the client's address: PROXY
    protocol, version 2. Whoever reaches this listener can name any address."""
    tls_certificate: Path | None = None
    """PEM, with the certificates in between up to the CA's. Set: TLS is spoken, and nothing else.
    """
    tls_key: Path | None = None
    """PEM, without a password; None: it is in `tls_certificate`."""
    tls_client_ca: Path | None = None
    """PEM: the CAs that client certificates may be from."""
    tls_client_certificates: str = "none"
    """Whether clients are asked for a certificate: "none", "optional", "required"."""
    tls_user: str = "cn"
    """What of a client's certificate is its user: "cn", Common Name, or "san", the first DNS name,
    e-mail address or URI in its alternative names. It needs no password then."""
    tls_crl: Path | None = None
    """PEM: certificates of clients that the CA has revoked. Without a list in force, of each CA,
    no client certificate is accepted."""
    connections_max: int | None = None
    """Of this listener, beside those of all together."""
    packet_bytes_max: int | None = None
    """Here; None: as the broker's."""

    def __post_init__(self) -> None:
        if (self.port is None) == (self.unix_socket is None):
            raise ConfigError("listeners.port", self.port, "give either a port or a unix_socket")
        if self.administers:
            self._check_administration()
        elif not self.protocols or not set(self.protocols) <= set(PROTOCOLS):
            known = ", ".join(PROTOCOLS)
            must = f"must be some of {known}, or {ADMIN} alone"
            raise ConfigError("listeners.protocols", self.protocols, must)
        self._check_tls()

    @property
    def administers(self) -> bool:
        """Whether it is for administration, and for nothing else."""
        return self.protocols == (ADMIN,)

    @property
    def place(self) -> tuple[str, int | None, Path | None]:
        """Where it listens. No two listeners have the same."""
        return self.host, self.port, self.unix_socket

    @property
    def tls_files(self) -> list[Path]:
        files = self.tls_certificate, self.tls_key, self.tls_client_ca, self.tls_crl
        return [path for path in files if path is not None]

    def _check_administration(self) -> None:
        if self.unix_socket is not None:
            raise ConfigError(
                "listeners.unix_socket",
                str(self.unix_socket),
                "administration is on the socket in the data directory already: give a port",
            )
        if self.allow_anonymous:
            raise ConfigError(
                "listeners.allow_anonymous", True, "who administers says who it is: leave it out"
            )
        if self.tls_certificate is None and not (is_loopback(self.host) or self.allow_without_tls):
            raise ConfigError(
                "listeners.host",
                self.host,
                "passwords of who administers would go over the network as they are: give a"
                " tls_certificate (`pubsub cert create`), or allow_without_tls = true if that is"
                " meant",
            )

    def _check_tls(self) -> None:
        for key, known in (("tls_client_certificates", CLIENT_CERTIFICATES), ("tls_user", USERS)):
            if getattr(self, key) not in known:
                must = f"must be one of {', '.join(known)}"
                raise ConfigError(f"listeners.{key}", getattr(self, key), must)
        asked = self.tls_client_certificates != "none"
        needed = (
            ("tls_key", self.tls_key, "tls_certificate", self.tls_certificate),
            ("tls_client_ca", self.tls_client_ca, "tls_certificate", self.tls_certificate),
            ("tls_crl", self.tls_crl, "tls_client_ca", self.tls_client_ca),
            ("tls_client_certificates", asked, "tls_client_ca", self.tls_client_ca),
        )
        for key, given, other, other_given in needed:
            if given and not other_given:
                value = str(getattr(self, key))
                raise ConfigError(f"listeners.{key}", value, f"needs a {other}, too")
        if self.tls_client_ca is not None and not asked:
            raise ConfigError(
                "listeners.tls_client_ca",
                str(self.tls_client_ca),
                'nobody is asked for a certificate: add tls_client_certificates = "required", or'
                ' "optional"',
            )


def no_such_host(setting: str, host: str, error: Exception) -> ConfigError:
    why = error.strerror if isinstance(error, OSError) else "no name can be like that"
    return ConfigError(
        setting,
        host,
        f"does not resolve ({why}); give an address of this machine, such as 127.0.0.1,"
        " or 0.0.0.0 for all of them",
    )


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a listener on `host`; of names only localhost counts."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
