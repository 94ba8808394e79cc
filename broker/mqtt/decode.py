"""Bytes to packets, incrementally, from a client to the server, 3.1.1 and 5.0 side by side.

    feed(data), next(publishes) ─▶ publishes.py   PUBLISH after PUBLISH: the hot path
                                   acks.py        a run of acknowledgements
                                   bodies.py      every other packet

- What arrives may end anywhere. An incomplete packet is kept until it is whole and then decoded at
  once, so the work is linear in the bytes whatever their chunking. Memory is bounded by one packet:
  a length over the limit is refused when it is declared, before the body arrives.
- Any bytes give packets or a `PeerError`, nothing else. The packets before the bad one were given.
- Here is which packet may begin, in which protocol version, and where it ends. The three modules
  have the rules that concern one packet, `connection.py` those between packets.
"""

from __future__ import annotations

from typing import Any

from broker.errors import (
    MalformedPacket,
    PacketTooLarge,
    ProtocolViolation,
    UnsupportedProtocolVersion,
)
from broker.mqtt.acks import read_run
from broker.mqtt.bodies import read_body, read_connect, read_filters
from broker.mqtt.fields import PACKET_BYTES_MAX, Reader, frame
from broker.mqtt.limits import Limits
from broker.mqtt.packets import (
    ACK_TYPES,
    FIRST_BYTES,
    MQTT_3_1_1,
    MQTT_5,
    Connect,
    FromClient,
    PacketType,
    RefusedPublish,
    Subscribe,
    Unsubscribe,
)
from broker.mqtt.publishes import PUBLISH_FIRST_BYTES, PublishReader

_KINDS = dict.fromkeys(PUBLISH_FIRST_BYTES, PacketType.PUBLISH) | {
    FIRST_BYTES[kind]: kind
    for kind in (
        PacketType.CONNECT,
        *ACK_TYPES,
        PacketType.SUBSCRIBE,
        PacketType.UNSUBSCRIBE,
        PacketType.PINGREQ,
        PacketType.DISCONNECT,
        PacketType.AUTH,
    )
}
"""The first bytes that a client may send, with the flags they must have. [MQTT-2.1.3-1]"""

MQTT_3_1 = 3
BRIDGE = 0x80
"""Bit of the Protocol Level of a bridge. It asks for what MQTT 5 calls No Local and Retain As
Published."""
LARGE_BYTES = 8192
"""From this size on a packet that arrived in parts is put together alone. Below, it costs less to
copy what is behind it, too."""
VERSION_BYTES = len(b"\0\4MQTT\5")
"""Protocol Name and Level."""


class Decoder:
    """`feed` it the bytes that arrive, then call `next` until it gives None or raises."""

    __slots__ = (
        "_data",
        "_limits",
        "_needed",
        "_position",
        "_rest",
        "_rest_position",
        "publishes",
        "reading",
        "unfinished",
        "version",
    )

    def __init__(self, limits: Limits) -> None:
        self.version: int | None = None
        """What CONNECT is in, also one that is then refused; None until that is known."""
        self.publishes = PublishReader(limits)
        self.reading: tuple[Subscribe | Unsubscribe, Reader] | None = None
        """A packet with many Topic Filters, that is read a part at a time."""
        self._limits = limits
        self._data = b""
        self._position = 0
        self._rest = b""
        """What arrived behind a large packet that it finished, from `_rest_position` on."""
        self._rest_position = 0
        self.unfinished = bytearray()
        """What is kept of a packet that is not whole. It is always the same object."""
        self._needed = 0

    def limit(self, limits: Limits) -> None:
        """From now on these hold."""
        self._limits = limits
        self.publishes.limit(limits)

    @property
    def publish_begun(self) -> bool:
        """Whether a PUBLISH waits for its end."""
        return bool(self.unfinished) and self.unfinished[0] in PUBLISH_FIRST_BYTES

    def feed(self, data: bytes, position: int = 0) -> None:
        """Take over bytes that arrived, after `next` has returned None."""
        if self.reading is not None:
            if self._rest:
                self._rest += data[position:]
            else:
                self._data += data[position:]
            return
        assert not self._data
        if not self.unfinished:
            self._data, self._position = data, position
            return
        self._position = 0
        end = position + self._needed - len(self.unfinished)
        if end > len(data):
            self.unfinished += memoryview(data)[position:]
            return
        if self._needed < LARGE_BYTES:
            end = len(data)
        self._data = b"".join((self.unfinished, memoryview(data)[position:end]))
        if end < len(data):
            self._rest, self._rest_position = data, end
        self.unfinished.clear()

    def _next_of_rest(self, publishes: list[Any]) -> FromClient | RefusedPublish | None:
        """As `next`, once the large packet that was unfinished is drawn."""
        rest, self._rest = self._rest, b""
        self.feed(rest, self._rest_position)
        return self.next(publishes)

    def next(self, publishes: list[Any]) -> FromClient | RefusedPublish | None:
        """Append the PUBLISHes that come next, and return the packet that stands after them: any
        other, or a PUBLISH that is refused.

        None when all that arrived is used up, or while `reading`: each call reads a part. Raises
        PeerError for the packet that comes after those appended; the decoder is then of no further
        use.
        """
        if self.reading is not None:
            return self._read_on(*self.reading)
        data, position, version = self._data, self._position, self.version
        size = len(data)
        version_5 = version == MQTT_5
        if version is not None and position < size and data[position] in PUBLISH_FIRST_BYTES:
            position, refused = self.publishes.read(data, position, publishes, version_5)
            if refused is not None:
                self._position = position
                return refused
        if position == size:
            self._data = b""
            return self._next_of_rest(publishes) if self._rest else None
        if version is not None:
            run = read_run(data, position, version_5)
            if run is not None:
                ack, self._position = run
                return ack
        kind = self._kind(data[position])
        try:
            body, end = frame(data, position, self._limits.packet_bytes_max, version_5)
        except PacketTooLarge:
            if version is None and (needed := self._version_ahead(data, position)) > size:
                self._wait(data, position, needed)
                return self._next_of_rest(publishes) if self._rest else None
            raise
        if end > size:
            self._wait(data, position, end)
            return self._next_of_rest(publishes) if self._rest else None
        self._position = end
        reader = Reader(data, body, end)
        packet: FromClient
        if kind == PacketType.CONNECT:
            packet = self._connect(reader)
        else:
            packet = read_body(kind, reader, version_5, self._limits)
            if isinstance(packet, Subscribe | Unsubscribe) and not reader.at_end():
                self.reading = packet, reader
                return None
        reader.expect_end()
        return packet

    def _read_on(
        self, packet: Subscribe | Unsubscribe, reader: Reader
    ) -> Subscribe | Unsubscribe | None:
        """The packet, if this was its last part."""
        read_filters(packet, reader, self.version == MQTT_5, self._limits)
        if not reader.at_end():
            return None
        self.reading = None
        return packet

    def _wait(self, data: bytes, position: int, end: int) -> None:
        """Keep what begins at `position` until it goes up to `end`."""
        self.unfinished += memoryview(data)[position:]
        self._needed = end - position
        self._data = b""

    def _version_ahead(self, data: bytes, position: int) -> int:
        """Of a CONNECT that is too large: take its version, so that the client understands the
        answer. Returns where that ends, which may be behind `data`."""
        body, _ = frame(data, position, PACKET_BYTES_MAX, version_5=False)
        end = body + VERSION_BYTES
        if end <= len(data):
            self._version(Reader(data, body, end))
        return end

    def _kind(self, first: int) -> PacketType:
        """Which packet the first byte begins, if it is one that may come now."""
        kind = _KINDS.get(first)
        if self.version is None:
            if kind != PacketType.CONNECT:  # [MQTT-3.1.0-1]
                raise ProtocolViolation("the first packet is not a CONNECT")
            return kind
        if kind is None:
            raise MalformedPacket(f"0x{first:02X} begins no packet that a client may send")
        if kind == PacketType.CONNECT:  # [MQTT-3.1.0-2]
            raise ProtocolViolation("CONNECT was sent twice")
        if kind == PacketType.AUTH and self.version != MQTT_5:
            raise MalformedPacket("MQTT 3.1.1 has no AUTH")
        return kind

    def _connect(self, reader: Reader) -> Connect:
        """A bridge of Mosquitto's sets the top bit of its level."""
        name, level = self._version(reader)
        version, bridge = level & ~BRIDGE, level & BRIDGE != 0
        if name != "MQTT" or version not in (MQTT_3_1_1, MQTT_5):
            raise UnsupportedProtocolVersion("the protocol is neither MQTT 3.1.1 nor 5.0")
        connect = read_connect(reader, version, self._limits, self.publishes.topic_names)
        connect.bridge = bridge
        return connect

    def _version(self, reader: Reader) -> tuple[str, int]:
        """Protocol Name and Level. Sets the version also where it is none that is served, so that
        the client understands the answer: up to 3.1.1 it is return code 1, above it Reason Code
        0x84. [MQTT-3.1.2-1, 2]"""
        name, level = reader.string(), reader.byte()
        version = level & ~BRIDGE
        if name == "MQTT" or (name == "MQIsdp" and version == MQTT_3_1):
            self.version = MQTT_5 if version > MQTT_3_1_1 else MQTT_3_1_1
        return name, level
