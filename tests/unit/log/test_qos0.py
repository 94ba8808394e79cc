from __future__ import annotations

from broker.counters import Counters
from broker.log.batch import Batch
from broker.log.qos0 import Qos0
from broker.log.unlogged import NOT_LOGGED
from broker.message import Message
from tests.support.clock import FakeClock
from tests.support.messages import message

COST = message("").cost


def some(count: int, topic: str = "t") -> list[Message]:
    return [message("", topic) for _ in range(count)]


def test_it_goes_into_the_batch_then_waits_then_is_left_out() -> None:
    counters = Counters()
    qos0, pending, running = Qos0(counters, FakeClock(), bytes_max=10 * COST), Batch(), Batch()
    running.add_qos0(some(3))
    for _ in range(12):
        qos0.add(some(1), pending, running, batch_bytes_max=4 * COST, full=False)
    assert (pending.size, qos0.deferred.size) == (4 * COST, 3 * COST)
    assert counters.dropped == {NOT_LOGGED: 5}


def test_one_that_is_larger_than_all_that_may_wait_goes_if_nothing_waits() -> None:
    qos0, pending = Qos0(Counters(), FakeClock(), bytes_max=10), Batch()
    qos0.add(some(1), pending, None, batch_bytes_max=10, full=False)
    assert qos0.deferred.size == COST


def test_on_a_full_disk_it_is_handed_on_unless_something_older_waits() -> None:
    """[MQTT-4.6.0-6]"""
    qos0, pending, running = Qos0(Counters(), FakeClock(), bytes_max=1 << 20), Batch(), Batch()
    pending.add_qos0(some(1, "pending"))
    running.add_qos0(some(1, "running"))
    qos0.deferred.add(some(1, "deferred"))
    got: list[str] = []
    qos0.unlogged.hand_on = lambda batch: got.extend([m.topic for m in batch])
    for topic in ("pending", "running", "deferred", "other"):
        qos0.add(some(1, topic), pending, running, batch_bytes_max=1 << 20, full=True)
    assert got == ["other"]
