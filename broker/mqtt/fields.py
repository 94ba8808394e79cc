"""The data types of MQTT (MQTT 5, section 1.5): read from the bytes of one packet, and written;
and where a packet ends.

`Reader` is for everything but PUBLISH and runs of acknowledgements, which `publishes.py` and
`acks.py` read without it.
"""

from __future__ import annotations

from broker.errors import MalformedPacket, PacketTooLarge

VARINT_MAX = 268_435_455
PACKET_BYTES_MAX = 5 + VARINT_MAX
"""Of any packet: the first byte, four of Remaining Length, and the most that these can say."""


class Reader:
    """Reads fields one after another, up to `end`. Raises MalformedPacket beyond it."""

    __slots__ = ("data", "end", "position")

    def __init__(self, data: bytes, position: int, end: int) -> None:
        self.data = data
        self.position = position
        self.end = end

    def take(self, size: int) -> bytes:
        start = self.position
        if start + size > self.end:
            raise MalformedPacket("the packet ends in the middle of a field")
        self.position = start + size
        return self.data[start : start + size]

    def at_end(self) -> bool:
        return self.position == self.end

    def expect_end(self) -> None:
        if self.position != self.end:
            raise MalformedPacket("the packet goes on after its last field")

    def byte(self) -> int:
        position = self.position
        if position >= self.end:
            raise MalformedPacket("the packet ends in the middle of a field")
        self.position = position + 1
        return self.data[position]

    def u16(self) -> int:
        return int.from_bytes(self.take(2), "big")

    def u32(self) -> int:
        return int.from_bytes(self.take(4), "big")

    def packet_id(self) -> int:
        """[MQTT-2.2.1-3, MQTT-2.2.1-4]"""
        if packet_id := self.u16():
            return packet_id
        raise MalformedPacket("Packet Identifier 0")

    def varint(self) -> int:
        """1 to 4 bytes, no more than the value needs. [MQTT-1.5.5-1]"""
        value = 0
        for shift in (0, 7, 14, 21):
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                if byte == 0 and shift:
                    raise MalformedPacket("a Variable Byte Integer is longer than it needs to be")
                return value
        raise MalformedPacket("a Variable Byte Integer is longer than 4 bytes")

    def string(self) -> str:
        """Without a call for each part: a SUBSCRIBE may have thousands."""
        data, start, end = self.data, self.position + 2, self.end
        stop = start + (data[start - 2] << 8 | data[start - 1]) if start <= end else start
        if stop > end:
            raise MalformedPacket("the packet ends in the middle of a field")
        self.position = stop
        return text(data[start:stop])

    def binary(self) -> bytes:
        return self.take(self.u16())


def frame(data: bytes, position: int, bytes_max: int, version_5: bool) -> tuple[int, int]:
    """Where the body of the packet at `position` begins and ends, by its Remaining Length.

    An end beyond `data`: more bytes must come, up to that end or until the length is known.
    Raises MalformedPacket; PacketTooLarge as soon as more than `bytes_max` are declared.
    """
    length = 0
    for index in range(1, 5):
        if position + index >= len(data):
            return 0, len(data) + 1
        byte = data[position + index]
        length |= (byte & 0x7F) << 7 * (index - 1)
        if byte < 0x80:
            break
    else:
        raise MalformedPacket("the Remaining Length is longer than 4 bytes")
    if byte == 0 and index > 1 and version_5:  # [MQTT-1.5.5-1]
        raise MalformedPacket("the Remaining Length is longer than it needs to be")
    body = position + 1 + index
    if body + length - position > bytes_max:
        raise PacketTooLarge(f"a packet is larger than {bytes_max} bytes")
    return body, body + length


def text(encoded: bytes) -> str:
    """The string in a field, which has no surrogates and no NUL. [MQTT-1.5.4-1, MQTT-1.5.4-2]

    A byte order mark is kept, as it is a character like others. [MQTT-1.5.4-3]
    """
    try:
        decoded = encoded.decode("utf-8")
    except UnicodeDecodeError:
        raise MalformedPacket("a string is not valid UTF-8") from None
    if "\0" in decoded:
        raise MalformedPacket("a string has a NUL character")
    return decoded


def u16(value: int) -> bytes:
    return value.to_bytes(2, "big")


def u32(value: int) -> bytes:
    return value.to_bytes(4, "big")


def varint(value: int) -> bytes:
    assert value <= VARINT_MAX
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def string(value: str) -> bytes:
    return binary(value.encode("utf-8"))


def binary(value: bytes) -> bytes:
    return len(value).to_bytes(2, "big") + value
