"""Connected clients: their sockets and handshakes, and the loop that serves all of them."""

from __future__ import annotations

import gc
import select
import selectors
import socket
import ssl
import time
from collections.abc import Callable
from contextlib import suppress

from broker.errors import PubSubError
from cli.bench.packets import packet, text
from cli.net.address import Address
from cli.net.burst import NOT_NOW

READ_BYTES = 256 * 1024
HANDSHAKE_S = 30.0
NAP_S, NAP_MANY_S = 0.0005, 0.002
"""How long to let more come before reading again, where the window keeps the broker busy meanwhile:
for 1 to 1, and for many connections, of which each has less to read."""


class LoadError(PubSubError):
    """The broker lost, repeated, reordered or refused something: there is no result."""


class ConnectionClosed(LoadError):
    """By the broker or by the network, and not by us."""


class ConnectionRefused(LoadError):
    """By CONNACK, with a return code of 3.1.1."""

    def __init__(self, return_code: int) -> None:
        super().__init__(f"the broker refused the connection with return code {return_code}")
        self.return_code = return_code


class SubscriptionRefused(LoadError):
    """By SUBACK, which has no reason in 3.1.1."""


class Loop:
    """One selector over all connections, with one buffer that they all read into.

    The buffer must have room for two of the largest packets that are received.
    """

    def __init__(self, packet_bytes_max: int = READ_BYTES // 2) -> None:
        self.buffer = bytearray(max(READ_BYTES, 2 * packet_bytes_max))
        self.view = memoryview(self.buffer)
        self.connections: list[Connection] = []
        self._selector = selectors.DefaultSelector()
        self._tls: dict[Address, ssl.SSLContext] = {}

    def close(self) -> None:
        for connection in self.connections.copy():
            connection.close()
        self._selector.close()

    def tls_of(self, address: Address) -> ssl.SSLContext:
        """Made once for all connections: it reads the certificates that are trusted."""
        if address not in self._tls:
            from cli.net.tls import context_of

            self._tls[address] = context_of(address)
        return self._tls[address]

    def watch(self, connection: Connection, *, read: bool = True, write: bool = False) -> None:
        events = (selectors.EVENT_READ if read else 0) | (selectors.EVENT_WRITE if write else 0)
        watched = connection.socket in self._selector.get_map()
        if watched and events:
            self._selector.modify(connection.socket, events, connection)
        elif watched:
            self._selector.unregister(connection.socket)
        elif events:
            self._selector.register(connection.socket, events, connection)

    def run(
        self,
        finished: Callable[[], bool],
        *,
        timeout_s: float,
        wait_s: float = 0.01,
        nap_s: float = 0.0,
    ) -> None:
        """Serve the connections until `finished()`, which is asked after every round.

        A round waits at most `wait_s` for something to come: in whole milliseconds, or if it is
        less than one, exact to some 50 microseconds. After a round with something, `nap_s` lets
        more come: a broker that writes every message by itself would otherwise have us read every
        message by itself. Raises LoadError after `timeout_s`.
        """
        deadline = time.monotonic() + timeout_s
        selector = self._selector
        gc.disable()
        try:
            while not finished():
                if time.monotonic() > deadline:
                    raise LoadError(f"not finished after {timeout_s:.0f} s: {self.describe()}")
                if wait_s < 0.001:
                    select.select([selector.fileno()], [], [], wait_s)
                for key, events in selector.select(wait_s if wait_s >= 0.001 else 0):
                    connection: Connection = key.data
                    if events & selectors.EVENT_READ:
                        connection.readable()
                    if events & selectors.EVENT_WRITE:
                        connection.writable()
                if nap_s:
                    time.sleep(nap_s)
        finally:
            gc.enable()

    def describe(self) -> str:
        states = [str(connection) for connection in self.connections]
        return "; ".join(states[:4]) + (f"; and {len(states) - 4} more" if len(states) > 4 else "")


class Connection:
    """One connected client: a socket, what could not be sent yet, and half a packet at most."""

    def __init__(self, loop: Loop, address: Address, client_id: str) -> None:
        self.loop = loop
        self.address = address
        self.client_id = client_id

    def connect(self, *, clean: bool = True, resume: bool = False) -> None:
        """Returns after the CONNACK; with `resume`, the broker must still have the session.

        Raises OSError if nobody is there, ConnectionRefused, and LoadError.
        """
        self._unsent = bytearray()
        self._partial = b""
        address = self.address
        self.socket = socket.create_connection((address.host, address.port), timeout=HANDSHAKE_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if address.tls is not None:
            self.socket = self.loop.tls_of(address).wrap_socket(
                self.socket, server_hostname=address.host
            )
        self.loop.connections.append(self)
        flags = 0x02 if clean else 0
        fields = text(self.client_id)
        if address.username is not None:
            flags |= 0x80
            fields += text(address.username)
        if address.password is not None:
            flags |= 0x40
            fields += text(address.password)
        connack = self._ask(packet(0x10, text("MQTT") + bytes((4, flags, 0, 0)) + fields), 4)
        if connack[:2] == b"\x20\x02" and connack[3]:
            raise ConnectionRefused(connack[3])
        self._expect(connack, bytes((0x20, 2, resume, 0)))
        self.loop.watch(self)
        if isinstance(self.socket, ssl.SSLSocket) and self.socket.pending():
            self.readable()  # What came in the record of the CONNACK: no selector tells.

    def _ask(self, request: bytes, answer_bytes: int) -> bytes:
        """One step of a handshake: the answer, which is waited for."""
        self.socket.settimeout(HANDSHAKE_S)
        answer = b""
        try:
            self.socket.sendall(request)
            while len(answer) < answer_bytes:
                part = self.socket.recv(answer_bytes - len(answer))
                if not part:
                    raise ConnectionClosed(f"{self}: the broker closed the connection")
                answer += part
        except OSError as error:
            raise ConnectionClosed(f"{self}: {error}") from error
        self.socket.setblocking(False)
        return answer

    def _expect(self, answer: bytes, wanted: bytes) -> None:
        if answer != wanted:
            raise LoadError(f"{self}: answered {answer.hex()}, not {wanted.hex()}")

    def disconnect(self) -> None:
        """Returns when the broker has closed too, and so sends nothing to this connection more."""
        self.socket.settimeout(HANDSHAKE_S)
        self.socket.sendall(bytes(self._unsent) + packet(0xE0, b""))
        while self.socket.recv(READ_BYTES):
            pass
        self.close()

    def close(self) -> None:
        self.loop.watch(self, read=False)
        self.loop.connections.remove(self)
        self.socket.close()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._unsent:
            self._unsent += data
            return
        sent = 0
        try:
            sent = self.socket.send(data)
            while sent < len(data) and isinstance(self.socket, ssl.SSLSocket):
                sent += self.socket.send(data[sent:])  # It takes a record of 16 KiB at a time.
        except (BlockingIOError, *NOT_NOW):
            pass  # TLS may have taken a part: it goes on when it is given the same again.
        except OSError as error:
            raise ConnectionClosed(f"{self}: {error}") from error
        if sent < len(data):
            self._unsent += data[sent:]
            self.loop.watch(self, write=True)

    def writable(self) -> None:
        data, self._unsent = self._unsent, bytearray()
        self.loop.watch(self)
        self.write(data)

    def readable(self) -> None:
        buffer, view = self.loop.buffer, self.loop.view
        start = len(self._partial)
        view[:start] = self._partial
        try:
            count = self._receive(view[start:])
        except (BlockingIOError, *NOT_NOW):
            return
        except OSError as error:
            raise ConnectionClosed(f"{self}: {error}") from error
        if not count:
            raise ConnectionClosed(f"{self}: the broker closed the connection")
        end = start + count
        taken = self.received(buffer, end)
        self._partial = bytes(view[taken:end])
        if isinstance(self.socket, ssl.SSLSocket) and self.socket.pending():
            self.readable()  # The buffer was full: no selector tells of the rest.

    def _receive(self, view: memoryview) -> int:
        """What has come, up to the size of `view`; 0: the end."""
        count = more = self.socket.recv_into(view)
        if isinstance(self.socket, ssl.SSLSocket):
            with suppress(*NOT_NOW):
                while more and count < len(view):  # It gives a record at a time.
                    count += (more := self.socket.recv_into(view[count:]))
        return count

    def received(self, buffer: bytearray, end: int) -> int:
        """Handle the whole packets in `buffer[:end]` and return where they end."""
        raise LoadError(f"{self}: {bytes(buffer[:end])[:16].hex()} was not asked for")

    def _refuse_foreign(self, buffer: bytearray, start: int, end: int, *known: bytes) -> None:
        """What is left must be the beginning of a known packet."""
        left = bytes(buffer[start:end])
        if left and not any(left.startswith(p[: len(left)]) for p in known):
            raise LoadError(f"{self}: unexpected packet {left[:16].hex()}")

    def __str__(self) -> str:
        return self.client_id
