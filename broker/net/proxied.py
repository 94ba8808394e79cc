"""The header with which a proxy names the client that it stands for: PROXY protocol, version 2, of
HAProxy. Pure.

Its text form, version 1, is not taken.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
FIXED_BYTES = 16
"""Signature, version and command, family, length of what follows."""
REST_BYTES_MAX = 1024
"""Of addresses and what else a proxy tells: some hundred bytes in practice."""
VERSION_2 = 0x20
LOCAL, PROXY = 0, 1
ADDRESS_BYTES = {0x11: 4, 0x21: 16}
"""Of TCP over IPv4 and over IPv6."""


class NoHeader(Exception):
    """What came is none; says why, for the operator."""


@dataclass(frozen=True, slots=True)
class Header:
    size: int
    source: tuple[str, int] | None
    """Address and port of the client; None: the proxy speaks for itself, or does not tell."""


def header_of(data: bytes) -> Header | None:
    """The header that `data` begins with; None: it is not whole yet. Raises NoHeader."""
    if not data.startswith(SIGNATURE[: len(data)]):
        raise NoHeader("it does not begin with the header of a proxy")
    if len(data) < FIXED_BYTES:
        return None
    command, family = data[12] ^ VERSION_2, data[13]
    rest = int.from_bytes(data[14:16], "big")
    if command not in (LOCAL, PROXY):
        raise NoHeader(f"its proxy header has version and command 0x{data[12]:02X}")
    if rest > REST_BYTES_MAX:
        raise NoHeader(f"its proxy header has {rest} bytes; at most {REST_BYTES_MAX} are read")
    if len(data) < FIXED_BYTES + rest:
        return None
    size = FIXED_BYTES + rest
    if command == LOCAL or family not in ADDRESS_BYTES:
        return Header(size, None)
    length = ADDRESS_BYTES[family]
    if rest < 2 * length + 4:
        raise NoHeader("its proxy header is too short for its addresses")
    address = ipaddress.ip_address(data[FIXED_BYTES : FIXED_BYTES + length])
    ports = FIXED_BYTES + 2 * length
    return Header(size, (str(address), int.from_bytes(data[ports : ports + 2], "big")))
