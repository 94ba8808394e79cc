from __future__ import annotations

import asyncio
import weakref
from dataclasses import replace
from typing import Any

import pytest

from broker.clock import US
from broker.counters import Counters
from broker.documents import Put, SessionDocument, WillDeadlineDocument, WillDocument
from broker.errors import StoreUnavailable
from broker.log.log import Log
from broker.log.outage import FULL_RETRY_S
from broker.registry.ownership import Taken
from broker.registry.wills import RETRY_S, Wills
from tests.support.clock import FakeClock
from tests.support.world import Disk

LOG_BYTES_MAX = 1 << 20


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def disk() -> Disk:
    disk = Disk()
    await disk.open()
    return disk


class Run:
    """One run of a broker, as far as wills go."""

    def __init__(self, disk: Disk, clock: FakeClock, *, grace_s: float = 0) -> None:
        self.disk = disk
        self.clock = clock
        self.counters = Counters()
        self.log = Log(disk, self.counters, clock, append_bytes_max=LOG_BYTES_MAX)
        self.moved = 0
        moved = self.deadline_moved
        self.wills = Wills(self.log, self.counters, clock, moved, restart_grace_s=grace_s)

    def deadline_moved(self) -> None:
        self.moved += 1

    async def after_crash(self, *, durable: bool = True) -> Run:
        """What the run before left is taken up; the client's session was `durable` or not."""
        await self.log.start()
        await self.wills.start()
        self.wills.listening(lambda client_id: durable and client_id == "c", self.clock.now())
        self.let_pass(0)
        return self

    async def connect(
        self, will: WillDocument | None, client_id: str = "c", *, clean_start: bool = False
    ) -> None:
        messages, operations = await self.wills.connecting(
            client_id, will, session_ends=clean_start, now=self.clock.now()
        )
        self.log.append(messages, operations=operations)
        await self.commit()
        self.wills.connected(client_id, will)

    def lose(self, client_id: str = "c", *, session_expiry_s: int = 100) -> None:
        now = self.clock.now()
        self.wills.client_lost(client_id, session_expiry_s=session_expiry_s, now=now)

    @property
    def due_in_s(self) -> float | None:
        deadline = self.wills.deadline()
        return None if deadline is None else deadline - self.clock.monotonic()

    def let_pass(self, seconds: float) -> None:
        self.clock.advance(seconds)
        deadline = self.wills.deadline()
        if deadline is not None and deadline <= self.clock.monotonic():
            self.wills.expire(self.clock.now())

    async def commit(self) -> None:
        task = asyncio.create_task(self.log.commit_forever())
        await self.wills.publish_due()
        await self.log.flushed()
        task.cancel()

    async def published(self) -> list[tuple[str, bytes, int]]:
        await self.commit()
        read = await self.disk.read(self.disk.log_start, self.disk.high_watermark)
        return [(m.topic, m.payload, m.qos) for m in read.messages]


def will(*, delay_s: int = 0, expiry_s: int | None = None) -> WillDocument:
    return WillDocument("c", "will", b"gone", 1, True, b"", expiry_s, delay_s)


GONE = [("will", b"gone", 1)]


async def test_a_lost_client_s_will_is_published_and_removed_in_one_commit(
    disk: Disk, clock: FakeClock
) -> None:
    """[MQTT-3.1.2-8]"""
    run = Run(disk, clock)
    await run.connect(will(expiry_s=5))
    assert await disk.scan(WillDocument) == [will(expiry_s=5)]
    run.lose()
    assert await run.published() == GONE
    assert len(disk.commits) == 2
    assert await disk.scan(WillDocument) == []
    [message] = (await disk.fetch(await disk.retained(["will"]))).messages
    assert message.publisher == "c"
    assert message.expires_at_us == clock.wall_us() + 5 * US


async def test_a_client_that_says_goodbye_has_no_will_any_more(
    disk: Disk, clock: FakeClock
) -> None:
    """[MQTT-3.14.4-3]"""
    run = Run(disk, clock)
    await run.connect(will())
    run.wills.withdrawn("c")
    run.lose()
    assert await run.published() == []
    assert await disk.scan(WillDocument) == []


async def test_a_will_waits_for_its_delay(disk: Disk, clock: FakeClock) -> None:
    run = Run(disk, clock)
    await run.connect(will(delay_s=30))
    run.lose()
    assert await run.published() == []
    assert run.due_in_s == 30
    run.let_pass(29)
    assert await run.published() == []
    run.let_pass(1)
    assert await run.published() == GONE
    assert run.due_in_s is None


async def test_a_client_that_comes_back_in_time_prevents_its_will(
    disk: Disk, clock: FakeClock
) -> None:
    """[MQTT-3.1.3-9]"""
    run = Run(disk, clock)
    await run.connect(will(delay_s=30))
    run.lose()
    await run.connect(None)
    assert run.due_in_s is None
    assert await disk.scan(WillDocument) == []


async def test_a_will_waits_no_longer_than_its_session_lasts(disk: Disk, clock: FakeClock) -> None:
    """[MQTT-3.1.2-8]"""
    run = Run(disk, clock)
    await run.connect(will(delay_s=30))
    run.lose(session_expiry_s=20)
    assert run.due_in_s == 20
    run.wills.session_ended("c", clock.now())
    assert await run.published() == GONE
    assert run.due_in_s is None


async def test_a_connected_client_s_will_does_not_end_with_an_older_session(
    disk: Disk, clock: FakeClock
) -> None:
    run = Run(disk, clock)
    await run.connect(will())
    run.wills.session_ended("c", clock.now())
    assert await run.published() == []


async def test_a_crash_of_the_broker_loses_its_clients_and_not_their_wills(
    disk: Disk, clock: FakeClock
) -> None:
    run = Run(disk, clock)
    await run.connect(will())
    run = await Run(disk, clock).after_crash()
    assert await run.published() == GONE
    assert await disk.scan(WillDocument) == []


@pytest.mark.parametrize("was_lost", [False, True])
async def test_a_crash_ends_sessions_that_nothing_keeps_and_so_their_wills_delays(
    disk: Disk, clock: FakeClock, was_lost: bool
) -> None:
    """[MQTT-3.1.2-8] The Will Delay Interval, or the end of the session if that is earlier."""
    run = Run(disk, clock)
    await run.connect(will(delay_s=30))
    if was_lost:
        run.lose()
    await run.commit()
    run = await Run(disk, clock).after_crash(durable=False)
    assert await run.published() == GONE
    assert (await disk.scan(WillDocument), run.due_in_s) == ([], None)


async def test_a_crash_lets_the_delay_of_a_kept_session_begin(disk: Disk, clock: FakeClock) -> None:
    run = Run(disk, clock)
    await run.connect(will(delay_s=30))
    run = await Run(disk, clock).after_crash()
    assert await run.published() == []
    assert run.due_in_s == 30


@pytest.mark.parametrize("wall_s", [0, 1_000_000_012, 1_000_003_600, 1_031_536_000])
async def test_a_delay_goes_on_after_a_restart_where_it_was(disk: Disk, wall_s: int) -> None:
    """However long the broker was down, or the wall clock says it was. The new process counts its
    seconds from another zero."""
    before, after = FakeClock(), FakeClock(wall_s=wall_s, monotonic_s=777)
    run = await Run(disk, before).after_crash()
    await run.connect(will(delay_s=30))
    run.lose()
    run.let_pass(12)
    await run.commit()
    run = await Run(disk, after).after_crash()
    assert run.due_in_s == 18
    run.let_pass(17)
    assert await run.published() == []
    run.let_pass(1)
    assert await run.published() == GONE


# Time to come back to the next run


async def cut_off(disk: Disk, clock: FakeClock, left: WillDocument, *, planned: bool) -> Run:
    """A run that ends while the client is there; what remains of it."""
    run = await Run(disk, clock, grace_s=30).after_crash()
    await run.connect(left)
    if planned:
        run.wills.broker_stops()
        run.lose()
        run.wills.session_ended("c", clock.now())
    await run.commit()
    return run


@pytest.mark.parametrize("planned", [False, True])
@pytest.mark.parametrize("durable", [False, True])
@pytest.mark.parametrize("delay_s", [0, 10, 29])
async def test_who_does_not_come_back_after_a_restart_is_given_up_after_the_grace(
    disk: Disk, clock: FakeClock, planned: bool, durable: bool, delay_s: int
) -> None:
    run = await cut_off(disk, clock, will(delay_s=delay_s), planned=planned)
    assert await run.published() == []
    run = await Run(disk, clock, grace_s=30).after_crash(durable=durable)
    assert run.due_in_s == 30
    run.let_pass(29)
    assert await run.published() == []
    run.let_pass(1)
    assert await run.published() == GONE
    assert await disk.scan(WillDocument) == []


@pytest.mark.parametrize(("delay_s", "due_s"), [(0, 30), (10, 30), (50, 50)])
async def test_a_will_of_a_dead_broker_that_is_taken_up_before_we_listen_has_its_time_too(
    disk: Disk, clock: FakeClock, delay_s: int, due_s: int
) -> None:
    await cut_off(disk, clock, will(delay_s=delay_s), planned=False)
    run = Run(disk, clock, grace_s=30)
    await run.log.start()
    session = SessionDocument("c", 100, 0, None)
    left = Taken(session, WillDeadlineDocument("c", delay_s, None), cut_off=True)
    run.wills.taken(left, clock.now())
    run.wills.listening(lambda client_id: True, clock.now())
    assert run.due_in_s == due_s
    run.let_pass(due_s)
    assert await run.published() == GONE


@pytest.mark.parametrize("planned", [False, True])
@pytest.mark.parametrize("clean_start", [False, True])
@pytest.mark.parametrize("new_will", [None, will()])
@pytest.mark.parametrize("delay_s", [0, 10, 100])
async def test_who_comes_back_in_time_after_a_restart_cancels_its_will(
    disk: Disk,
    clock: FakeClock,
    planned: bool,
    clean_start: bool,
    new_will: WillDocument | None,
    delay_s: int,
) -> None:
    """[MQTT-3.1.2-8] Also by a new session, as a client of 3.1.1 with Clean Session 1 does."""
    await cut_off(disk, clock, will(delay_s=delay_s), planned=planned)
    run = await Run(disk, clock, grace_s=30).after_crash()
    run.let_pass(29)
    await run.connect(new_will, clean_start=clean_start)
    run.let_pass(1000)
    assert await run.published() == []
    assert await disk.scan(WillDocument) == ([new_will] if new_will else [])
    if new_will is not None:
        run.lose()
        assert await run.published() == GONE


async def test_a_client_of_this_run_gets_no_grace(disk: Disk, clock: FakeClock) -> None:
    await cut_off(disk, clock, will(), planned=True)
    run = await Run(disk, clock, grace_s=30).after_crash()
    run.let_pass(1)
    await run.connect(will(), clean_start=True)
    run.lose()
    assert await run.published() == GONE


async def test_a_delay_that_is_longer_than_the_grace_goes_on(disk: Disk, clock: FakeClock) -> None:
    await cut_off(disk, clock, will(delay_s=100), planned=True)
    run = await Run(disk, clock, grace_s=30).after_crash()
    assert run.due_in_s == 100
    run.let_pass(40)
    await run.commit()
    run = await Run(disk, clock, grace_s=30).after_crash()
    assert run.due_in_s == 60


async def test_a_session_that_ends_in_the_grace_lets_its_will_go_out_after_it(
    disk: Disk, clock: FakeClock
) -> None:
    await cut_off(disk, clock, will(delay_s=100), planned=True)
    run = await Run(disk, clock, grace_s=30).after_crash()
    run.let_pass(5)
    run.wills.session_ended("c", clock.now())
    assert run.due_in_s == 25
    run.let_pass(25)
    assert await run.published() == GONE


async def test_after_the_grace_a_clean_start_ends_the_delay_by_the_letter(
    disk: Disk, clock: FakeClock
) -> None:
    """[MQTT-3.1.2-8]"""
    await cut_off(disk, clock, will(delay_s=100), planned=True)
    run = await Run(disk, clock, grace_s=30).after_crash()
    run.let_pass(31)
    await run.connect(None, clean_start=True)
    assert await run.published() == GONE


async def test_two_restarts_in_the_grace_begin_it_again(disk: Disk, clock: FakeClock) -> None:
    await cut_off(disk, clock, will(), planned=True)
    for _ in range(2):
        run = await Run(disk, clock, grace_s=30).after_crash()
        assert run.due_in_s == 30
        run.let_pass(20)
        assert await run.published() == []


async def test_who_is_refused_in_the_grace_may_come_back_again(
    disk: Disk, clock: FakeClock
) -> None:
    await cut_off(disk, clock, will(), planned=True)
    run = await Run(disk, clock, grace_s=30).after_crash()
    await run.wills.connecting("c", None, session_ends=True, now=clock.now())
    run.let_pass(40)
    assert await run.published() == []
    run.wills.not_connected("c")
    run.let_pass(0)
    assert await run.published() == GONE


async def test_who_connects_while_the_listeners_open_is_back(disk: Disk, clock: FakeClock) -> None:
    """A Unix socket is there before the port."""
    await cut_off(disk, clock, will(), planned=True)
    run = Run(disk, clock, grace_s=30)
    await run.log.start()
    await run.wills.start()
    await run.wills.connecting("c", None, session_ends=True, now=clock.now())
    run.wills.listening(lambda client_id: False, clock.now())
    run.wills.connected("c", None)
    run.let_pass(100)
    assert await run.published() == []


async def test_without_a_grace_a_stop_publishes_what_its_clients_left(
    disk: Disk, clock: FakeClock
) -> None:
    run = Run(disk, clock)
    await run.connect(will())
    run.wills.broker_stops()
    run.lose()
    assert await run.published() == GONE


async def test_a_delay_is_measured_and_not_read_from_the_wall(disk: Disk, clock: FakeClock) -> None:
    run = Run(disk, clock)
    await run.connect(will(delay_s=30))
    run.lose()
    clock.set_wall(2_000_000_000)
    run.let_pass(29)
    assert await run.published() == []
    clock.set_wall(1_000_000_000)
    run.let_pass(1)
    assert await run.published() == GONE


async def test_who_keeps_the_timer_is_told_of_each_new_deadline(
    disk: Disk, clock: FakeClock
) -> None:
    run = Run(disk, clock)
    await run.connect(will(delay_s=30))
    assert run.moved == 0
    run.lose()
    assert run.moved == 1


class Tracked(str):
    """One that a weak reference can tell of. (There is none to bytes.)"""


@pytest.mark.parametrize("lost", [False, True])
@pytest.mark.parametrize("crash", [False, True])
async def test_no_will_is_in_memory_before_it_is_due(
    disk: Disk, clock: FakeClock, lost: bool, crash: bool
) -> None:
    """P7. Each can be as large as a packet: 40 of them took 101 MB."""
    run = Run(disk, clock)
    topic = Tracked("will")
    await run.connect(replace(will(delay_s=30), topic=topic))
    if lost:
        run.lose()
        await run.commit()
    if crash:
        run = await Run(disk, clock).after_crash()
        await run.commit()
    kept = weakref.ref(topic)
    del topic
    await asyncio.sleep(0)  # The task that committed it ends.
    disk.commits.clear()
    await disk.append((), [Put(will(delay_s=30))])  # The one in the store is another now.
    assert kept() is None


async def test_wills_that_are_due_are_read_as_the_log_takes_them(
    disk: Disk, clock: FakeClock
) -> None:
    run = Run(disk, clock)
    large = bytes(1 << 18)
    for n in range(40):
        await run.connect(replace(will(delay_s=30), client_id=str(n), payload=large), str(n))
        run.lose(str(n))
    clock.advance(30)
    await run.commit()
    batches = [sum(map(len, batch)) for batch, _, _ in disk.commits]
    assert sum(batches) == 40 * len(large)
    assert max(batches) <= LOG_BYTES_MAX + len(large)


async def test_a_will_that_cannot_be_read_now_is_tried_again(
    disk: Disk, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(disk, clock)
    await run.connect(will())
    run.lose()

    async def fail(*key: object) -> None:
        raise StoreUnavailable("not now")

    with monkeypatch.context() as patch:
        patch.setattr(disk, "get", fail)
        publishing = asyncio.create_task(run.wills.publish_due())
        await asyncio.sleep(0)
    assert not publishing.done()
    clock.advance(RETRY_S)
    assert await run.published() == GONE
    await publishing


async def test_a_will_that_is_being_read_when_its_client_comes_back_is_published_once(
    disk: Disk, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if the client is lost again meanwhile: the later will is another."""
    run = Run(disk, clock)
    await run.connect(will())
    run.lose()
    get, may_read = disk.get, asyncio.Event()

    async def slowly(*key: Any) -> Any:
        found = await get(*key)
        await may_read.wait()
        return found

    monkeypatch.setattr(disk, "get", slowly)
    publishing = asyncio.create_task(run.wills.publish_due())
    back = asyncio.create_task(run.connect(replace(will(), payload=b"later")))
    for _ in range(5):
        await asyncio.sleep(0)
    may_read.set()
    await back
    run.lose()
    await publishing
    assert await run.published() == [*GONE, ("will", b"later", 1)]


async def test_a_mistake_over_one_will_leaves_the_others_to_be_published(
    disk: Disk, clock: FakeClock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run = Run(disk, clock)
    for n in range(2):
        await run.connect(replace(will(delay_s=30), client_id=str(n)), str(n))
        run.lose(str(n))
    append = run.log.append

    def mistake_once(*args: Any, **kwargs: Any) -> None:
        monkeypatch.setattr(run.log, "append", append)
        raise ZeroDivisionError

    monkeypatch.setattr(run.log, "append", mistake_once)
    run.let_pass(30)
    assert len(await run.published()) == 1
    assert [record.levelname for record in caplog.records] == ["CRITICAL"]


async def test_a_will_that_a_full_disk_cannot_take_is_published_later(
    disk: Disk, clock: FakeClock
) -> None:
    run = Run(disk, clock)
    await run.connect(will())
    disk.full = True
    run.lose()
    await run.wills.publish_due()
    task = asyncio.create_task(run.log.commit_forever())
    for _ in range(5):
        await asyncio.sleep(0)
    disk.full = False
    clock.advance(FULL_RETRY_S)
    await run.log.flushed()
    task.cancel()
    assert await run.published() == GONE


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"topic": "will/\x1b"}, "control character in a topic"),
        ({"properties": b"\x26\0\1k\0\1\n"}, "control character in a property"),
    ],
)
async def test_a_will_that_no_client_could_get_is_counted_instead(
    disk: Disk, clock: FakeClock, fields: dict[str, Any], reason: str
) -> None:
    """P5. An older program accepted it."""
    run = Run(disk, clock)
    stored = replace(will(), **fields)
    await disk.append((), [Put(stored), Put(WillDeadlineDocument("c", 0, None))])
    await run.after_crash()
    assert await run.published() == []
    assert await disk.scan(WillDocument) == []
    assert run.counters.dropped == {reason: 1}
