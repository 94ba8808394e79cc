"""What waits for members that take packets so large."""

from __future__ import annotations

from broker.message import Grant, Message
from broker.registry.groups.unplaced import UNPLACED_BYTES_MAX, UNPLACED_MAX, Unplaced
from tests.support.messages import message


def add(unplaced: Unplaced, *messages: Message) -> None:
    for number, one in enumerate(messages, 1):
        unplaced.add((one, Grant(1)), number)


def test_they_are_taken_in_their_order() -> None:
    unplaced = Unplaced()
    add(unplaced, message("a"), message("b"))
    assert unplaced.first().payload == b"a"
    assert unplaced.take()[1] == 1
    assert [packet_id for _, packet_id in unplaced.take_all()] == [2]
    assert not unplaced


def test_it_is_full_of_many_or_of_large_ones() -> None:
    unplaced = Unplaced()
    add(unplaced, *[message("a")] * (UNPLACED_MAX - 1))
    assert not unplaced.full
    add(unplaced, message("a"))
    assert unplaced.full
    unplaced.take_all()
    assert not unplaced.full
    add(unplaced, message(bytes(UNPLACED_BYTES_MAX)))
    assert unplaced.full
    unplaced.take()
    assert not unplaced.full
