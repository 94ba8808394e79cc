from __future__ import annotations

from time import process_time

from broker.log.deferred import Deferred
from broker.message import Message
from tests.support.messages import message

COST = message("1").cost


def some(*names: str) -> list[Message]:
    """`a1` is message 1 of topic `a`."""
    return [message(name[1:], name[0]) for name in names]


def names(messages: list[Message]) -> list[str]:
    return [m.topic + m.payload.decode() for m in messages]


def deferred(*names: str) -> Deferred:
    made = Deferred()
    made.add(some(*names))
    return made


def test_each_topic_has_its_turn_and_keeps_its_order() -> None:
    waiting = deferred("a1", "a2", "a3", "b1", "a4")
    assert names(waiting.take(2 * COST)) == ["a1", "a2"]
    waiting.add(some("a5"))
    assert names(waiting.take(2 * COST)) == ["b1", "a3"]
    assert waiting.size == 2 * COST
    assert names(waiting.take(COST)) == ["a4"]
    assert names(waiting.clear()) == ["a5"]
    assert waiting.size == 0


def test_one_message_goes_however_large_and_none_where_there_is_no_room() -> None:
    waiting = deferred("a1", "a2")
    assert names(waiting.take(0)) == []
    assert names(waiting.take(1)) == ["a1"]


def test_what_comes_before_a_message_of_its_topic_can_be_taken_out() -> None:
    waiting = deferred("a1", "b1", "a2", "c1")
    assert names(waiting.take_topics(some("a9", "c9", "x9"))) == ["a1", "a2", "c1"]
    assert (waiting.size, "a" in waiting, "b" in waiting) == (COST, False, True)


def test_a_hundred_thousand_topics_are_taken_in_their_time() -> None:
    waiting = Deferred()
    waiting.add([message("", str(n)) for n in range(100_000)])
    began = process_time()
    while waiting.size:
        waiting.take(1000 * COST)
    assert process_time() - began < 2
