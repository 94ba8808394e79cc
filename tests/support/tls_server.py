"""A server that speaks TLS and answers whatever comes first with the same bytes."""

from __future__ import annotations

import socket
import ssl
import threading
from pathlib import Path

from tests.support.certificates import Files


class TlsServer:
    """`client_ca`: it wants a client certificate that this one signed. Close it at the end."""

    def __init__(
        self,
        certificate: Files,
        *,
        answer: bytes = b"",
        client_ca: Path | None = None,
        version: ssl.TLSVersion | None = None,
    ) -> None:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certificate.certificate, certificate.key)
        if client_ca is not None:
            self._context.load_verify_locations(client_ca)
            self._context.verify_mode = ssl.CERT_REQUIRED
        if version is not None:
            self._context.minimum_version = self._context.maximum_version = version
        self._answer = answer
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.connections: list[ssl.SSLSocket] = []
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            connection.settimeout(5)
            secured = self._context.wrap_socket(
                connection, server_side=True, do_handshake_on_connect=False
            )
            try:
                secured.do_handshake()
                secured.recv(65_536)
                secured.sendall(self._answer)
                self.connections.append(secured)
            except OSError:
                secured.close()  # The client has been told what is wrong: that is what is tested.

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()
        for connection in self.connections:
            connection.close()
