"""KeepAlive: what counts as life, and for how long. [MQTT-3.1.2-22]"""

from __future__ import annotations

import pytest

from broker.message import Monotonic
from broker.mqtt.keep_alive import KeepAlive


@pytest.fixture
def keep_alive() -> KeepAlive:
    """Of 60 s, heard last at second 1000."""
    keep_alive = KeepAlive(Monotonic(1000))
    keep_alive.interval_s = 60
    return keep_alive


def test_a_client_may_be_silent_for_one_and_a_half_intervals(keep_alive: KeepAlive) -> None:
    assert keep_alive.deadline() == 1090.0
    keep_alive.last_packet_at = Monotonic(1080)
    assert keep_alive.deadline() == 1170.0


def test_without_an_interval_it_may_always_be_silent(keep_alive: KeepAlive) -> None:
    keep_alive.interval_s = 0
    keep_alive.publish_grew(Monotonic(1001))
    assert keep_alive.deadline() is None


def test_each_part_of_a_publish_counts_as_life(keep_alive: KeepAlive) -> None:
    for second in (1000, 1050, 1139):
        keep_alive.publish_grew(Monotonic(second))
        assert keep_alive.deadline() == float(second + 90)


def test_one_publish_may_take_ten_intervals(keep_alive: KeepAlive) -> None:
    for second in range(1010, 1700, 10):
        keep_alive.publish_grew(Monotonic(second))
        assert keep_alive.deadline() == float(min(second + 90, 1610))


def test_a_publish_that_ended_in_time_is_a_packet_like_any_other(keep_alive: KeepAlive) -> None:
    for second in range(1000, 1600, 50):
        keep_alive.publish_grew(Monotonic(second))
    keep_alive.last_packet_at = Monotonic(1599)
    assert keep_alive.deadline() == 1689.0
    keep_alive.publish_grew(Monotonic(1600))
    keep_alive.publish_grew(Monotonic(2180))
    assert keep_alive.deadline() == 2200.0


def test_time_in_which_nothing_was_read_counts_neither_for_a_client_nor_for_a_publish(
    keep_alive: KeepAlive,
) -> None:
    keep_alive.publish_grew(Monotonic(1001))
    keep_alive.read_again(Monotonic(5000))
    assert keep_alive.deadline() == 5090.0
    keep_alive.publish_grew(Monotonic(5080))
    keep_alive.publish_grew(Monotonic(5650))
    assert keep_alive.deadline() == 5680.0
