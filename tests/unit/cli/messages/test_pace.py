"""A replay as fast as it was."""

from __future__ import annotations

import pytest
from paho.mqtt.client import MQTTMessage
from paho.mqtt.packettypes import PacketTypes

from cli.messages.pace import HELD_MAX, Pace, factor
from cli.net.client import packet_properties


@pytest.mark.parametrize(
    ("text", "speed"),
    [("1x", 1), ("10x", 10), ("0.5", 0.5), ("0x", None), ("fast", None), ("-1x", None)],
)
def test_a_speed(text: str, speed: float | None) -> None:
    assert factor(text) == speed


def published(second: float) -> MQTTMessage:
    message = MQTTMessage(1, b"a")
    pair = ("published-at", f"2025-03-14T10:30:{second:09.6f}Z")
    message.properties = packet_properties(PacketTypes.PUBLISH, [pair])
    return message


def test_each_waits_as_long_as_it_was_behind_the_first() -> None:
    pace = Pace(10)
    assert pace.left_s(100) is None
    pace.held += [published(1), published(6), published(2)]
    assert pace.left_s(100) == 0
    pace.held.popleft()
    assert pace.left_s(100) == pytest.approx(0.5)
    assert pace.left_s(100.4) == pytest.approx(0.1)
    assert pace.left_s(101) == 0
    pace.held.popleft()
    assert pace.left_s(101) == 0, "the clock was set back: it is due already"


def test_what_says_no_time_is_due() -> None:
    pace = Pace(1)
    pace.held.append(MQTTMessage(1, b"a"))
    assert pace.left_s(0) == 0


def test_it_says_when_it_holds_enough() -> None:
    pace = Pace(1)
    pace.held += [published(1)] * (HELD_MAX - 1)
    assert not pace.full
    pace.held.append(published(1))
    assert pace.full
