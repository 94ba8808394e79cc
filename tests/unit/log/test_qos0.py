from __future__ import annotations

from collections.abc import Sequence

from broker.counters import Counters
from broker.handed_on import HandedOn
from broker.log.batch import Append, Batch
from broker.log.losses import NOT_LOGGED
from broker.log.qos0 import LAZY_BYTES_MAX, PARTS_AS_THEY_COME, Qos0
from broker.message import Message, Offset
from tests.support.clock import FakeClock
from tests.support.messages import message

COST = message("").cost


def some(count: int, topic: str = "t") -> list[Message]:
    return [message("", topic, qos=0) for _ in range(count)]


def durable(topic: str) -> Append:
    return Append([message("", topic)], (), 0, True, True, None)


class Log:
    """Stands in for it: counts the commits that are to begin."""

    def __init__(self, *, bytes_max: int = 1 << 30) -> None:
        self.commits = 0
        self.clock = FakeClock()
        self.counters = Counters()
        self.qos0 = Qos0(self.counters, self.clock, self._commit, 0.25, bytes_max=bytes_max)

    def _commit(self) -> None:
        self.commits += 1


class Handing:
    """Stands in for delivery."""

    def __init__(self, qos0: Qos0, *, awaited: bool = False) -> None:
        self.got: list[tuple[int, list[str]]] = []
        self.given_up: list[str] = []
        self.awaited = awaited
        qos0.hand_on = self.hand_on
        qos0.give_up = self.give_up

    def hand_on(self, messages: Sequence[Message], number: int) -> bool:
        self.got.append((number, [m.topic for m in messages]))
        return self.awaited

    def give_up(self, part: HandedOn) -> None:
        self.given_up += [m.topic for m in part.messages]


def test_each_run_is_handed_on_at_once_and_waits_for_company() -> None:
    """P9"""
    log = Log()
    qos0, handing = log.qos0, Handing(log.qos0)
    for topic in "ab":
        qos0.add(some(2, topic), Batch(), None, batch_bytes_max=1 << 20, full=False)
    assert handing.got == [(1, ["a", "a"]), (2, ["b", "b"])]
    log.clock.advance(0.24)
    assert log.commits == 0
    log.clock.advance(0.01)
    assert log.commits == 1
    assert [m.topic for part in qos0.take() for m in part.messages] == ["a", "a", "b", "b"]
    assert (qos0.size, len(qos0.ahead.parts)) == (0, 1)


def test_another_commit_takes_it_along_and_then_nothing_waits() -> None:
    log = Log()
    log.qos0.add(some(1), Batch(), None, batch_bytes_max=1 << 20, full=False)
    log.qos0.take()
    assert log.clock.timers == []


def test_it_lies_in_the_log_as_it_came_unless_that_would_make_very_many_parts() -> None:
    """Each QoS 1 message between makes a part more, of whose offsets sessions keep a note."""
    log = Log()
    qos0, handing, pending = log.qos0, Handing(log.qos0), Batch()
    for number in range(2 * PARTS_AS_THEY_COME):
        qos0.add(some(1), pending, None, batch_bytes_max=1 << 20, full=False)
        qos0.go_before([message(topic="u")], None, pending, 1 << 20)
        assert len(handing.got) == number + 1
    assert len(pending.appends) == PARTS_AS_THEY_COME
    assert len(qos0.ahead.parts) == PARTS_AS_THEY_COME + 1
    qos0.go_before([message(topic="t")], None, pending, 1 << 20)
    assert not qos0.waiting, "within a topic the order counts"


def test_its_commit_begins_at_once_if_somebody_waits_for_it_or_if_it_is_much() -> None:
    log = Log()
    Handing(log.qos0, awaited=True)
    log.qos0.add(some(1), Batch(), None, batch_bytes_max=1 << 20, full=False)
    assert log.commits == 1
    Handing(log.qos0)
    log.qos0.add(some(1), Batch(), None, batch_bytes_max=1 << 20, full=False)
    assert log.commits == 1
    enough = LAZY_BYTES_MAX // COST
    log.qos0.add(some(enough), Batch(), None, batch_bytes_max=1 << 20, full=False)
    assert log.commits == 2


def test_it_waits_for_an_older_message_of_its_topic_until_that_is_routed() -> None:
    """[MQTT-4.6.0-6]"""
    log = Log()
    qos0, handing = log.qos0, Handing(log.qos0)
    running, pending = Batch(), Batch()
    running.appends.append(durable("running"))
    pending.appends.append(durable("pending"))
    batch = [*some(1, "running"), *some(1, "other"), *some(1, "pending")]
    qos0.add(batch, pending, running, batch_bytes_max=1 << 20, full=False)
    assert (handing.got, log.commits) == ([(1, ["other"])], 1)
    assert pending.topics() == {"running", "pending"}
    qos0.committed(running, Offset(7))
    pending = Batch()
    qos0.add(some(1, "running"), pending, None, batch_bytes_max=1 << 20, full=False)
    qos0.ahead.routed_through = Offset(6)
    qos0.ahead.forget_routed()
    qos0.add(some(1, "running"), pending, None, batch_bytes_max=1 << 20, full=False)
    assert handing.got == [(1, ["other"])]
    qos0.ahead.routed_through = Offset(7)
    qos0.ahead.forget_routed()
    qos0.add(some(1, "running"), Batch(), None, batch_bytes_max=1 << 20, full=False)
    assert handing.got == [(1, ["other"]), (2, ["running"])]


def test_what_exceeds_the_bound_is_handed_on_and_not_logged_and_counted() -> None:
    """P5, P7"""
    log, running = Log(bytes_max=10 * COST), Batch()
    qos0, handing = log.qos0, Handing(log.qos0)
    running.add_qos0(some(3, "h"))
    for _ in range(12):
        qos0.add(some(1), Batch(), running, batch_bytes_max=4 * COST, full=False)
    assert [len(part.messages) for part in qos0.waiting] == [4, 3]
    assert (log.counters.dropped, len(handing.got)) == ({NOT_LOGGED: 5}, 12)
    assert handing.given_up == ["t"] * 5


def test_one_that_is_larger_than_all_that_may_wait_goes_if_nothing_waits() -> None:
    log = Log(bytes_max=10)
    log.qos0.add(some(1), Batch(), None, batch_bytes_max=10, full=False)
    assert log.qos0.size == COST


def test_on_a_full_disk_it_is_handed_on_unless_something_older_waits() -> None:
    """[MQTT-4.6.0-6]"""
    log, pending = Log(bytes_max=1 << 20), Batch()
    qos0, handing = log.qos0, Handing(log.qos0)
    pending.appends.append(durable("pending"))
    qos0.add(some(1, "waits"), pending, None, batch_bytes_max=1 << 20, full=False)
    qos0.not_stored(pending)
    for topic in ("pending", "other"):
        qos0.add(some(1, topic), pending, None, batch_bytes_max=1 << 20, full=True)
    assert [topics for _, topics in handing.got] == [["waits"], ["other"]]
    assert handing.given_up == ["waits", "other"]
    assert log.counters.dropped == {NOT_LOGGED: 3}
    assert (qos0.size, len(qos0.ahead.parts)) == (0, 0)
