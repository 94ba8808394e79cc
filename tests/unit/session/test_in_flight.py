from __future__ import annotations

import pytest

from broker.errors import StoreCorrupt
from broker.message import Offset, PacketIdentifier
from broker.session.in_flight import InFlight, Stage, pack, unpack


def in_flight(offset: int, packet_id: int, stage: Stage, **flags: bool) -> InFlight:
    return InFlight(Offset(offset), PacketIdentifier(packet_id), stage, **flags)


def test_every_kind_of_exchange_is_unpacked_as_it_was_packed() -> None:
    entries = [
        in_flight(1, 65_535, Stage.SENT_QOS1),
        in_flight(2**63, 1, Stage.SENT_QOS2, aside=True),
        in_flight(3, 7, Stage.RELEASED, retained=True, aside=True),
    ]
    assert unpack(pack(entries)) == entries


def test_nothing_in_flight_takes_no_bytes() -> None:
    assert pack([]) == b""
    assert unpack(b"") == []


def test_an_exchange_takes_twelve_bytes() -> None:
    assert pack([in_flight(258, 772, Stage.RELEASED, retained=True)]) == bytes.fromhex(
        "0000000000000102 0304 03 01"
    )


@pytest.mark.parametrize("packed", [b"\0" * 11, b"\0" * 13, b"\0" * 10 + b"\x04\0"])
def test_what_pack_cannot_have_made_is_corrupt(packed: bytes) -> None:
    with pytest.raises(StoreCorrupt):
        unpack(packed)
