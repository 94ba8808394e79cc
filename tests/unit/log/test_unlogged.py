from __future__ import annotations

import pytest

from broker.counters import Counters
from broker.log.unlogged import NOT_LOGGED, TOLD_AGAIN_S, Unlogged
from tests.support.clock import FakeClock
from tests.support.messages import message


def test_each_is_counted_and_the_first_is_told_and_after_a_minute_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """P5"""
    counters, clock = Counters(), FakeClock()
    unlogged = Unlogged(counters, clock)
    for _ in range(9):
        unlogged.add([message("1"), message("2")], "of this")
    clock.advance(TOLD_AGAIN_S)
    unlogged.add([message("1")], "of that")
    assert counters.dropped == {NOT_LOGGED: 19}
    assert caplog.messages == [
        "QoS 0 messages are not logged, since of this: 2 so far",
        "QoS 0 messages are not logged, since of that: 19 so far",
    ]


def test_what_would_overtake_an_older_message_of_its_topic_is_not_handed_on() -> None:
    """[MQTT-4.6.0-6]"""
    unlogged, got = Unlogged(Counters(), FakeClock()), list[bytes]()
    unlogged.hand_on = lambda batch: got.extend([m.payload for m in batch])
    batch = [message("1", "a"), message("2", "b"), message("3", "c"), message("4", "b")]
    unlogged.add(batch, "of this", [{"a"}, {"c"}])
    assert got == [b"2", b"4"]
    unlogged.add(batch[:1], "of this", [{"a"}])
    assert got == [b"2", b"4"]
