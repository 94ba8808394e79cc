"""A broker elsewhere, to administer: HTTP to its listener for that, as a user with the right to.

`cli/operate/admin.py` asks it as it asks a broker on this machine, `cli/operate/where.py` finds it.
"""

from __future__ import annotations

import ssl
from base64 import b64encode
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPSConnection

from cli.net.address import Address
from cli.terminal.failure import CommandFailed, Exit

TIMEOUT_MIN_S = 40.0
"""Who logs in from where others have failed waits for up to 30 s."""
LISTENER = 'is that a listener with protocols = ["admin"]?'


@dataclass(frozen=True, slots=True)
class Remote:
    address: Address

    def __str__(self) -> str:
        return f"the broker at {self.address}"

    def connection(self, timeout_s: float) -> HTTPConnection:
        """Raises CommandFailed (2): a file of TLS cannot be used."""
        host, port = self.address.host, self.address.port
        timeout_s = max(timeout_s, TIMEOUT_MIN_S)
        if self.address.tls is None:
            return HTTPConnection(host, port, timeout=timeout_s)
        from cli.net.tls import context_of

        context = context_of(self.address, "http/1.1")
        return HTTPSConnection(host, port, timeout=timeout_s, context=context)

    @property
    def headers(self) -> dict[str, str]:
        """A token may come without a name; who shows a certificate has one in that."""
        name, password, tls = self.address.username, self.address.password, self.address.tls
        shows_certificate = tls is not None and tls.cert is not None
        if name is None and (password is None or shows_certificate):
            return {}
        login = b64encode(f"{name or ''}:{password or ''}".encode()).decode("ascii")
        return {"Authorization": f"Basic {login}"}

    def failed(self, error: OSError | HTTPException) -> CommandFailed:
        """There was no answer."""
        if isinstance(error, ssl.SSLError):
            from cli.net.tls import failed

            return failed(error, self.address)
        if isinstance(error, ConnectionRefusedError):
            return CommandFailed(
                f"no broker answers at {self.address} ({error.strerror})",
                "is it running, and has it a listener for administration there?",
                Exit.UNREACHABLE,
            )
        return CommandFailed(f"{self} does not answer: {error}", LISTENER, Exit.UNREACHABLE)

    def refused(self, status: int, why: str, remedy: str) -> CommandFailed:
        if status == 401:
            return CommandFailed(f"{self} refused: {why}", self._credentials(), Exit.NOT_AUTHORIZED)
        user = self.address.username or "this certificate's user"
        return CommandFailed(f"{self} refused it to {user}: {why}", remedy, Exit.NOT_AUTHORIZED)

    def _credentials(self) -> str:
        name = self.address.username
        if name is None:
            return "say who administers: -u NAME with --password-file (or a client certificate)"
        if self.address.password is None:
            return f"{name} gave no password: use --password-file FILE"
        return ""
