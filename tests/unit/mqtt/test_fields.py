from __future__ import annotations

import pytest

from broker.errors import MalformedPacket
from broker.mqtt import fields
from broker.mqtt.fields import Reader


@pytest.mark.parametrize(
    ("value", "encoded"),
    [
        (0, "00"),
        (127, "7F"),
        (128, "80 01"),
        (16_383, "FF 7F"),
        (16_384, "80 80 01"),
        (2_097_151, "FF FF 7F"),
        (2_097_152, "80 80 80 01"),
        (268_435_455, "FF FF FF 7F"),
    ],
)
def test_variable_byte_integers(value: int, encoded: str) -> None:
    """Table 1-1."""
    data = bytes.fromhex(encoded)
    assert fields.varint(value) == data
    assert Reader(data, 0, len(data)).varint() == value


@pytest.mark.parametrize("encoded", ["80 00", "FF 80 00", "80 80 80 80 01", "80", ""])
def test_a_variable_byte_integer_too_long_or_cut_off(encoded: str) -> None:
    data = bytes.fromhex(encoded)
    with pytest.raises(MalformedPacket):
        Reader(data, 0, len(data)).varint()


def test_a_reader_stays_within_its_packet() -> None:
    reader = Reader(b"\0\5hello", 0, 6)
    with pytest.raises(MalformedPacket):
        reader.string()
