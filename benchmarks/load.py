"""The load generator: MQTT 3.1.1 publishers and subscribers that cost far less than any broker.

One process, one epoll, and no work per message that a slice over many can do:

- A publisher renders its packets once, in a ring whose index is also the Packet Identifier. A pass
  through the ring changes only the upper bytes of the sequence numbers, by stride.
- What has one length is read by stride. A packet that begins with the expected fixed header has
  the expected length, so the next one begins that many bytes on: `leading_run` needs no parser.
- Acknowledgements of a publisher's messages come in the order of the messages [MQTT3-4.6.0-2] and
  [MQTT3-4.6.0-3], so a run of them is compared with a slice of the ring of acknowledgements. (Of
  PUBCOMP the standard does not say it. All brokers do it, and we insist.)
- A subscriber acknowledges a run with one write: a template, and the Packet Identifiers by stride.

Being fast must not make it blind: every message carries its publisher's number and a sequence
number, every subscriber checks that each publisher's messages come complete, once and in order,
and anything else on the wire (a repeated message, a foreign packet, a closed connection) raises
`LoadError`. A broker that loses or reorders cannot look fast.
"""

from __future__ import annotations

import gc
import select
import socket
import struct
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

READ_BYTES = 256 * 1024
WRITE_BYTES = 128 * 1024
"""Of one publisher at a time, so that it looks at acknowledgements in between."""
RING_STEP = 256
"""Rings are a multiple of it: the lowest byte of a packet's sequence number never changes."""
UNLIMITED = 1 << 31
HANDSHAKE_S = 30.0
PAYLOAD_BYTES_MIN = 14
"""Publisher (2 bytes), sequence number (4), nanoseconds when it was sent (8)."""

PUBACK, PUBREC, PUBREL, PUBCOMP = 0x40, 0x50, 0x62, 0x70
ANSWER_BYTES = 4
ANSWERS_PER_READ = READ_BYTES // ANSWER_BYTES

_BYTES = bytes(range(256))
_LOWEST = _BYTES * 512
_SECOND = b"".join(bytes((value,)) * 256 for value in range(256)) * 2
"""The two lower bytes of every sequence number, twice around, to compare any run of them with."""


class LoadError(Exception):
    """The broker lost, repeated, reordered or refused something: there is no result."""


def remaining_length(value: int) -> bytes:
    """The Variable Byte Integer of a fixed header (section 2.2.3)."""
    encoded = bytearray()
    while True:
        value, digit = divmod(value, 128)
        encoded.append(digit | (0x80 if value else 0))
        if not value:
            return bytes(encoded)


def packet(header: int, body: bytes) -> bytes:
    return bytes((header,)) + remaining_length(len(body)) + body


def text(value: str) -> bytes:
    encoded = value.encode()
    return struct.pack(">H", len(encoded)) + encoded


def answers(header: int, count: int) -> bytearray:
    """`count` acknowledgements with the Packet Identifiers 1, 2, 3 ..."""
    rendered = bytearray(bytes((header, 2, 0, 0)) * count)
    identifiers = struct.pack(f">{count}H", *range(1, count + 1))
    rendered[2::4], rendered[3::4] = identifiers[0::2], identifiers[1::2]
    return rendered


def leading_run(buffer: bytearray, start: int, end: int, prefix: bytes, length: int) -> int:
    """How many whole packets of `length` bytes, each beginning with `prefix`, stand at `start`.

    `prefix` must hold the whole fixed header, since it is what proves the length.
    """
    if buffer[start : start + len(prefix)] != prefix:
        return 0
    whole = (end - start) // length
    look = 8  # Where kinds of packets alternate, runs are short: look far only if it goes far.
    while True:
        look = min(look, whole)
        stop = start + look * length
        count = look
        for at, byte in enumerate(prefix):
            column = buffer[start + at : stop : length]
            count = min(count, look - len(column.lstrip(bytes((byte,)))))
        if count < look or look == whole:
            return count
        look *= 16


@dataclass(frozen=True)
class Shape:
    """Topic, QoS and payload size of a scenario's messages: where everything is in its packets."""

    topic: str
    qos: int
    payload_bytes: int

    @property
    def prefix(self) -> bytes:
        return packet(0x30 | self.qos << 1, bytes(self._body_bytes))[: -self._body_bytes]

    @property
    def _body_bytes(self) -> int:
        return len(text(self.topic)) + (2 if self.qos else 0) + self.payload_bytes

    @property
    def length(self) -> int:
        return len(self.prefix) + self._body_bytes

    @property
    def payload_at(self) -> int:
        return self.length - self.payload_bytes

    def render(self, publisher: int, ring: int) -> bytearray:
        """Packets with sequence numbers 0..ring-1 and Packet Identifiers 1..ring."""
        filler = b"x" * (self.payload_bytes - PAYLOAD_BYTES_MIN)
        head = self.prefix + text(self.topic)
        rendered = bytearray()
        for index in range(ring):
            identifier = struct.pack(">H", index + 1) if self.qos else b""
            rendered += head + identifier + struct.pack(">HIQ", publisher, index, 0) + filler
        return rendered


class Loop:
    """One epoll over all connections, with one buffer that they all read into."""

    def __init__(self) -> None:
        self.buffer = bytearray(READ_BYTES)
        self.view = memoryview(self.buffer)
        self._epoll = select.epoll()
        self._connections: dict[int, Connection] = {}

    def close(self) -> None:
        for connection in list(self._connections.values()):
            connection.close()
        self._epoll.close()

    def watch(self, connection: Connection, *, read: bool = True, write: bool = False) -> None:
        events = (select.EPOLLIN if read else 0) | (select.EPOLLOUT if write else 0)
        number = connection.socket.fileno()
        if number in self._connections:
            self._epoll.modify(number, events)
        else:
            self._connections[number] = connection
            self._epoll.register(number, events)

    def forget(self, connection: Connection) -> None:
        number = connection.socket.fileno()
        if self._connections.pop(number, None) is not None:
            self._epoll.unregister(number)

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
        connections, epoll = self._connections, self._epoll
        gc.disable()
        try:
            while not finished():
                if time.monotonic() > deadline:
                    raise LoadError(f"not finished after {timeout_s:.0f} s: {self.describe()}")
                if wait_s < 0.001:
                    select.select([epoll], [], [], wait_s)
                for number, event in epoll.poll(wait_s if wait_s >= 0.001 else 0):
                    connection = connections[number]
                    if event & ~select.EPOLLOUT:
                        connection.readable()
                    if event & select.EPOLLOUT:
                        connection.writable()
                if nap_s:
                    time.sleep(nap_s)
        finally:
            gc.enable()

    def describe(self) -> str:
        states = [str(connection) for connection in self._connections.values()]
        return "; ".join(states[:4]) + (f"; and {len(states) - 4} more" if len(states) > 4 else "")


class Connection:
    """One connected client: a socket, what could not be sent yet, and half a packet at most."""

    def __init__(self, loop: Loop, port: int, client_id: str) -> None:
        self.loop = loop
        self.port = port
        self.client_id = client_id

    def connect(self, *, clean: bool = True, resume: bool = False) -> None:
        """Returns after the CONNACK; with `resume`, the broker must still have the session."""
        self._unsent = bytearray()
        self._partial = b""
        self.socket = socket.create_connection(("127.0.0.1", self.port), timeout=HANDSHAKE_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        body = text("MQTT") + bytes((4, 0x02 if clean else 0, 0, 0)) + text(self.client_id)
        self._ask(packet(0x10, body), packet(0x20, bytes((resume, 0))))
        self.loop.watch(self)

    def _ask(self, request: bytes, wanted: bytes) -> None:
        """One step of a handshake; waits for its answer."""
        self.socket.settimeout(HANDSHAKE_S)
        self.socket.sendall(request)
        answer = b""
        while len(answer) < len(wanted):
            try:
                part = self.socket.recv(len(wanted) - len(answer))
            except OSError as error:
                raise LoadError(f"{self}: {error} instead of {wanted.hex()}") from error
            if not part:
                raise LoadError(f"{self}: closed instead of {wanted.hex()}")
            answer += part
        if answer != wanted:
            raise LoadError(f"{self}: answered {answer.hex()}, not {wanted.hex()}")
        self.socket.setblocking(False)

    def disconnect(self) -> None:
        self.socket.setblocking(True)
        self.socket.sendall(bytes(self._unsent) + packet(0xE0, b""))
        self.close()

    def close(self) -> None:
        self.loop.forget(self)
        self.socket.close()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._unsent:
            self._unsent += data
            return
        try:
            sent = self.socket.send(data)
        except BlockingIOError:
            sent = 0
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
            count = self.socket.recv_into(view[start:])
        except BlockingIOError:
            return
        except ConnectionError as error:
            raise LoadError(f"{self}: {error}") from error
        if not count:
            raise LoadError(f"{self}: the broker closed the connection")
        end = start + count
        taken = self.received(buffer, end)
        self._partial = bytes(view[taken:end])

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


class Publisher(Connection):
    """Publishes from a ring, at most `window` messages ahead of what is acknowledged (QoS 1 and 2).

    And at most `lead` ahead of `arrived`: what its slowest subscriber has received, says whoever
    runs the load.
    """

    def __init__(
        self,
        loop: Loop,
        port: int,
        client_id: str,
        shape: Shape,
        *,
        number: int = 0,
        window: int = 1000,
        lead: int = UNLIMITED,
    ) -> None:
        self.shape = shape
        self.number = number
        self.window = window if shape.qos else UNLIMITED
        self.lead = lead
        self.sent = 0
        self.acked = 0
        self.arrived = 0
        self.limit = 0
        """Up to this many messages in all may be sent: see `allow` and `stop`."""
        self.ack_latencies_ns: list[int] | None = None
        self._ring = -(-window // RING_STEP) * RING_STEP
        self._packets = memoryview(shape.render(number, self._ring))
        self._upper: int | None = 0
        self._sent_ns = [0] * self._ring
        self._at_once = max(1, WRITE_BYTES // shape.length)
        self._expected = {
            header: answers(header, self._ring) * 2 for header in (PUBACK, PUBREC, PUBREL, PUBCOMP)
        }
        self._answered = dict.fromkeys(self._expected, 0)
        super().__init__(loop, port, client_id)
        self.connect()

    def allow(self, count: int) -> None:
        """`count` messages more."""
        self.limit = self.sent + count
        self.pump()

    def stop(self) -> None:
        self.limit = self.sent

    @property
    def idle(self) -> bool:
        """Whether everything is acknowledged."""
        return self.acked == self.sent or not self.shape.qos

    def pump(self) -> None:
        """Send what window and limit have room for."""
        while not self._unsent:
            count = min(
                self.limit - self.sent,
                self.window + self.acked - self.sent,
                self.lead + self.arrived - self.sent,
                self._ring - self.sent % self._ring,
                self._at_once,
            )
            if count <= 0:
                return
            self._publish(count)

    def publish_stamped(self) -> None:
        """One message, that says when it was sent."""
        index = self.sent % self._ring
        now_ns = time.monotonic_ns()
        self._sent_ns[index] = now_ns
        at = index * self.shape.length + self.shape.payload_at
        struct.pack_into(">Q", self._packets, at + 6, now_ns)
        self._publish(1)

    def _publish(self, count: int) -> None:
        index = self.sent % self._ring
        if index == 0:
            self._renumber()
        length = self.shape.length
        self.sent += count
        self.write(self._packets[index * length : (index + count) * length])

    def _renumber(self) -> None:
        """The next pass: `sent` is the sequence number of the ring's first packet."""
        length, at = self.shape.length, self.shape.payload_at + 2
        second = self.sent >> 8
        steps = self._ring // RING_STEP
        self._packets[at + 2 :: length] = b"".join(
            bytes(((second + step) & 0xFF,)) * RING_STEP for step in range(steps)
        )
        # The upper two bytes are nearly always the same throughout, and the same as before.
        first, last = self.sent >> 16, (self.sent + self._ring - 1) >> 16
        if first != last or first != self._upper:
            upper = struct.pack(
                f">{self._ring}H", *(self.sent + index >> 16 for index in range(self._ring))
            )
            self._packets[at::length], self._packets[at + 1 :: length] = upper[0::2], upper[1::2]
            self._upper = first if first == last else None

    def writable(self) -> None:
        super().writable()
        self.pump()

    def received(self, buffer: bytearray, end: int) -> int:
        headers = (PUBACK,) if self.shape.qos == 1 else (PUBREC, PUBCOMP)
        releases = bytearray()
        at = 0
        while True:
            for header in headers:
                count = leading_run(buffer, at, end, bytes((header, 2)), ANSWER_BYTES)
                if count:
                    releases += self._answered_by(header, buffer, at, count)
                    at += count * ANSWER_BYTES
                    break
            else:
                break
        self._refuse_foreign(buffer, at, end, *(bytes((header, 2)) for header in headers))
        if releases:
            self.write(releases)
        self.pump()
        return at

    def _answered_by(self, header: int, buffer: bytearray, at: int, count: int) -> bytearray:
        """`count` acknowledgements of one kind, which must be the next in order; our answers."""
        done = self._answered[header]
        index = done % self._ring
        run = slice(index * ANSWER_BYTES, (index + count) * ANSWER_BYTES)
        came, wanted = buffer[at : at + count * ANSWER_BYTES], self._expected[header][run]
        if done + count > self.sent or came != wanted:
            raise LoadError(
                f"{self}: acknowledgements {came[:16].hex()}... after {done} of {self.sent}, "
                f"not {wanted[:16].hex()}..."
            )
        self._answered[header] = done + count
        if header == PUBREC:
            return self._expected[PUBREL][run]
        self.acked = done + count
        if self.ack_latencies_ns is not None:
            now_ns = time.monotonic_ns()
            self.ack_latencies_ns += [
                now_ns - self._sent_ns[number % self._ring] for number in range(done, done + count)
            ]
        return bytearray()

    def __str__(self) -> str:
        return f"{self.client_id} (sent {self.sent}, acknowledged {self.acked})"


class Subscriber(Connection):
    """Checks what it receives from publishers 0..publishers-1, and acknowledges it."""

    def __init__(
        self,
        loop: Loop,
        port: int,
        client_id: str,
        shape: Shape,
        *,
        publishers: int = 1,
        durable: bool = True,
    ) -> None:
        self.shape = shape
        self.latencies_ns: list[int] | None = None
        self.received_count = 0
        self.received_of = [0] * publishers
        self._prefix = shape.prefix
        self._released = 0
        header = PUBACK if shape.qos == 1 else PUBREC
        self._answers = bytearray(bytes((header, 2, 0, 0)) * ANSWERS_PER_READ)
        super().__init__(loop, port, client_id)
        self.connect(clean=not durable)
        body = struct.pack(">H", 1) + text(shape.topic) + bytes((shape.qos,))
        self._ask(packet(0x82, body), packet(0x90, bytes((0, 1, shape.qos))))

    def resume(self) -> None:
        """Connect again, to the same session and where it stopped."""
        self.connect(clean=False, resume=True)

    def pause(self) -> None:
        """Stay connected and stop reading."""
        self.loop.watch(self, read=False)

    def unpause(self) -> None:
        self.loop.watch(self)

    def idle(self, sent: Sequence[int]) -> bool:
        """Whether exactly what the publishers sent is here, and finished."""
        done = self._released if self.shape.qos == 2 else self.received_count
        return done == sum(sent) and self.received_of == list(sent)

    def received(self, buffer: bytearray, end: int) -> int:
        at, length, prefix = 0, self.shape.length, self._prefix
        released = bytes((PUBREL, 2))
        known = (prefix, released) if self.shape.qos == 2 else (prefix,)
        replies = bytearray()
        while True:
            if count := leading_run(buffer, at, end, prefix, length):
                stop = at + count * length
                self._check(buffer, at, stop, count)
                self.received_count += count
                if self.shape.qos:
                    replies += self._acknowledgements(buffer, at, stop, count)
            elif self.shape.qos == 2 and (
                count := leading_run(buffer, at, end, released, ANSWER_BYTES)
            ):
                stop = at + count * ANSWER_BYTES
                completed = buffer[at:stop]
                completed[0::4] = bytes((PUBCOMP,)) * count
                replies += completed
                self._released += count
            else:
                break
            at = stop
        self._refuse_foreign(buffer, at, end, *known)
        if replies:
            self.write(replies)
        return at

    def _acknowledgements(self, buffer: bytearray, at: int, stop: int, count: int) -> bytearray:
        length, identifier_at = self.shape.length, at + self.shape.payload_at - 2
        run = self._answers[: count * ANSWER_BYTES]
        run[2::4] = buffer[identifier_at:stop:length]
        run[3::4] = buffer[identifier_at + 1 : stop : length]
        return run

    def _check(self, buffer: bytearray, at: int, stop: int, count: int) -> None:
        length, payload = self.shape.length, at + self.shape.payload_at
        if self.latencies_ns is not None:
            now_ns = time.monotonic_ns()
            for place in range(payload + 6, stop, length):
                self.latencies_ns.append(now_ns - struct.unpack_from(">Q", buffer, place)[0])
        if len(self.received_of) == 1:
            self._check_one_publisher(buffer, payload, stop, count)
            return
        columns = (buffer[payload + byte : stop : length] for byte in (0, 1, 4, 5))
        expected = self.received_of
        for high, low, second, lowest in zip(*columns, strict=True):
            publisher = high << 8 | low
            if expected[publisher] & 0xFFFF != second << 8 | lowest:
                raise self._wrong(publisher, second << 8 | lowest)
            expected[publisher] += 1

    def _check_one_publisher(self, buffer: bytearray, payload: int, stop: int, count: int) -> None:
        """Whole first and last number, and the two lower bytes of every one: none is missing."""
        length = self.shape.length
        first = self.received_of[0]
        turn = first & 0xFFFF
        last_at = payload + (count - 1) * length
        if (
            struct.unpack_from(">HI", buffer, payload) != (0, first)
            or struct.unpack_from(">HI", buffer, last_at) != (0, first + count - 1)
            or buffer[payload + 5 : stop : length] != _LOWEST[turn : turn + count]
            or buffer[payload + 4 : stop : length] != _SECOND[turn : turn + count]
        ):
            numbers = [
                struct.unpack_from(">I", buffer, place + 2)[0]
                for place in range(payload, stop, length)
            ]
            wrong = next((n for i, n in enumerate(numbers) if n != first + i), numbers[0])
            raise self._wrong(0, wrong)
        self.received_of[0] = first + count

    def _wrong(self, publisher: int, sequence: int) -> LoadError:
        return LoadError(
            f"{self}: lost, repeated or out of order: message {sequence} of publisher "
            f"{publisher}, at or after the expected {self.received_of[publisher]}"
        )

    def __str__(self) -> str:
        return f"{self.client_id} (received {self.received_count})"
