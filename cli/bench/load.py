"""The clients of a load: what a Publisher sends is counted, what a Subscriber receives checked."""

from __future__ import annotations

import struct
import time
from collections import Counter, deque
from collections.abc import Sequence
from functools import lru_cache

from cli.bench.connection import READ_BYTES, Connection, LoadError, Loop, SubscriptionRefused
from cli.bench.histogram import Histogram
from cli.bench.packets import (
    ANSWER_BYTES,
    PUBACK,
    PUBCOMP,
    PUBREC,
    PUBREL,
    STAMP_AT,
    Shape,
    expected_answers,
    leading_run,
    packet,
    text,
)
from cli.net.address import Address

WRITE_BYTES = 128 * 1024
"""Of one publisher at a time, so that it looks at acknowledgements in between."""
RING_STEP = 256
"""Rings are a multiple of it: the lowest byte of a packet's sequence number never changes."""
UNLIMITED = 1 << 31
STAMP_MASK = 0xFFFF_FFFF
"""Times are of the monotonic clock in microseconds, modulo 2**32: enough for 71 minutes."""
ANSWERS_PER_READ = READ_BYTES // ANSWER_BYTES

_BYTES = bytes(range(256))
_LOWEST = _BYTES * 512
_SECOND = b"".join(bytes((value,)) * 256 for value in range(256)) * 2
"""The two lower bytes of every sequence number, twice around, to compare any run of them with."""


def now_us() -> int:
    return time.monotonic_ns() // 1000 & STAMP_MASK


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


@lru_cache
def blank_answers(header: int) -> bytearray:
    """As many acknowledgements as one read can ask for, to cut from and to fill in."""
    return bytearray(bytes((header, 2, 0, 0)) * ANSWERS_PER_READ)


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
        topic_filter: str = "",
    ) -> None:
        """`topic_filter`: if not the topic itself."""
        self.shape = shape
        self.received_count = 0
        self.received_of = [0] * publishers
        self._prefix = shape.prefix
        self._released = 0
        self._answers = blank_answers(PUBACK if shape.qos == 1 else PUBREC)
        super().__init__(loop, address, client_id)
        self.connect(clean=not durable)
        wanted = topic_filter or shape.topic
        body = struct.pack(">H", 1) + text(wanted) + bytes((shape.qos,))
        suback = self._ask(packet(0x82, body), 5)
        if suback[4] == 0x80:
            raise SubscriptionRefused(f"the broker refuses to subscribe to {wanted}")
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
