"""The properties of a stored message by name."""

from __future__ import annotations

import pytest

from cli.log.properties import encoded, named


@pytest.mark.parametrize(
    ("properties", "names"),
    [
        (b"", {}),
        (b"\x01\x01", {"payload_format": 1}),
        (b"\x03\x00\x04text\x08\x00\x03a/b", {"content_type": "text", "response_topic": "a/b"}),
        (b"\x09\x00\x02id", {"correlation_data": "id"}),
        (b"\x09\x00\x01\xff", {"correlation_data_base64": "/w=="}),
        (
            b"\x26\x00\x01a\x00\x01b\x26\x00\x01a\x00\x00",
            {"user_properties": [["a", "b"], ["a", ""]]},
        ),
    ],
)
def test_each_has_its_name(properties: bytes, names: dict[str, object]) -> None:
    assert named(properties) == names
    assert encoded(names) == properties
