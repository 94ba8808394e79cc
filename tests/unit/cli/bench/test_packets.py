"""Packets by stride are the same bytes as packets one by one."""

from __future__ import annotations

import pytest

from cli.bench.packets import Shape, answers, expected_answers, leading_run, remaining_length


@pytest.mark.parametrize(
    ("value", "encoded"),
    [
        (0, "00"),
        (127, "7F"),
        (128, "80 01"),
        (16_383, "FF 7F"),
        (16_384, "80 80 01"),
        (268_435_455, "FF FF FF 7F"),
    ],
)
def test_the_remaining_length_is_the_variable_byte_integer_of_the_standard(
    value: int, encoded: str
) -> None:
    assert remaining_length(value) == bytes.fromhex(encoded)


def test_a_run_ends_where_the_fixed_header_differs_or_the_packet_is_not_whole() -> None:
    same, other_length, other_kind = b"\x32\x02\x32\x02", b"\x32\x03\x32\x02\x32", b"\x62\x02\0\0"
    for count in (0, 1, 7, 8, 9, 128, 129, 1000):
        for rest in (b"", b"\x32", same[:3], other_length, other_kind):
            data = bytearray(b"\x32" + same * count + rest)
            assert leading_run(data, 1, len(data), same[:2], 4) == count


@pytest.mark.parametrize(
    ("qos", "header", "identifier"),
    [(0, "30 10", ""), (1, "32 12", "0101"), (2, "34 12", "0101")],
)
def test_a_ring_holds_whole_packets_numbered_by_their_place(
    qos: int, header: str, identifier: str
) -> None:
    shape = Shape("t/x", qos, 11)
    packets = shape.render(publisher=2, ring=257)
    assert len(packets) == 257 * shape.length
    last = packets[-shape.length :]
    assert last == bytes.fromhex(f"{header} 0003 742F78 {identifier} 0002 00000100 00000000 78")
    assert last[shape.payload_at :] == bytes.fromhex("0002 00000100 00000000 78")
    assert last.startswith(shape.prefix)


def test_answers_are_numbered_from_one_and_what_is_expected_goes_around_twice() -> None:
    assert answers(0x40, 257)[-8:] == bytes.fromhex("40 02 0100  40 02 0101")
    expected = expected_answers(256)[0x70]
    assert expected[255 * 4 : 257 * 4] == bytes.fromhex("70 02 0100  70 02 0001")
