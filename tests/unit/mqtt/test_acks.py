from __future__ import annotations

import pytest

from broker.mqtt.acks import read_run
from broker.mqtt.encode import encode
from broker.mqtt.packets import ACK_TYPES, MQTT_3_1_1, MQTT_5, Ack, PacketType

BEFORE = b"\xc0\0"
"""Another packet, to have the run begin further on."""


def run(count: int, tail: str) -> bytes:
    """PUBACK 1, 2, 3 ... with this behind each Packet Identifier."""
    zeros = bytes.fromhex(tail)
    header = bytes((0x40, 2 + len(zeros)))
    return b"".join(header + n.to_bytes(2, "big") + zeros for n in range(1, count + 1))


@pytest.mark.parametrize("count", [1, 2, 8, 9, 71, 72, 73, 600, 5000])
@pytest.mark.parametrize("tail", ["", "00", "00 00"])
@pytest.mark.parametrize("after", ["", "C0 00", "50 02 00 09", "40", "40 02 00", "40 03 00 09 10"])
def test_acknowledgements_come_as_one_run(count: int, tail: str, after: str) -> None:
    acks = run(count, tail)
    found = read_run(BEFORE + acks + bytes.fromhex(after), len(BEFORE), True)
    assert found is not None
    ack, end = found
    assert ack == Ack(PacketType.PUBACK, tuple(range(1, count + 1)))
    assert end == len(BEFORE) + len(acks)


@pytest.mark.parametrize("kind", ACK_TYPES)
@pytest.mark.parametrize("version", [MQTT_3_1_1, MQTT_5])
def test_of_every_type_and_version(kind: PacketType, version: int) -> None:
    wanted = Ack(kind, tuple(range(1, 100)))
    assert read_run(encode(wanted, version), 0, version == MQTT_5) == (wanted, 4 * 99)


def test_may_hold_identifiers_that_look_like_headers() -> None:
    wanted = Ack(PacketType.PUBACK, (0x4002, 0x0240, 0x0002, 0x4040, 0x0202))
    assert read_run(encode(wanted, MQTT_5), 0, True) == (wanted, 20)


@pytest.mark.parametrize("tail", ["00", "00 00"])
def test_reason_codes_make_no_run_in_3_1_1(tail: str) -> None:
    assert read_run(run(3, tail), 0, False) is None


@pytest.mark.parametrize(
    "data",
    [
        "40 02 0000",
        "40 02 0000 40 02 0001",
        "40 03 0001 10",
        "40 04 0001 00 01",
        "40 04 0001 10 00",
        "40 02 00",
        "42 02 0001",
        "60 02 0001",
        "90 03 0001 00",
        "30 02 0000",
        "40",
    ],
)
def test_anything_else_begins_no_run(data: str) -> None:
    """Another Reason Code, properties, Packet Identifier 0, too little, and other packets."""
    assert read_run(bytes.fromhex(data), 0, True) is None


@pytest.mark.parametrize(
    ("data", "count"),
    [
        ("40 02 0001  40 02 0002  40 02 0000  40 02 0003", 2),
        ("40 03 0001 00  40 03 0002 10", 1),
        ("40 04 0001 00 00  40 04 0002 00 00  40 04 0003 00 05", 2),
        ("40 02 0001  40 03 0002 00", 1),
    ],
)
def test_ends_before_what_is_not_like_its_first(data: str, count: int) -> None:
    encoded = bytes.fromhex(data)
    found = read_run(encoded, 0, True)
    assert found is not None
    ack, end = found
    assert list(ack.packet_ids) == list(range(1, count + 1))
    assert end == count * (2 + encoded[1])
