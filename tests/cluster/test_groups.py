"""Workers of one group at two brokers in processes of their own, on a log of three nodes.

Every job is done, and no two workers at living brokers have one at once, whoever comes, goes, is
slow or is killed.
"""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import count

import pytest

from broker.config import Config
from broker.mqtt.packets import (
    Ack,
    Connack,
    PacketType,
    Publish,
    Suback,
    Subscribe,
    SubscriptionRequest,
    Unsubscribe,
)
from tests.support.broker_process import BrokerProcess, wait_until
from tests.support.command_line import succeed
from tests.support.nodes import Pair, client_of
from tests.support.patience import PATIENCE_S
from tests.support.raw_client import RawClient, connect_packet

GROUP = "$share/g/jobs/#"
WINDOW = 20
JOBS = 3000
INFLIGHT_MAX = Config().inflight_max
AT_ONCE = 50
POLL_S = 0.1


class JobBook:
    """Who has which job, and which are done."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.has: dict[bytes, set[str]] = {}
        self.done: dict[bytes, list[str]] = {}
        """And by whom."""
        self.got: Counter[str] = Counter()
        self.faults: list[str] = []

    def come(self, worker: str, job: bytes) -> None:
        with self.lock:
            if others := self.has.get(job, set()) - {worker}:
                self.faults.append(f"{worker} gets {job!r}, and so has {others}")
            self.has.setdefault(job, set()).add(worker)
            self.got[worker] += 1

    def finished(self, worker: str, jobs: Sequence[bytes]) -> None:
        with self.lock:
            for job in jobs:
                self.has[job].discard(worker)
                self.done.setdefault(job, []).append(worker)

    @property
    def again(self) -> list[list[str]]:
        """By whom jobs were done that were done more than once."""
        return [by for by in self.done.values() if len(by) > 1]

    def lost(self, worker: str) -> None:
        """Its connection is over, and what it had is others'."""
        with self.lock:
            for having in self.has.values():
                having.discard(worker)


class ThreadedWorker:
    """A client with a list of brokers, in a thread of its own. It is `slow` at times."""

    def __init__(self, name: str, jobs: JobBook, brokers: Sequence[BrokerProcess]) -> None:
        self.name, self.jobs, self.brokers = name, jobs, brokers
        self.connects = 0
        self.errors: list[OSError] = []
        self.wait_s = 0.0
        self.cut_off = threading.Event()
        self.unsubscribes = threading.Event()
        self.ends = threading.Event()
        self.subscribed = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def end(self) -> None:
        self.ends.set()
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        for number in count():
            if self.ends.is_set():
                return
            try:
                client = RawClient(self.brokers[number % len(self.brokers)].port)
            except OSError:
                time.sleep(POLL_S)
                continue
            with client:
                try:
                    self._work(client)
                except OSError as error:  # Its broker is gone.
                    self.errors.append(error)
                finally:
                    self.jobs.lost(self.name)
                    self.subscribed.clear()

    def _work(self, client: RawClient) -> None:
        client.socket.settimeout(PATIENCE_S)
        client.send(replace(connect_packet(self.name, durable=True), receive_maximum=WINDOW))
        if not isinstance(client.receive(), Connack):
            return
        self.connects += 1
        client.send(Subscribe(1, [SubscriptionRequest(GROUP, 1)]))
        client.socket.settimeout(POLL_S)
        while not self.ends.is_set() and not self.cut_off.is_set():
            if self.unsubscribes.is_set():
                self.unsubscribes.clear()
                client.send(Unsubscribe(2, [GROUP]))
            try:
                packet = client.receive()
            except TimeoutError:
                continue
            if packet is None:
                return
            if isinstance(packet, Suback):
                assert packet.reason_codes == [1]
                self.subscribed.set()
            if isinstance(packet, Publish):
                self.jobs.come(self.name, packet.payload)
                if self.wait_s:
                    time.sleep(self.wait_s)
                self.jobs.finished(self.name, [packet.payload])
                client.send(Ack(PacketType.PUBACK, [packet.packet_id]))
        self.cut_off.clear()


@contextmanager
def workers(jobs: JobBook, *lists: Sequence[BrokerProcess]) -> Iterator[list[ThreadedWorker]]:
    """They are subscribed. Each has its list of brokers."""
    made = [ThreadedWorker(f"w{number}", jobs, brokers) for number, brokers in enumerate(lists, 1)]
    try:
        wait_until(lambda: all(each.subscribed.is_set() for each in made), timeout_s=PATIENCE_S)
        yield made
    finally:
        for each in made:
            each.end()


def publish(broker: BrokerProcess, first: int, last: int) -> None:
    """Acknowledged."""
    with client_of(broker) as publisher:
        publisher.connect(connect_packet(f"p{first}"))
        for at in range(first, last, AT_ONCE):
            jobs = [b"%d" % number for number in range(at, min(at + AT_ONCE, last))]
            publisher.publish_all("jobs/a", jobs)


def all_done(jobs: JobBook, number: int) -> None:
    wait_until(lambda: len(jobs.done) == number, timeout_s=PATIENCE_S)
    assert jobs.faults == []


def nothing_is_left(broker: BrokerProcess) -> bool:
    """Of what goes between the brokers of a group, but its members."""
    return not broker.query("SELECT 1 FROM loans UNION ALL SELECT 1 FROM loan_reports")


def group_shown(broker: BrokerProcess) -> dict[str, object]:
    [line] = succeed("group", "show", "g", "--json", "--data-dir", broker.data_dir)
    shown: dict[str, object] = json.loads(line)
    return shown


def test_four_workers_at_two_brokers_that_come_and_go(brokers: Pair) -> None:
    a, b = brokers
    jobs = JobBook()
    with workers(jobs, [a], [b], [a], [b]) as [first, second, third, fourth]:
        shown = [group_shown(each) for each in (a, b)]
        assert shown[0] == shown[1], "each tells of the whole group, and where it is"
        assert (shown[0]["members"], shown[0]["unread"]) == (4, 0)
        assert shown[0]["broker"]
        third.wait_s = fourth.wait_s = 0.02
        for part in range(6):
            publish((a, b)[part % 2], part * JOBS // 6, (part + 1) * JOBS // 6)
            match part:
                case 0:
                    second.cut_off.set()
                case 1:
                    first.cut_off.set()
                case 2:
                    fourth.unsubscribes.set()
                case 3:
                    third.brokers = [b]
                    third.cut_off.set()
        all_done(jobs, JOBS)
        assert all(jobs.got[each.name] > WINDOW for each in (first, second, third, fourth))
        wait_until(lambda: nothing_is_left(a) and nothing_is_left(b), timeout_s=PATIENCE_S)
    assert len(jobs.again) <= 3 * WINDOW, "only what three that were cut off had in flight"
    assert a.complaints() == b.complaints() == []


@pytest.mark.parametrize("has_the_group", [True, False], ids=["has the group", "has workers"])
def test_a_broker_is_killed_under_load(brokers: Pair, has_the_group: bool) -> None:
    a, b = brokers
    jobs = JobBook()
    with workers(jobs, [a, b], [b], [a, b], [b]) as [first, second, third, fourth]:
        owner = a.query("SELECT broker FROM owners WHERE client_id = ?", GROUP)
        assert owner == b.query("SELECT broker FROM owners WHERE client_id = ?", GROUP)
        dies, stays = (a, b) if has_the_group else (b, a)
        if not has_the_group:
            second.brokers = fourth.brokers = [a, b]
        for each in (first, second, third, fourth):
            each.wait_s = 0.002
        publish(stays, 0, JOBS // 2)
        dies.kill()
        publish(stays, JOBS // 2, JOBS)
        all_done(jobs, JOBS)
        wait_until(lambda: nothing_is_left(stays), timeout_s=PATIENCE_S)
        assert [each.connects for each in (first, second, third, fourth)] == (
            [2, 1, 2, 1] if has_the_group else [1, 2, 1, 2]
        )
    lost = {each.name for each in ((first, third) if has_the_group else (second, fourth))}
    assert all(lost & {*by} for by in jobs.again), "only what workers had at the broker that died"
    assert len(jobs.again) <= len(lost) * INFLIGHT_MAX, "of that, what was in flight or not stored"
    assert stays.complaints() == []
