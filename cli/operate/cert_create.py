"""`pubsub cert create`: a CA, a certificate for the broker or for a client, and where they go."""

from __future__ import annotations

import contextlib
import os
import re
import socket
from datetime import UTC, datetime
from pathlib import Path

from cli.operate.certificates import (
    Certified,
    NotACertificate,
    authority,
    client,
    read_authority,
    revocations,
    server,
)
from cli.terminal import output
from cli.terminal.failure import CommandFailed, Exit
from cli.terminal.reading import read

PORT = 8883
"""The registered port of MQTT over TLS."""
CRL = "crl.pem"
"""The list of revocations."""
USER = re.compile(r"[^/\\\0+#]{1,64}")
"""A Common Name has at most 64 characters; the files are called like the user."""


def create(directory: Path, names: list[str], user: str | None, days: int, *, force: bool) -> None:
    """Write the files and say what they are for. An authority that is there already signs, and is
    never replaced. Raises CommandFailed: a key would be overwritten, or a file cannot be written.
    """
    if user is not None and names:
        raise CommandFailed("a client's certificate has no host names", code=Exit.USAGE)
    if user is not None and (not USER.fullmatch(user) or user in (".", "..", "ca", "server")):
        raise CommandFailed(f"{user!r} cannot be the user of a certificate", code=Exit.USAGE)
    now = datetime.now(UTC)
    stem = "server" if user is None else user
    _refuse_to_overwrite(directory / f"{stem}.key", force=force)
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        signer = _authority(directory, now)
        names = names or own_names()
        try:
            made = (
                server(signer, names, now, days)
                if user is None
                else client(signer, user, now, days)
            )
        except ValueError as error:
            raise CommandFailed(f"no certificate can be made: {error}", code=Exit.USAGE) from error
        if user is not None:
            _prepare_revocations(directory, stem, signer, now)
        write(directory / f"{stem}.key", made.key_pem, 0o600)
        write(directory / f"{stem}.crt", made.certificate_pem, 0o644)
    except OSError as error:
        raise CommandFailed(f"{error.filename or directory}: {error.strerror}") from error
    if user is None:
        _explain_server(directory, names, made)
    else:
        _explain_client(directory, user, made)


def own_names() -> list[str]:
    """By which others on the network reach this machine, and itself."""
    host = socket.gethostname()
    short = host.partition(".")[0]
    names = [host, f"{short}.local", "localhost", *_addresses(), "127.0.0.1", "::1"]
    return [name for name in dict.fromkeys(names) if name]


def _addresses() -> list[str]:
    """This machine's, on the networks where its default routes are. Nothing is sent."""
    found = []
    for family, elsewhere in ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1")):
        with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((elsewhere, 9))
            found.append(probe.getsockname()[0])
    return found


def _authority(directory: Path, now: datetime) -> Certified:
    """The one that is there, or a new one."""
    certificate, key = directory / "ca.crt", directory / "ca.key"
    if certificate.exists() or key.exists():
        return existing_authority(directory)
    made = authority(f"pubsub CA of {socket.gethostname()}"[:64], now)
    write(key, made.key_pem, 0o600)
    write(certificate, made.certificate_pem, 0o644)
    output.note(f"made an authority: {certificate}, and its key {key}, which signs for it:")
    output.note("  keep the key where nobody else reads it; the broker does not need it")
    return made


def _prepare_revocations(directory: Path, stem: str, signer: Certified, now: datetime) -> None:
    """An empty list, so that a listener can read it from the first day on. A certificate that is
    replaced is kept: it stays good, and whoever wants that ended needs it."""
    if not (directory / CRL).exists():
        write(directory / CRL, revocations(signer, {}, now), 0o644)
    if (before := directory / f"{stem}.crt").exists():
        old = directory / f"{stem}.old.crt"
        before.replace(old)
        output.note(f"the certificate before it stays good, unless: pubsub cert revoke {old}")


def existing_authority(directory: Path) -> Certified:
    """Raises CommandFailed, OSError."""
    certificate, key = directory / "ca.crt", directory / "ca.key"
    try:
        return read_authority(read(certificate), read(key))
    except NotACertificate as error:
        raise CommandFailed(
            f"{certificate} and {key} cannot sign: {error}", "choose another --dir"
        ) from error


def _refuse_to_overwrite(key: Path, *, force: bool) -> None:
    if key.exists() and not force:
        raise CommandFailed(
            f"{key} is there already", "it is replaced, with its certificate, with --force"
        )


def write(path: Path, content: bytes, mode: int) -> None:
    """Whole or not at all; nobody else can read a key at any moment."""
    beside = path.with_name(f".{path.name}.new")
    with contextlib.suppress(FileNotFoundError):
        beside.unlink()
    with open(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)


def _explain_server(directory: Path, names: list[str], made: Certified) -> None:
    certificate, key = directory / "server.crt", directory / "server.key"
    output.note(f"made {certificate} and {key}, good until {made.until:%Y-%m-%d} for:")
    output.note(f"  {' '.join(names)}")
    output.note("put this into the broker's settings (pubsub broker start --config FILE):")
    output.text(
        "[[listeners]]\n"
        'host = "0.0.0.0"\n'
        f"port = {PORT}\n"
        f'tls_certificate = "{certificate.absolute()}"\n'
        f'tls_key = "{key.absolute()}"\n'
    )
    output.note(f"and give {directory / 'ca.crt'} to the clients: they need it to trust the broker")
    output.note(f"  mosquitto_sub --cafile ca.crt -h {names[0]} -p {PORT} -t '#'")


def _explain_client(directory: Path, user: str, made: Certified) -> None:
    certificate, key = directory / f"{user}.crt", directory / f"{user}.key"
    output.note(f"made {certificate} and {key}, good until {made.until:%Y-%m-%d} for user {user}")
    output.note("a listener asks for it with:")
    output.text(
        f'tls_client_ca = "{(directory / "ca.crt").absolute()}"\n'
        'tls_client_certificates = "required"\n'
        f'tls_crl = "{(directory / CRL).absolute()}"\n'
    )
    output.note(f"give {certificate.name}, {key.name} and ca.crt to the client:")
    output.note(f"  mosquitto_sub --cafile ca.crt --cert {certificate.name} --key {key.name} ...")
