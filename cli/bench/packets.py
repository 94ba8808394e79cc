"""The bytes of MQTT 3.1.1, for many packets of one kind at a time.

A run of packets of one length is written, compared and counted by stride.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import cached_property, lru_cache

PUBACK, PUBREC, PUBREL, PUBCOMP = 0x40, 0x50, 0x62, 0x70
ANSWER_BYTES = 4
PAYLOAD_BYTES_MIN = 10
"""Publisher (2 bytes), sequence number (4), time of sending (4)."""
STAMP_AT = 6


def remaining_length(value: int) -> bytes:
    """The Variable Byte Integer of a fixed header (MQTT 3.1.1, section 2.2.3)."""
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
