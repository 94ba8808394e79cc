"""The MQTT 5 properties of a stored message, by the names that `--json` and exports have for them.

payload_format      0 or 1: the payload is UTF-8 text
content_type        text
response_topic      text
correlation_data    text, or correlation_data_base64 where it is not UTF-8
user_properties     pairs of texts, in their order
"""

from __future__ import annotations

import base64
from collections.abc import Mapping

from broker.message import CORRELATION_DATA, PAYLOAD_FORMAT_INDICATOR, USER_PROPERTY

CONTENT_TYPE, RESPONSE_TOPIC = 0x03, 0x08
NAMES = {CONTENT_TYPE: "content_type", RESPONSE_TOPIC: "response_topic"}


def named(properties: bytes) -> dict[str, object]:
    """Those that there are. `properties` are as in `Message.properties`."""
    found: dict[str, object] = {}
    pairs: list[list[str]] = []
    position = 0
    while position < len(properties):
        identifier = properties[position]
        position += 1
        if identifier == PAYLOAD_FORMAT_INDICATOR:
            found["payload_format"] = properties[position]
            position += 1
            continue
        value, position = _next(properties, position)
        if identifier == USER_PROPERTY:
            other, position = _next(properties, position)
            pairs.append([value.decode(), other.decode()])
        elif identifier == CORRELATION_DATA:
            found |= text_or_base64("correlation_data", value)
        else:
            found[NAMES[identifier]] = value.decode()
    if pairs:
        found["user_properties"] = pairs
    return found


def encoded(fields: Mapping[str, object]) -> bytes:
    """As in `Message.properties`, from fields as `named` makes them."""
    block = b""
    if "payload_format" in fields:
        block += bytes([PAYLOAD_FORMAT_INDICATOR, int(str(fields["payload_format"]))])
    for identifier, name in NAMES.items():
        if name in fields:
            block += bytes([identifier]) + _prefixed(str(fields[name]).encode())
    if "correlation_data_base64" in fields:
        raw = base64.b64decode(str(fields["correlation_data_base64"]), validate=True)
        block += bytes([CORRELATION_DATA]) + _prefixed(raw)
    elif "correlation_data" in fields:
        raw = str(fields["correlation_data"]).encode()
        block += bytes([CORRELATION_DATA]) + _prefixed(raw)
    pairs = fields.get("user_properties", ())
    assert isinstance(pairs, (list, tuple))
    for name, text in pairs:
        block += bytes([USER_PROPERTY]) + _prefixed(name.encode()) + _prefixed(text.encode())
    return block


def _prefixed(value: bytes) -> bytes:
    return len(value).to_bytes(2) + value


def text_or_base64(name: str, value: bytes) -> dict[str, object]:
    """`name` where it is UTF-8, `name`_base64 where it is not."""
    try:
        return {name: value.decode()}
    except UnicodeDecodeError:
        return {f"{name}_base64": base64.b64encode(value).decode()}


def _next(properties: bytes, position: int) -> tuple[bytes, int]:
    start = position + 2
    end = start + int.from_bytes(properties[position:start])
    return properties[start:end], end
