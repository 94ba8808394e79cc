"""The client's side of TLS, without a socket."""

from __future__ import annotations

import contextlib
import ssl


class TlsClient:
    """What it would send is taken with `sent`, what it gets is given with `hears`."""

    def __init__(self, context: ssl.SSLContext, name: str = "localhost") -> None:
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=name)

    def sent(self) -> bytes:
        return self._outgoing.read()

    def shake_hands(self, heard: bytes = b"") -> bool:
        """A step; whether its side is done."""
        self._incoming.write(heard)
        try:
            self.tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        return True

    def says(self, data: bytes) -> bytes:
        """Its ciphertext."""
        for start in range(0, len(data), 16_384):
            self.tls.write(data[start : start + 16_384])
        return self.sent()

    def ends(self) -> bytes:
        """The ciphertext of the end of its output."""
        with contextlib.suppress(ssl.SSLWantReadError):
            self.tls.unwrap()
        return self.sent()

    def hears(self, data: bytes) -> bytes:
        """The plaintext."""
        self._incoming.write(data)
        heard = b""
        with contextlib.suppress(ssl.SSLWantReadError, ssl.SSLZeroReturnError):
            while part := self.tls.read(16_384):
                heard += part
        return heard
