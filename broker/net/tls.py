"""TLS: a connection whose bytes are encrypted. Everything above it is as with TCP.

    socket ─▶ ciphertext ─▶ arrived, in turns ─▶ TlsStream ─▶ plaintext ─▶ TcpConnection.receive
    socket ◀─ ciphertext ◀─ TlsStream ◀─ plaintext ◀─ TcpConnection.write

The TLS of asyncio and uvloop is not used. It keeps 256 KiB for each connection, does all handshakes
of a turn of the loop in that turn, and has no half-closed connections. Here:

- What has come is decrypted when its turn comes, so that its bytes count as before, and 1,000
  handshakes at once hold up nobody: each is a piece of work like any other (`turns.py`).
- A handshake has `connect_timeout_s`, from the first byte on TCP to its last.
- A peer that has ended its output (`close_notify`) is half closed, as on TCP.
- What the library keeps of a record that is not whole, or of a handshake, counts as unfinished.
"""

from __future__ import annotations

import logging
import ssl
from dataclasses import replace

from broker.errors import PeerError
from broker.message import Monotonic
from broker.net.entrance import Connections, Entrance
from broker.net.first_bytes import TLS_HANDSHAKE, answer_without_tls, why_not_tls
from broker.net.tcp import FIRST_BYTE_TIMEOUT_S, TcpConnection
from broker.net.turns import LITTLE_BYTES
from broker.security.tls import ALPN, reason_of, user_of

logger = logging.getLogger(__name__)

RECORD_BYTES_MAX = 16_384
"""Of plaintext. The library keeps about as much for a record that is not whole."""
REASONS = {
    "UNSUPPORTED_PROTOCOL": "it offers no TLS 1.2 or newer",
    "NO_SHARED_CIPHER": "it offers no cipher that we accept",
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "it shows no client certificate",
    "TLSV1_ALERT_UNKNOWN_CA": "it does not trust the CA of our certificate",
    "SSLV3_ALERT_BAD_CERTIFICATE": "it does not accept our certificate",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": "it does not accept our certificate",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "it says that our certificate has expired",
}


class TlsFailed(Exception):
    """The peer does not speak TLS as it should; says why, for the operator."""


class TlsStream:
    """TLS of one connection: bytes in, bytes out. Sends nothing itself."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self.established = False
        """Whether the handshake is done."""
        self.ended = False
        """Whether the peer has ended its output, and means it."""
        self.kept_bytes = 0
        """Of a handshake or a record that is not whole, at most."""
        self._closed = False

    def receive(self, data: bytes) -> bytes:
        """The plaintext of what is whole. Raises TlsFailed; then the output says so, too."""
        if self.ended:
            return b""
        self._incoming.write(data)
        plain: list[bytes] = []
        try:
            if not self.established:
                self.kept_bytes += len(data)
                self._tls.do_handshake()
                self.established = True
            self.kept_bytes = 0
            while self._incoming.pending:
                plain.append(self._tls.read(RECORD_BYTES_MAX))
                if not plain[-1]:
                    self.ended = True
                    break
        except ssl.SSLWantReadError:
            if self.established:
                self.kept_bytes = RECORD_BYTES_MAX
        except ssl.SSLZeroReturnError:  # Both sides have ended.
            self.ended = True
        except ssl.SSLCertVerificationError as error:
            raise TlsFailed(f"its certificate: {error.verify_message}") from error
        except ssl.SSLError as error:
            raise TlsFailed(REASONS.get(error.reason) or reason_of(error)) from error
        return b"".join(plain) if len(plain) != 1 else plain[0]

    def send(self, data: bytes) -> None:
        """Encrypt it into the output."""
        if self._closed:
            return
        sent = self._tls.write(data)
        while sent < len(data):  # It takes a record at a time.
            sent += self._tls.write(memoryview(data)[sent:])

    def close(self) -> None:
        """End the output."""
        if self.established and not self._closed:
            self._closed = True
            try:
                self._tls.unwrap()
            except ssl.SSLError:
                return  # It wants the end of the other side, which we need not wait for.

    def data_to_send(self) -> bytes:
        return self._outgoing.read()

    @property
    def has_to_send(self) -> bool:
        return self._outgoing.pending > 0

    @property
    def alpn(self) -> str | None:
        """What both sides have named before the first byte."""
        return self._tls.selected_alpn_protocol()

    @property
    def certificate(self) -> bytes | None:
        """The client's, as DER; None: it showed none."""
        return self._tls.getpeercert(binary_form=True)

    def certificate_user(self, named_by: str) -> str | None:
        """Whom the client's certificate names: see `user_of`. Raises TlsFailed: what is in it is no
        text."""
        try:
            return user_of(self._tls.getpeercert(), named_by)
        except (ssl.SSLError, ValueError) as error:
            raise TlsFailed(f"its certificate cannot be read: {error}") from error


class TlsConnection(TcpConnection):
    """One socket that speaks TLS."""

    farewell_bytes = 24
    """Of a DISCONNECT, or of `close_notify`, in TLS 1.3; of 1.2 both have more."""

    def __init__(
        self, entrance: Entrance, connections: Connections, context: ssl.SSLContext
    ) -> None:
        super().__init__(entrance, connections)
        self._tls = TlsStream(context)
        self._first_byte_timeout_s = entrance.services.config.connect_timeout_s
        self._little_bytes = 0  # Each handshake waits for its turn.

    def receive(self, data: bytes, now: Monotonic) -> None:
        try:
            if self._header_due and not (data := self._after_header(self._first_bytes + data)):
                return
            tls = self._tls
            plain = tls.receive(data) if tls.established else self._shake_hands(data)
            if plain:
                super().receive(plain, now)
            if tls.has_to_send:  # What TLS itself answers.
                self._flush()
                if self._full:  # Each record can ask for new keys.
                    self._pause_reading_if_clogged()
            if tls.kept_bytes or self._counted:
                self._account_for(0 if self.client is None else self.client.kept_bytes, len(data))
            if tls.ended and not super().eof_received():
                self.close()
        except TlsFailed as error:
            self._flush()
            self._refuse(str(error))
        except Exception as error:
            self.failed(error)

    def _shake_hands(self, data: bytes) -> bytes:
        tls = self._tls
        if not tls.kept_bytes and data[0] != TLS_HANDSHAKE:
            super().write(answer_without_tls(data))
            raise TlsFailed(why_not_tls(data))
        plain = tls.receive(data)
        if tls.established:
            self._little_bytes = LITTLE_BYTES
            user = tls.certificate_user(self.entrance.listener.tls_user)
            certificate = tls.certificate
            self.peer = replace(self.peer, certificate_user=user, certificate=certificate)
            self._say_something_within(FIRST_BYTE_TIMEOUT_S)
        return plain

    def dismiss(self, error: PeerError) -> None:
        """It may be here no more."""
        logger.warning("connection from %s closed: %s", self.peer.address, error.reason)
        try:
            if self.client is None:
                self.abort()
            else:
                self.client.dismiss(error)
        except Exception as failure:
            self.failed(failure)

    def _account_for(self, kept: int, new: int) -> None:
        super()._account_for(kept + self._tls.kept_bytes, new)

    def _speaks(self, protocol: str) -> bool:
        """It may have named another one, and then nobody may make it speak this one."""
        return super()._speaks(protocol) and self._tls.alpn in (None, ALPN.get(protocol))

    def eof_received(self) -> bool | None:
        """Who has ended with `close_notify` has been heard already."""
        return self._tls.ended or super().eof_received()

    def write(self, data: bytes) -> None:
        self._tls.send(data)
        self._flush()

    def close(self) -> None:
        self._end()
        super().close()

    def end_output(self) -> None:
        self._end()
        super().end_output()

    def _end(self) -> None:
        self._tls.close()
        self._flush()

    def _flush(self) -> None:
        data = self._tls.data_to_send()
        if data and self._transport is not None and not self._transport.is_closing():
            super().write(data)
