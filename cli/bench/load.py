"""The load generator: MQTT 3.1.1 publishers and subscribers that cost far less than any broker.

One process, one epoll, and no work per message that a slice over many can do:

- A publisher renders its packets once, in a ring whose index is also the Packet Identifier. A pass
  through the ring changes only the upper bytes of the sequence numbers, a write the time of
  sending, both by stride.
- What has one length is read by stride. A packet that begins with the expected fixed header has
  the expected length, so the next one begins that many bytes on: `leading_run` needs no parser.
- Acknowledgements of a publisher's messages come in the order of the messages [MQTT3-4.6.0-2] and
  [MQTT3-4.6.0-3], so a run of them is compared with a slice of the ring of acknowledgements. (Of
  PUBCOMP the standard does not say it. All brokers do it, and we insist.)
- A subscriber acknowledges a run with one write: a template, and the Packet Identifiers by stride.

Being fast must not make it blind: every message carries its publisher's number and a sequence
number, every subscriber checks that each publisher's messages come complete, once and in order,
and anything else on the wire (a repeated message, a foreign packet, a closed connection) raises
`LoadError`. A broker that loses or reorders cannot look fast. Nothing is
shared with the broker's own codec, whose mistakes would otherwise agree with ours. `pubsub bench`
and `make bench` both stand on this module.
"""

from __future__ import annotations

import gc
import select
import selectors
import socket
import struct
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

from broker.errors import PubSubError
from cli.address import Address
from cli.bench.histogram import Histogram

READ_BYTES = 256 * 1024
WRITE_BYTES = 128 * 1024
"""Of one publisher at a time, so that it looks at acknowledgements in between."""
RING_STEP = 256
"""Rings are a multiple of it: the lowest byte of a packet's sequence number never changes."""
UNLIMITED = 1 << 31
HANDSHAKE_S = 30.0
PAYLOAD_BYTES_MIN = 10
"""Publisher (2 bytes), sequence number (4), time of sending (4)."""
STAMP_AT = 6
STAMP_MASK = 0xFFFF_FFFF
"""Times are of the monotonic clock in microseconds, modulo 2**32: enough for 71 minutes."""
NAP_S, NAP_MANY_S = 0.0005, 0.002
"""How long to let more come before reading again, where the window keeps the broker busy meanwhile:
for 1 to 1, and for many connections, of which each has less to read."""

PUBACK, PUBREC, PUBREL, PUBCOMP = 0x40, 0x50, 0x62, 0x70
ANSWER_BYTES = 4
ANSWERS_PER_READ = READ_BYTES // ANSWER_BYTES

_BYTES = bytes(range(256))
_LOWEST = _BYTES * 512
_SECOND = b"".join(bytes((value,)) * 256 for value in range(256)) * 2
"""The two lower bytes of every sequence number, twice around, to compare any run of them with."""


class LoadError(PubSubError):
    """The broker lost, repeated, reordered or refused something: there is no result."""


class ConnectionClosed(LoadError):
    """By the broker or by the network, and not by us."""


class ConnectionRefused(LoadError):
    """By CONNACK, with a return code of 3.1.1."""

    def __init__(self, return_code: int) -> None:
        super().__init__(f"the broker refused the connection with return code {return_code}")
        self.return_code = return_code


def now_us() -> int:
    return time.monotonic_ns() // 1000 & STAMP_MASK


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


@lru_cache
def expected_answers(ring: int) -> dict[int, bytes]:
    """All that a publisher with this ring can be answered, twice around: any run is a slice."""
    return {
        header: bytes(answers(header, ring)) * 2 for header in (PUBACK, PUBREC, PUBREL, PUBCOMP)
    }


@lru_cache
def blank_answers(header: int) -> bytearray:
    """As many acknowledgements as one read can ask for, to cut from and to fill in."""
    return bytearray(bytes((header, 2, 0, 0)) * ANSWERS_PER_READ)


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

    @cached_property
    def prefix(self) -> bytes:
        """The fixed header."""
        return packet(0x30 | self.qos << 1, bytes(self._body_bytes))[: -self._body_bytes]

    @property
    def _body_bytes(self) -> int:
        return len(text(self.topic)) + (2 if self.qos else 0) + self.payload_bytes

    @cached_property
    def length(self) -> int:
        return len(self.prefix) + self._body_bytes

    @cached_property
    def payload_at(self) -> int:
        return self.length - self.payload_bytes

    def render(self, publisher: int, ring: int) -> bytearray:
        """Packets with sequence numbers 0..ring-1 and Packet Identifiers 1..ring."""
        filler = b"x" * (self.payload_bytes - PAYLOAD_BYTES_MIN)
        head = self.prefix + text(self.topic)
        rendered = bytearray()
        for index in range(ring):
            identifier = struct.pack(">H", index + 1) if self.qos else b""
            rendered += head + identifier + struct.pack(">HII", publisher, index, 0) + filler
        return rendered


class Loop:
    """One selector over all connections, with one buffer that they all read into.

    The buffer must have room for two of the largest packets that are received.
    """

    def __init__(self, packet_bytes_max: int = READ_BYTES // 2) -> None:
        self.buffer = bytearray(max(READ_BYTES, 2 * packet_bytes_max))
        self.view = memoryview(self.buffer)
        self.connections: list[Connection] = []
        self._selector = selectors.DefaultSelector()

    def close(self) -> None:
        for connection in self.connections.copy():
            connection.close()
        self._selector.close()

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
        self.loop.connections.append(self)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
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
        try:
            sent = self.socket.send(data)
        except BlockingIOError:
            sent = 0
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
            count = self.socket.recv_into(view[start:])
        except BlockingIOError:
            return
        except OSError as error:
            raise ConnectionClosed(f"{self}: {error}") from error
        if not count:
            raise ConnectionClosed(f"{self}: the broker closed the connection")
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
        address: Address,
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
        self.ack_latency = Histogram()
        self._ring = -(-window // RING_STEP) * RING_STEP
        self._packets = memoryview(shape.render(number, self._ring))
        self._upper: int | None = 0
        self._due: deque[int] = deque()  # times at which the messages up to `limit` were offered
        self._stamps: deque[tuple[int, int]] = deque()  # messages up to here, when they were sent
        self._at_once = max(1, WRITE_BYTES // shape.length)
        self._expected = expected_answers(self._ring)
        self._answered = dict.fromkeys(self._expected, 0)
        super().__init__(loop, address, client_id)
        self.connect()

    def allow(self, count: int) -> None:
        """`count` messages more, as fast as window and lead have room for them."""
        self.limit = self.sent + count
        self.pump()

    def offer(self, count: int = 1) -> None:
        """`count` messages that are due now: what window or lead hold back waits from now on."""
        self._due.extend([now_us()] * count)
        self.limit += count
        self.pump()

    def stop(self) -> None:
        """No message more than was sent or offered."""
        self.limit = self.sent + len(self._due)

    @property
    def idle(self) -> bool:
        """Whether everything is written and acknowledged."""
        return not self._unsent and (self.acked == self.sent or not self.shape.qos)

    def synchronize(self) -> None:
        """Returns when the broker has read all that was written, also at QoS 0. Only when idle."""
        self._expect(self._ask(packet(0xC0, b""), 2), packet(0xD0, b""))

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

    def _publish(self, count: int) -> None:
        index = self.sent % self._ring
        if index == 0:
            self._renumber()
        self._stamp(index, count)
        length = self.shape.length
        self.sent += count
        self.write(self._packets[index * length : (index + count) * length])

    def _stamp(self, index: int, count: int) -> None:
        """Tell each message when it was offered, or else that it is sent now."""
        length, at = self.shape.length, self.shape.payload_at + STAMP_AT
        if self._due:
            for n in range(count):
                stamp = self._due.popleft()
                struct.pack_into(">I", self._packets, (index + n) * length + at, stamp)
                self._stamps.append((self.sent + n + 1, stamp))
            return
        stamp = now_us()
        self._stamps.append((self.sent + count, stamp))
        first, end = index * length + at, (index + count) * length
        for column, byte in enumerate(stamp.to_bytes(4, "big")):
            self._packets[first + column : end : length] = _BYTES[byte : byte + 1] * count

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

    def _answered_by(self, header: int, buffer: bytearray, at: int, count: int) -> bytes:
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
        self._measure(done)
        return b""

    def _measure(self, done: int) -> None:
        """The latency of what was acknowledged beyond `done`."""
        now = now_us()
        while done < self.acked:
            sent, stamp = self._stamps[0]
            end = min(sent, self.acked)
            self.ack_latency.add(now - stamp & STAMP_MASK, end - done)
            done = end
            if end == sent:
                self._stamps.popleft()

    def __str__(self) -> str:
        return f"{self.client_id} (sent {self.sent}, acknowledged {self.acked})"


class Subscriber(Connection):
    """Checks what it receives from publishers 0..publishers-1, and acknowledges it."""

    latency: Histogram | None = None
    """From send to receive, if that is wanted."""

    def __init__(
        self,
        loop: Loop,
        address: Address,
        client_id: str,
        shape: Shape,
        *,
        publishers: int = 1,
        durable: bool = True,
    ) -> None:
        self.shape = shape
        self.received_count = 0
        self.received_of = [0] * publishers
        self._prefix = shape.prefix
        self._released = 0
        self._answers = blank_answers(PUBACK if shape.qos == 1 else PUBREC)
        super().__init__(loop, address, client_id)
        self.connect(clean=not durable)
        body = struct.pack(">H", 1) + text(shape.topic) + bytes((shape.qos,))
        suback = self._ask(packet(0x82, body), 5)
        if suback[4] == 0x80:
            raise LoadError(f"{self}: the broker refuses to subscribe to {shape.topic}")
        self._expect(suback, bytes((0x90, 3, 0, 1, shape.qos)))

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
        released = self.shape.qos < 2 or self._released == self.received_count
        return released and self.received_of == list(sent)

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
        payload = at + self.shape.payload_at
        if self.latency is not None:
            now = now_us()
            stamps = self._column(buffer, payload + STAMP_AT, stop, count, 4)
            for stamp, times in Counter(struct.unpack(f">{count}I", stamps)).items():
                self.latency.add(now - stamp & STAMP_MASK, times)
        expected = self.received_of
        if len(expected) == 1 and self._is_next(buffer, payload, stop, count):
            expected[0] += count
            return
        numbers = self._column(buffer, payload, stop, count, 6)
        for publisher, sequence in struct.iter_unpack(">HI", numbers):
            if publisher < len(expected) and sequence == expected[publisher]:
                expected[publisher] += 1
            else:
                self.unexpected(publisher, sequence)

    def _column(self, buffer: bytearray, at: int, stop: int, count: int, width: int) -> bytearray:
        """The same `width` bytes of `count` packets, one after the other."""
        column = bytearray(width * count)
        for byte in range(width):
            column[byte::width] = buffer[at + byte : stop : self.shape.length]
        return column

    def _is_next(self, buffer: bytearray, payload: int, stop: int, count: int) -> bool:
        """Whole first and last number, and the two lower bytes of every one: none is missing."""
        length = self.shape.length
        first = self.received_of[0]
        turn = first & 0xFFFF
        last_at = payload + (count - 1) * length
        return (
            struct.unpack_from(">HI", buffer, payload) == (0, first)
            and struct.unpack_from(">HI", buffer, last_at) == (0, first + count - 1)
            and buffer[payload + 5 : stop : length] == _LOWEST[turn : turn + count]
            and buffer[payload + 4 : stop : length] == _SECOND[turn : turn + count]
        )

    def unexpected(self, publisher: int, sequence: int) -> None:
        """A message that is not the next one of its publisher."""
        expected = self.received_of[publisher] if publisher < len(self.received_of) else "nothing"
        raise LoadError(
            f"{self}: lost, repeated or out of order: message {sequence} of publisher "
            f"{publisher}, not {expected}"
        )

    def __str__(self) -> str:
        return f"{self.client_id} (received {self.received_count})"


def follow(publishers: Sequence[Publisher], subscribers: Sequence[Subscriber]) -> None:
    """Let publishers know how far their slowest subscriber is, if their lead depends on it."""
    for publisher in publishers:
        if publisher.sent - publisher.arrived >= publisher.lead // 2:
            number = publisher.number
            publisher.arrived = min(subscriber.received_of[number] for subscriber in subscribers)
            publisher.pump()
