"""`pubsub cert revoke`: a client's certificate into the list of revocations of its authority."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from cli.operate.cert_create import CRL, existing_authority, write
from cli.operate.certificates import NotACertificate, read_revocations, revocations, serial_of
from cli.terminal import output
from cli.terminal.failure import CommandFailed, Exit
from cli.terminal.reading import read


def revoke(directory: Path, name: str) -> None:
    """`name` is a user with a certificate in the directory, or a certificate's file. Raises
    CommandFailed: then the list is as it was."""
    given = Path(name)
    certificate = given if given.suffix == ".crt" else directory / f"{name}.crt"
    path = directory / CRL
    try:
        signer = existing_authority(directory)
        revoked = read_revocations(signer, read(path)) if path.exists() else {}
        serial = serial_of(signer, read(certificate))
        if serial in revoked:
            output.note(f"{certificate} is revoked already: {path}")
            return
        now = datetime.now(UTC)
        write(path, revocations(signer, revoked | {serial: now}, now), 0o644)
    except NotACertificate as error:
        raise CommandFailed(f"{certificate} cannot be revoked: {error}", code=Exit.USAGE) from error
    except OSError as error:
        raise CommandFailed(f"{error.filename or path}: {error.strerror}") from error
    output.note(f"revoked {certificate}: it is in {path}, with {len(revoked)} others")
    output.note(
        "a listener that reads the list notices within 20 s (or: pubsub broker reload), and"
    )
    output.note("ends its connections. It reads the list with:")
    output.text(f'tls_crl = "{path.absolute()}"\n')
