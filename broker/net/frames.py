"""Data frames of a WebSocket, as a server reads them: RFC 6455, section 5. Pure; sends nothing.

    feed(data), next(payloads) ─▶ a control frame, as it came | Refused | None: all is used up

- A frame is no unit of MQTT [MQTT-6.0.0-2], so its payload is handed on as it comes, whatever
  length it declares: a page's client may put a whole queue of packets into one frame.
- The reader keeps only a header or control frame that is not whole: less than 131 bytes.
- Each frame is judged by its header, before its payload has come.

We parse frames ourselves, and leave the rest of the protocol to the library, which waits for whole
frames and takes five times as long for each (`python -m benchmarks.codec`, *WebSocket frame*):
some clients send seven frames for one PUBLISH, many of them of one byte.
"""

from __future__ import annotations

from dataclasses import dataclass

from websockets.frames import CloseCode

try:
    from websockets.speedups import apply_mask
except ImportError:  # Where the library was installed without its extension module.
    from websockets.utils import apply_mask

CONT, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
FIN = 0x80
RESERVED = 0x70
MASKED = 0x80
CONTROL_BYTES_MAX = 125
LENGTH_BYTES = {126: 2, 127: 8}
"""Bytes of the extended length, by what the seven bits of the short length say."""


@dataclass(slots=True)
class Refused:
    """Why the connection is to be closed."""

    code: CloseCode
    reason: str


class FrameReader:
    """`feed` it the bytes that arrive, then call `next` until it gives None or `Refused`."""

    __slots__ = ("_continues", "_data", "_left", "_mask", "_position")

    def __init__(self) -> None:
        self._data = b""
        self._position = 0
        self._left = 0
        """Bytes still missing from the payload of the frame that has begun."""
        self._mask = b""
        """Rotated, so that it begins with the byte for the next byte of the payload."""
        self._continues = False
        """Whether the message has more frames."""

    def feed(self, data: bytes) -> None:
        """Take over bytes that arrived, after all earlier ones were drawn with `next`."""
        self._data += data

    def next(self, payloads: list[bytes]) -> bytes | Refused | None:
        """Append the payloads up to the next control frame, which is returned, or all there are."""
        data, position = self._data, self._position
        size = len(data)
        while True:
            if self._left:
                part = data[position : position + self._left]
                payloads.append(apply_mask(part, self._mask))
                position += len(part)
                self._left -= len(part)
                if self._left:
                    turn = len(part) % 4
                    self._mask = self._mask[turn:] + self._mask[:turn]
                    break
            if size - position < 2:
                break
            first, length = data[position], data[position + 1] - MASKED
            if first & ~FIN != (CONT if self._continues else BINARY) or length < 0:
                if (refused := _refused(first, length)) is not None:
                    return refused
                end = position + 6 + length
                if end > size:
                    break
                self._position = end
                return data[position:end]
            mask_at = position + 2
            if length > CONTROL_BYTES_MAX:
                mask_at += LENGTH_BYTES[length]
                length = int.from_bytes(data[position + 2 : mask_at], "big")
            payload_at = mask_at + 4
            if payload_at > size:
                break
            if length >> 63:
                return Refused(CloseCode.MESSAGE_TOO_BIG, "no frame has more than 2^63 - 1 bytes")
            self._left = length
            self._mask = data[mask_at:payload_at]
            self._continues = first < FIN
            position = payload_at
        self._data = data[position:]
        self._position = 0
        return None


def _refused(first: int, length: int) -> Refused | None:
    """What is wrong with a frame that is not the data frame expected; control frames may come."""
    opcode = first & 0x0F
    if length < 0:
        return Refused(CloseCode.PROTOCOL_ERROR, "a client's frames are masked")
    if first & RESERVED:
        return Refused(CloseCode.PROTOCOL_ERROR, "no extension was agreed on")
    if opcode == TEXT:  # [MQTT-6.0.0-1]
        return Refused(CloseCode.UNSUPPORTED_DATA, "MQTT is sent in binary frames")
    if opcode in (CONT, BINARY):
        return Refused(CloseCode.PROTOCOL_ERROR, "the frames of a message are out of order")
    if opcode not in (CLOSE, PING, PONG):
        return Refused(CloseCode.PROTOCOL_ERROR, f"opcode {opcode} has no meaning")
    if first < FIN or length > CONTROL_BYTES_MAX:
        return Refused(CloseCode.PROTOCOL_ERROR, "a control frame is one frame of at most 125 B")
    return None
