"""TLS of the commands: the context for a connection, and in one sentence what went wrong."""

from __future__ import annotations

import ssl
from pathlib import Path

from cli.net.address import Address
from cli.terminal.failure import CommandFailed, Exit
from cli.terminal.reading import refuse_device

ALPN = {False: "mqtt", True: "http/1.1"}
"""By whether it is for a WebSocket."""
VERIFY_CODES = {
    9: ("its certificate is not valid yet", "is the clock of this machine right?"),
    10: ("its certificate has expired", "the broker needs a new one"),
    23: ("its certificate was revoked", "do not trust it"),
    62: ("its certificate is not for the name {host}", "use the name that it is for as host"),
    64: ("its certificate is not for the address {host}", "use the name that it is for as host"),
}
"""Of OpenSSL (x509_vfy.h)."""
UNKNOWN_AUTHORITY = (
    "nobody that is trusted here vouches for its certificate",
    "if it is your own, give the certificate of its authority: --cafile ca.crt",
)
NO_TLS = ("it answers without TLS", "use mqtt:// and no --cafile there, or the port that has TLS")
OLD = ("it speaks no version of TLS that is safe (1.2 or newer)", "")


def context_of(address: Address, alpn: str | None = None) -> ssl.SSLContext:
    """`alpn`: what is spoken if not MQTT. Raises CommandFailed (2): a file cannot be used."""
    assert address.tls is not None
    tls = address.tls
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols([alpn or ALPN[address.websocket is not None]])
    for path in (tls.cafile, tls.cert, tls.key):
        if path is not None and path.exists():
            refuse_device(path)
    if tls.insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif tls.cafile is None:
        context.load_default_certs()
    else:
        try:
            context.load_verify_locations(tls.cafile)
        except OSError as error:
            raise _unusable(tls.cafile, "certificate", error) from error
    if tls.cert is not None:
        try:
            context.load_cert_chain(tls.cert, tls.key, password=_no_passphrase)
        except (OSError, ValueError) as error:
            raise _unusable(tls.key or tls.cert, "certificate with its key", error) from error
    return context


def _no_passphrase() -> str:
    """OpenSSL would ask a terminal, also where a script runs."""
    raise ValueError("its key has a passphrase; make one without: openssl pkey -in KEY -out NEW")


def _unusable(path: Path, what: str, error: Exception) -> CommandFailed:
    reason = f"there is no {what} in PEM in it" if isinstance(error, ssl.SSLError) else str(error)
    if getattr(error, "reason", None) == "KEY_VALUES_MISMATCH":
        reason = "the key is not that of the certificate"
    elif isinstance(error, OSError) and error.strerror and not isinstance(error, ssl.SSLError):
        reason = error.strerror
    return CommandFailed(f"{path}: {reason}", code=Exit.USAGE)


def failed(error: ssl.SSLError, address: Address) -> CommandFailed:
    """What the handshake, or the other side during it, did not like."""
    assert address.tls is not None
    reason = error.reason or ""
    code = Exit.UNREACHABLE
    if isinstance(error, ssl.SSLCertVerificationError):
        said, remedy = VERIFY_CODES.get(error.verify_code, UNKNOWN_AUTHORITY)
    elif (refused := _own_certificate(reason, address.tls.cert is not None)) is not None:
        said, remedy = refused
        code = Exit.NOT_AUTHORIZED
    elif reason in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE"):
        said, remedy = NO_TLS
    elif "PROTOCOL_VERSION" in reason or reason in (
        "UNSUPPORTED_PROTOCOL",
        "NO_PROTOCOLS_AVAILABLE",
    ):
        said, remedy = OLD
    elif isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError):
        said, remedy = "it closed the connection during the handshake", "has that port TLS?"
    else:
        said, remedy = reason.replace("_", " ").lower() or str(error), ""
    said = said.format(host=address.host)
    return CommandFailed(f"no TLS connection with the broker at {address}: {said}", remedy, code)


def _own_certificate(reason: str, given: bool) -> tuple[str, str] | None:
    """What the broker says of the certificate that it got from us, or did not get."""
    _, is_alert, alert = reason.partition("_ALERT_")
    if not is_alert:
        return None
    if alert == "CERTIFICATE_REQUIRED" or (alert == "HANDSHAKE_FAILURE" and not given):
        return "it wants a client certificate", "give one: --cert client.crt --key client.key"
    if alert == "CERTIFICATE_EXPIRED":
        return "the client certificate has expired", "get a new one"
    if alert == "CERTIFICATE_REVOKED":
        return "the client certificate was revoked", "get a new one"
    if given and alert in ("UNKNOWN_CA", "BAD_CERTIFICATE", "CERTIFICATE_UNKNOWN"):
        return "it does not trust the client certificate", "--cert must be of its authority"
    return None
