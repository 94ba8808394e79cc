from __future__ import annotations

import pytest

from broker.counters import Counters
from broker.log.losses import NOT_LOGGED, TOLD_AGAIN_S, Losses
from tests.support.clock import FakeClock


def test_each_is_counted_and_the_first_is_told_and_after_a_minute_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """P5"""
    counters, clock = Counters(), FakeClock()
    losses = Losses(counters, clock)
    for _ in range(9):
        losses.note(2, "of this")
    clock.advance(TOLD_AGAIN_S)
    losses.note(1, "of that")
    losses.note(0, "of that")
    assert counters.dropped == {NOT_LOGGED: 19}
    assert caplog.messages == [
        "QoS 0 messages are not logged, since of this: 2 so far",
        "QoS 0 messages are not logged, since of that: 19 so far",
    ]
