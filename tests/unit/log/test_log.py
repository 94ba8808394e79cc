from __future__ import annotations

import asyncio
import tracemalloc
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import pytest

from broker.counters import Counters
from broker.documents import Operation, Place, Put, ReceivedQos2Document, SessionDocument
from broker.errors import StoreBusy, StoreError, StoreFull, StoreUnavailable
from broker.log.batch import APPEND_BYTES
from broker.log.cursor_sync import CURSOR_SYNC_S
from broker.log.log import Log
from broker.log.losses import NOT_LOGGED, TOLD_AGAIN_S
from broker.log.outage import FULL_RETRY_S
from broker.log.pace import FEW_MESSAGES
from broker.log.waking import CURSOR_COMMIT_DELAY_S
from broker.message import Message, Offset
from tests.support.clock import FakeClock
from tests.support.messages import message
from tests.support.publishers import Publisher
from tests.support.world import Disk

SESSION = Put(SessionDocument("sub1", 60, 1, None))


APPENDED = message("1").cost + APPEND_BYTES
"""What a message takes that somebody waits for."""


class SlowDisk(Disk):
    """Takes 20 ms for a sync, and its time for what is written."""

    def __init__(self, clock: FakeClock, *, bytes_a_second: int) -> None:
        super().__init__()
        self.took_s: list[float] = []
        self._clock = clock
        self._bytes_a_second = bytes_a_second

    async def append(
        self,
        batch: Sequence[Message],
        state: Sequence[Operation] = (),
        *,
        durable: bool = True,
        places: Sequence[Place] = (),
    ) -> None:
        took_s = 0.02 + sum([m.cost for m in batch]) / self._bytes_a_second
        self.took_s.append(took_s)
        self._clock.advance(took_s)
        await asyncio.sleep(0)
        await super().append(batch, state, durable=durable, places=places)


class Source:
    """Counts what is asked of it."""

    client_id = "sub1"

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.packet_ids = b""

    def take_changes(self) -> list[Operation]:
        self.calls.append("take changes")
        return [Put(ReceivedQos2Document("sub1", self.packet_ids))]

    def committed(self) -> None:
        self.calls.append("committed")

    def not_committed(self) -> None:
        self.calls.append("not committed")


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def disk() -> Disk:
    disk = Disk()
    await disk.open()
    await disk.transact([SESSION])
    disk.commits.clear()
    return disk


@asynccontextmanager
async def committing(
    disk: Disk, clock: FakeClock, counters: Counters | None = None, *, append_bytes_max: int
) -> AsyncIterator[Log]:
    log = Log(disk, counters or Counters(), clock, append_bytes_max=append_bytes_max)
    task = asyncio.create_task(log.commit_forever())
    yield log
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
async def log(disk: Disk, clock: FakeClock) -> AsyncIterator[Log]:
    async with committing(disk, clock, append_bytes_max=10) as log:
        yield log


async def turns(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def messages(disk: Disk) -> list[list[bytes]]:
    return [batch for batch, _, _ in disk.commits]


async def test_what_arrives_during_a_commit_is_the_next_one(log: Log, disk: Disk) -> None:
    disk.may_commit.clear()
    log.append([message("1")])
    await turns()
    log.append([message("2"), message("3")])
    log.append([message("4")])
    disk.may_commit.set()
    await log.flushed()
    assert messages(disk) == [[b"1"], [b"2", b"3", b"4"]]


async def test_a_few_that_wait_are_joined_by_who_was_just_acknowledged(
    log: Log, disk: Disk
) -> None:
    """Or the halves of a small window would be commits of their own for ever."""

    def acknowledged(error: StoreError | None) -> None:
        asyncio.get_running_loop().call_soon(log.append, [message("3")])

    disk.may_commit.clear()
    log.append([message("1")], acknowledged)
    await turns()
    log.append([message("2")])
    disk.may_commit.set()
    await log.flushed()
    assert messages(disk) == [[b"1"], [b"2", b"3"]]


async def test_many_that_wait_do_not_wait_longer(log: Log, disk: Disk) -> None:

    def acknowledged(error: StoreError | None) -> None:
        asyncio.get_running_loop().call_soon(log.append, [message("3")])

    disk.may_commit.clear()
    log.append([message("1")], acknowledged)
    await turns()
    log.append([message("2")] * FEW_MESSAGES)
    disk.may_commit.set()
    await log.flushed()
    assert messages(disk) == [[b"1"], [b"2"] * FEW_MESSAGES, [b"3"]]


async def test_callbacks_come_after_the_commit_in_the_order_of_the_calls(
    log: Log, disk: Disk
) -> None:
    """P1"""
    heard: list[str] = []
    disk.may_commit.clear()
    stored = message("1")
    log.append([stored], lambda error: heard.append(f"append {stored.offset} {error}"))
    log.changed(Source(), lambda error: heard.append(f"changed {error}"))
    log.append([], lambda error: heard.append(f"nothing {error}"))
    await turns()
    assert heard == []
    disk.may_commit.set()
    await log.flushed()
    assert heard == ["append 1 None", "changed None", "nothing None"]


async def test_what_callbacks_put_off_is_done_when_all_were_called(log: Log) -> None:
    heard: list[str] = []

    def acknowledge(error: StoreError | None) -> None:
        heard.append("committed")
        log.acknowledgements.put_off(lambda: heard.append("sent"))

    for _ in range(2):
        log.append([message("1")], acknowledge)
    while not heard:  # noqa: ASYNC110  The very turn of the callback.
        await asyncio.sleep(0)
    assert heard == ["committed", "committed", "sent", "sent"]


class QuickDisk(Disk):
    """Commits without waiting, as long as `quick`."""

    def __init__(self) -> None:
        super().__init__()
        self.quick = True

    def append_now(
        self,
        batch: Sequence[Message],
        state: Sequence[Operation],
        *,
        durable: bool,
        places: Sequence[Place],
        committed: Callable[[], None],
    ) -> bool:
        if not self.quick:
            return False
        append = self.append(batch, state, durable=durable, places=places)
        with pytest.raises(StopIteration):
            append.send(None)
        committed()
        return True


@pytest.fixture
async def quick(clock: FakeClock) -> AsyncIterator[tuple[Log, QuickDisk]]:
    disk = QuickDisk()
    await disk.open()
    await disk.transact([SESSION])
    disk.commits.clear()
    async with committing(disk, clock, append_bytes_max=10) as log:
        await turns()
        yield log, disk


async def test_what_came_in_one_turn_is_committed_in_it(quick: tuple[Log, QuickDisk]) -> None:
    """At once, with all that came in the same turn, and whoever waits hears of it."""
    log, disk = quick
    heard: list[StoreError | None] = []
    log.append([message("1")], heard.append)
    log.append([message("2")], heard.append)
    assert disk.commits == []
    await asyncio.sleep(0)
    assert messages(disk) == [[b"1", b"2"]]
    assert heard == [None, None]
    await asyncio.wait_for(log.flushed(), 1)


async def test_what_a_callback_appends_is_the_next_turns_commit(
    quick: tuple[Log, QuickDisk],
) -> None:
    log, disk = quick
    log.append([message("1")], lambda error: log.append([message("2")]))
    await turns(2)
    assert messages(disk) == [[b"1"], [b"2"]]


async def test_what_the_store_cannot_do_at_once_waits_for_it_in_its_order(
    quick: tuple[Log, QuickDisk],
) -> None:
    log, disk = quick
    disk.quick = False
    disk.may_commit.clear()
    log.append([message("1")])
    await turns()
    disk.quick = True
    log.append([message("2")])
    await turns()
    assert disk.commits == []
    disk.may_commit.set()
    await log.flushed()
    log.append([message("3")])
    await asyncio.sleep(0)
    assert messages(disk) == [[b"1"], [b"2"], [b"3"]]


async def test_a_store_that_is_full_at_once_is_tried_again(
    quick: tuple[Log, QuickDisk], clock: FakeClock
) -> None:
    log, disk = quick
    heard: list[StoreError | None] = []
    disk.full = True
    log.append([message("1")], heard.append)
    await turns()
    assert heard == []
    disk.full = False
    clock.advance(FULL_RETRY_S)
    await log.flushed()
    assert messages(disk) == [[b"1"]]
    assert heard == [None]


async def test_nothing_is_committed_once_the_log_has_stopped(disk: Disk, clock: FakeClock) -> None:
    """Neither before it has begun: nobody would hear of a failure."""
    quick = QuickDisk()
    await quick.open()
    log = Log(quick, Counters(), clock, append_bytes_max=10)
    log.append([message("1")])
    await turns()
    assert quick.commits == []
    async with committing(quick, clock, append_bytes_max=10) as another:
        await turns()
    another.append([message("2")])
    await turns()
    assert quick.commits == []


async def test_a_failure_at_once_ends_the_log(clock: FakeClock) -> None:
    """P6"""
    disk = QuickDisk()
    await disk.open()
    log = Log(disk, Counters(), clock, append_bytes_max=10)
    task = asyncio.create_task(log.commit_forever())
    await turns()
    heard: list[StoreError | None] = []
    failure = StoreUnavailable("fsync failed")

    def fails(*args: object, **options: object) -> bool:
        raise failure

    disk.append_now = fails  # type: ignore[method-assign]
    log.append([message("1")], heard.append)
    with pytest.raises(StoreUnavailable):
        await task
    assert heard == [failure]


async def test_messages_and_the_state_that_belongs_to_them_are_one_commit(
    log: Log, disk: Disk
) -> None:
    source = Source()
    log.append([message("1")])
    source.packet_ids = b"\0\1"
    log.changed(source)
    await log.flushed()
    [(batch, state, _)] = disk.commits
    assert (batch, state) == ([b"1"], [Put(ReceivedQos2Document("sub1", b"\0\1"))])
    assert source.calls == ["take changes", "committed"]


async def test_a_commit_is_fsynced_if_anybody_in_it_waits_for_the_disk(
    log: Log, disk: Disk, clock: FakeClock
) -> None:
    log.append([message("1", qos=0)], durable=False)
    await log.flushed()
    log.append([message("2", qos=0)], durable=False)
    log.append([message("3")])
    await log.flushed()
    log.changed(Source(), lambda error: None, urgent=False)
    clock.advance(CURSOR_COMMIT_DELAY_S)
    await log.flushed()
    log.changed(Source(), lambda error: None)
    await log.flushed()
    assert [durable for _, _, durable in disk.commits] == [False, True, False, True]


async def acknowledge(log: Log, clock: FakeClock, *, times: int = 1) -> None:
    """A subscriber does, and that is committed."""
    for _ in range(times):
        log.changed(Source(), lambda error: None, urgent=False)
        clock.advance(CURSOR_COMMIT_DELAY_S)
        await log.flushed()


async def test_cursors_that_move_are_fsynced_once_a_second_and_when_they_stop(
    log: Log, disk: Disk, clock: FakeClock
) -> None:
    """P4, also over a power cut; without an fsync for each few ms of acknowledgements."""
    await acknowledge(log, clock, times=400)
    synced = [durable for _, _, durable in disk.commits]
    assert synced.count(True) == 2
    clock.advance(CURSOR_SYNC_S)
    await log.flushed()
    batch, state, durable = disk.commits[-1]
    assert (batch, state, durable) == ([], [], True)
    disk.commits.clear()
    clock.advance(60)
    await log.flushed()
    assert disk.commits == []
    assert clock.timers == []


async def test_cursors_that_another_commit_fsynced_need_no_fsync_of_their_own(
    log: Log, disk: Disk, clock: FakeClock
) -> None:
    await acknowledge(log, clock)
    log.append([message("1")])
    await log.flushed()
    clock.advance(60)
    await log.flushed()
    assert [durable for _, _, durable in disk.commits] == [False, True]


async def test_who_waits_for_the_disk_waits_for_what_was_committed_before(
    log: Log, disk: Disk, clock: FakeClock
) -> None:
    """Its state may have gone with a commit that was not fsynced. [MQTT-4.3.3]"""
    await acknowledge(log, clock)
    log.append([], lambda error: None)
    await log.flushed()
    assert [(state, durable) for _, state, durable in disk.commits][1:] == [([], True)]
    log.append([], lambda error: None)
    await log.flushed()
    assert len(disk.commits) == 2


async def test_messages_of_qos_0_alone_are_not_fsynced(
    log: Log, disk: Disk, clock: FakeClock
) -> None:
    """P9"""
    for _ in range(3):
        log.append([message("1", qos=0)], durable=False)
        clock.advance(60)
        await log.flushed()
    assert [durable for _, _, durable in disk.commits] == [False] * 3


async def test_cursors_are_fsynced_when_the_disk_has_space_again(
    log: Log, disk: Disk, clock: FakeClock
) -> None:
    await acknowledge(log, clock)
    disk.full = True
    clock.advance(CURSOR_SYNC_S)
    await turns()
    disk.full = False
    clock.advance(FULL_RETRY_S)
    await log.flushed()
    assert [durable for _, _, durable in disk.commits] == [False, True]


async def test_cursors_wait_for_company_and_go_with_the_first_that_does_not(
    log: Log, disk: Disk
) -> None:
    one, other = Source(), Source()
    log.changed(one)
    log.changed(other, lambda error: None, urgent=False)
    log.changed(one)
    await turns()
    assert disk.commits == []
    log.append([message("1")])
    await log.flushed()
    assert len(disk.commits) == 1
    assert one.calls == other.calls == ["take changes", "committed"]


async def test_cursors_alone_are_committed_in_a_moment(
    log: Log, disk: Disk, clock: FakeClock
) -> None:
    """After the first of them, however many come meanwhile."""
    log.changed(Source())
    clock.advance(CURSOR_COMMIT_DELAY_S / 2)
    log.changed(Source())
    await turns()
    assert disk.commits == []
    clock.advance(CURSOR_COMMIT_DELAY_S / 2)
    await log.flushed()
    assert len(disk.commits) == 1
    assert clock.timers == [pytest.approx(CURSOR_SYNC_S)]


async def test_the_cursors_of_many_are_committed_in_parts_that_hold_up_nobody(
    log: Log, disk: Disk, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What must be stored together, or somebody waits for, is not put off."""
    monkeypatch.setattr("broker.log.log.SOURCES_MAX", 2)
    told: list[str] = []
    many = [Source() for _ in range(6)]
    for n, source in enumerate(many[:5]):
        log.changed(source, lambda error, n=n: told.append(str(n)), urgent=False)  # type: ignore[misc]
    log.changed(many[5], urgent=False)
    log.changed(many[4])
    log.append([message("1")], lambda error: told.append("stored"))
    await turns()
    assert told == ["0", "1", "4", "stored"]
    assert [payloads for payloads, _, _ in disk.commits] == [[b"1"]]
    for _ in range(2):
        clock.advance(CURSOR_COMMIT_DELAY_S)
        await turns()
    await log.flushed()
    assert told == ["0", "1", "4", "stored", "2", "3"]
    assert [len(state) for _, state, _ in disk.commits] == [3, 2, 1]
    assert [source.calls for source in many] == [["take changes", "committed"]] * 6


async def test_the_cursors_of_many_all_hear_of_a_full_store(
    log: Log, disk: Disk, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("broker.log.log.SOURCES_MAX", 2)
    disk.full = True
    told: list[type[object]] = []
    for _ in range(5):
        log.changed(Source(), lambda error: told.append(type(error)), urgent=False)
    clock.advance(CURSOR_COMMIT_DELAY_S)
    await turns()
    clock.advance(FULL_RETRY_S)
    await turns()
    assert told == [StoreFull] * 5
    disk.full = False
    clock.advance(FULL_RETRY_S)
    await log.flushed()
    assert sum(len(state) for _, state, _ in disk.commits) == 5


async def test_commit_now_returns_when_it_is_durable(log: Log, disk: Disk) -> None:
    await log.commit_now([Put(SessionDocument("sub2", 60, 1, None))])
    assert len(disk.commits) == 1


async def test_while_the_store_is_full_what_waits_keeps_its_order(
    log: Log, disk: Disk, clock: FakeClock
) -> None:
    """One publisher's messages, and the state that may only be stored with them."""
    heard: list[StoreError | None] = []
    source = Source()
    disk.may_commit.clear()
    log.append([message("1"), message("2")], heard.append)
    log.changed(source)
    await turns()
    log.append([message("3")], heard.append)
    disk.full = True
    disk.may_commit.set()
    await turns()
    assert heard == []
    disk.full = False
    clock.advance(FULL_RETRY_S)
    await log.flushed()
    assert [m for batch in messages(disk) for m in batch] == [b"1", b"2", b"3"]
    assert heard == [None, None]
    [(batch, state, _), *_] = disk.commits
    assert b"1" in batch
    assert state == [Put(ReceivedQos2Document("sub1", b""))]
    assert source.calls[:2] == ["take changes", "not committed"]


async def test_what_does_not_wait_is_refused_by_a_full_store_and_not_stored_later(
    log: Log, disk: Disk, clock: FakeClock
) -> None:
    heard: list[StoreError | None] = []
    disk.full = True
    log.append([message("refused")], heard.append, keep_if_full=False)
    log.append([message("waits")])
    await turns()
    assert [type(error) for error in heard] == [StoreFull]
    committing = asyncio.create_task(log.commit_now([SESSION], keep_if_full=False))
    await turns()
    clock.advance(FULL_RETRY_S)
    with pytest.raises(StoreFull):
        await committing
    disk.full = False
    clock.advance(FULL_RETRY_S)
    await log.flushed()
    assert messages(disk) == [[b"waits"]]
    assert len(heard) == 1


async def test_a_store_that_another_program_locked_is_waited_for(
    log: Log, disk: Disk, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    """P1, P6. Messages wait also if they could be refused; who only comes is told to come again."""
    heard: list[StoreError | None] = []
    publisher = Publisher()
    source = Source()
    disk.broken = StoreBusy("locked by another process")
    log.append([message("1")], heard.append, keep_if_full=False)
    log.changed(source)
    log.append([message("2"), message("3" * 11)], heard.append)
    committing = asyncio.create_task(log.commit_now([SESSION], keep_if_full=False))
    await turns()
    assert log.congested
    log.throttle(publisher)
    for _ in range(3):
        clock.advance(FULL_RETRY_S)
        await turns()
    with pytest.raises(StoreBusy):
        await committing
    assert (heard, disk.commits) == ([], [])
    assert publisher.calls == ["hold"]
    assert log.failure is None
    disk.broken = None
    clock.advance(FULL_RETRY_S)
    await log.flushed()
    assert (heard, publisher.calls) == ([None, None], ["hold", "release"])
    assert [m for batch in messages(disk) for m in batch] == [b"1", b"2", b"3" * 11]
    assert not log.congested
    assert caplog.messages == [
        "nothing is stored or acknowledged until this is over: locked by another process",
        "messages are stored and acknowledged again",
    ]


# Backpressure


async def test_publishers_are_held_while_too_much_waits(log: Log, disk: Disk) -> None:
    """P7"""
    publisher = Publisher()
    disk.may_commit.clear()
    log.append([message("1")])
    log.throttle(publisher)
    assert publisher.calls == ["hold"]
    await turns()
    assert publisher.calls == ["hold", "release"], "it is being committed"
    log.append([message("2")])
    log.throttle(publisher)
    await turns()
    assert publisher.calls == ["hold", "release", "hold"]
    disk.may_commit.set()
    await log.flushed()
    assert publisher.calls == ["hold", "release", "hold", "release"]


async def test_whoever_waits_is_held_at_once_and_nobody_else(disk: Disk, clock: FakeClock) -> None:
    """400 publishers that each send one read more make 100 MB."""
    async with committing(disk, clock, append_bytes_max=3 * APPENDED) as log:
        committed, waits, late, idle = (Publisher() for _ in range(4))
        disk.may_commit.clear()
        log.append([message("1")])
        log.throttle(committed)
        await turns()
        log.append([message("2")])
        log.throttle(waits)
        assert committed.calls == waits.calls == []
        for payload in "345":
            log.append([message(payload)])
        assert committed.calls == waits.calls == ["hold"]
        log.append([message("6")])
        log.throttle(late)
        assert (late.calls, idle.calls) == (["hold"], [])
        disk.may_commit.set()
        await log.flushed()
        assert committed.calls == waits.calls == late.calls == ["hold", "release"]


async def test_publishers_are_held_while_the_store_is_full(
    log: Log, disk: Disk, clock: FakeClock
) -> None:
    """Or what they sent would pile up in memory."""
    publisher = Publisher()
    disk.full = True
    log.append([message("1" * 11)])
    await turns()
    assert log.congested
    log.throttle(publisher)
    for _ in range(3):
        await turns()
        clock.advance(FULL_RETRY_S)
    assert (publisher.calls, log.congested) == (["hold"], True)
    disk.full = False
    clock.advance(FULL_RETRY_S)
    await log.flushed()
    assert (publisher.calls, log.congested) == (["hold", "release"], False)


async def test_what_waits_beside_messages_counts_as_well(disk: Disk, clock: FakeClock) -> None:
    """A flood of PUBREL takes memory, too."""
    async with committing(disk, clock, append_bytes_max=10_000) as log:
        disk.may_commit.clear()
        log.append([message("1")])
        await turns()
        log.changed(Source(), lambda error: None, size=9_000)
        assert not log.congested
        for _ in range(4):
            log.changed(Source(), lambda error: None)
        assert log.congested


# QoS 0


def qos0(payload: str, topic: str = "t") -> Message:
    return message(payload, topic, qos=0)


def noting(payloads: list[bytes]) -> Callable[[Sequence[Message], int], bool]:
    """Stands in for delivery: nobody waits for the commit."""

    def hand_on(messages: Sequence[Message], number: int) -> bool:
        payloads.extend([m.payload for m in messages])
        return False

    return hand_on


async def test_qos_0_beyond_what_may_wait_is_not_logged_and_counted_and_told_once(
    disk: Disk, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    """P5, P7"""
    counters = Counters()
    async with committing(
        disk, clock, counters, append_bytes_max=10 * message("kept").cost + APPEND_BYTES
    ) as log:
        handed_on: list[bytes] = []
        log.qos0.hand_on = noting(handed_on)
        publisher = Publisher()
        disk.may_commit.clear()
        log.append([message("kept")])
        log.throttle(publisher)
        await turns()
        for n in range(30):
            log.append([qos0(str(n % 10))], durable=False)
        log.append([qos0("other", "u")], durable=False)
        assert counters.dropped == {NOT_LOGGED: 22}
        assert handed_on == [b"other"], "nothing older of its topic waits"
        assert publisher.calls == []
        assert len(caplog.messages) == 1
        assert caplog.messages[0].startswith("QoS 0 messages are not logged, since too much waits")
        clock.advance(TOLD_AGAIN_S)
        log.append([qos0("x", "v")], durable=False)
        assert len(caplog.messages) == 2
        disk.may_commit.set()
        await log.flushed()
        assert [m for batch in messages(disk) for m in batch] == [
            b"kept", *[str(n).encode() for n in range(9)]
        ]  # fmt: skip


async def test_a_full_store_takes_no_qos_0_which_is_handed_on_in_its_order(
    disk: Disk, clock: FakeClock
) -> None:
    """P5, [MQTT-4.6.0-6]"""
    counters = Counters()
    async with committing(disk, clock, counters, append_bytes_max=100_000) as log:
        handed_on: list[bytes] = []
        log.qos0.hand_on = noting(handed_on)
        disk.full = True
        for second in range(5):
            for n in range(4):
                log.append([qos0(f"{second}.{n}"), qos0(f"{second}.{n}", "u")], durable=False)
            await turns()
            clock.advance(FULL_RETRY_S)
            await turns()
        expected = [f"{second}.{n}".encode() for second in range(5) for n in range(4) for _ in "tu"]
        assert sorted(handed_on) == expected
        assert handed_on[::2] == sorted(handed_on[::2])
        assert counters.dropped == {NOT_LOGGED: 40}
        clock.advance(FULL_RETRY_S)
        await asyncio.wait_for(log.flushed(), 5)
        disk.full = False
        log.append([qos0("again")], durable=False)
        await log.flushed()
        assert messages(disk) == [[b"again"]]
        assert handed_on[40:] == [b"again"]


async def test_qos_0_that_is_not_taken_leaves_the_log_idle(log: Log) -> None:
    """No commit would come to find that nothing waits, and a stop waited for one in vain."""
    log.outage.room("nearly full")
    log.append([qos0("1")], durable=False)
    await asyncio.wait_for(log.flushed(), 5)


async def test_while_the_store_is_full_qos_0_does_not_go_before_what_waits_on_its_topic(
    disk: Disk, clock: FakeClock
) -> None:
    async with committing(disk, clock, append_bytes_max=1 << 20) as log:
        handed_on: list[bytes] = []
        log.qos0.hand_on = noting(handed_on)
        disk.full = True
        log.append([message("1", "t")])
        await turns()
        log.append([qos0("2", "t"), qos0("3", "u")], durable=False)
        assert handed_on == [b"3"]
        disk.full = False
        clock.advance(FULL_RETRY_S)
        await log.flushed()
        assert messages(disk) == [[b"1"]]


async def test_a_flood_of_qos_0_waits_for_later_commits_and_keeps_nobody_waiting(
    clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever a commit takes, an acknowledged message waits for the one that runs and its own."""
    monkeypatch.setattr("broker.log.pace.BATCH_BYTES_MIN", 1 << 16)
    disk = SlowDisk(clock, bytes_a_second=1 << 20)
    await disk.open()
    async with committing(disk, clock, append_bytes_max=8 << 20) as log:
        acknowledged: list[float] = []
        for n in range(20_000):
            log.append([qos0("", f"flood/{n % 7}")], durable=False)
        for _ in range(20):
            waits_from, heard = len(acknowledged), clock.monotonic()
            log.append([message("", "mine")], lambda error: acknowledged.append(clock.monotonic()))
            while len(acknowledged) == waits_from:
                await turns(1)
            assert acknowledged[-1] - heard <= (4.2 if waits_from < 3 else 0.5)
        await log.flushed()
    assert sum(disk.took_s[:3]) < 6
    assert max(disk.took_s[3:]) <= 0.25
    assert sum(len(batch) for batch in messages(disk)) == 20_020


async def test_an_acknowledged_message_does_not_overtake_qos_0_of_its_topic(
    disk: Disk, clock: FakeClock
) -> None:
    async with committing(disk, clock, append_bytes_max=8 << 20) as log:
        log.append([qos0(str(n), "t") for n in range(4000)], durable=False)
        log.append([qos0(str(n), "u") for n in range(4000)], durable=False)
        log.append([qos0(str(n), "t") for n in range(4000, 4100)], durable=False)
        log.append([message("last", "t")])
        log.append([qos0("after", "t")], durable=False)
        await log.flushed()
    stored = (await disk.read(Offset(1), Offset(1 << 40), limit=10_000)).messages
    of_topic = [m.payload for m in stored if m.topic == "t"]
    assert of_topic == [*[str(n).encode() for n in range(4100)], b"last", b"after"]
    assert len(stored) == 8102


async def test_a_stalled_disk_and_a_million_empty_messages_take_no_more_memory_than_may_wait(
    disk: Disk, clock: FakeClock
) -> None:
    """P7"""
    async with committing(disk, clock, append_bytes_max=4 << 20) as log:
        disk.may_commit.clear()
        log.append([message("1")])
        await turns()
        tracemalloc.start()
        for _ in range(1000):
            log.append([message("", qos=0) for _ in range(200)], durable=False)
        size, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert 1 << 20 < size < 4 << 20
        disk.may_commit.set()
        await log.flushed()


async def test_after_a_failed_write_nothing_is_acknowledged_any_more(disk: Disk) -> None:
    """P6"""
    log = Log(disk, Counters(), FakeClock(), append_bytes_max=10)
    heard: list[StoreError | None] = []
    disk.broken = StoreUnavailable("fsync failed")
    log.append([message("1")], heard.append)
    task = asyncio.create_task(log.commit_forever())
    with pytest.raises(StoreUnavailable):
        await task
    assert heard == [disk.broken]
    with pytest.raises(StoreUnavailable):
        await log.flushed()
    disk.broken = None
    log.append([message("2")], heard.append)
    await turns()
    assert len(heard) == 1
    assert disk.commits == []


async def test_messages_and_commits_are_counted(disk: Disk) -> None:
    counters = Counters()
    log = Log(disk, counters, FakeClock(), append_bytes_max=10)
    task = asyncio.create_task(log.commit_forever())
    batch: list[Message] = [message("1"), message("23", properties=b"not counted")]
    log.append(batch)
    await log.flushed()
    task.cancel()
    assert (counters.commits, counters.messages_in, counters.payload_bytes_in) == (1, 2, 3)


async def test_a_full_store_is_over_when_something_was_stored(
    log: Log, disk: Disk, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Not when all that waited was refused: then the same would be said every second."""
    publisher = Publisher()
    disk.full = True
    for _ in range(3):
        log.append([message("1")], lambda error: None, keep_if_full=False)
        log.throttle(publisher)
        await turns()
        clock.advance(FULL_RETRY_S)
        await turns()
    assert publisher.calls == ["hold", "release"] * 3
    assert len(caplog.messages) == 1
    disk.full = False
    log.append([message("2")])
    await log.flushed()
    assert caplog.messages[1:] == ["messages are stored and acknowledged again"]


# What we do wrong in somebody's commit


def mistake(*_: object) -> None:
    raise ZeroDivisionError


async def test_a_mistake_in_a_callback_is_told_to_whom_it_concerns(log: Log, disk: Disk) -> None:
    heard: list[str] = []
    log.append([message("1")], mistake, lambda error: heard.append(type(error).__name__))
    log.changed(Source(), mistake, lambda error: heard.append(type(error).__name__))
    log.append([message("2")], lambda error: heard.append(f"2: {error}"))
    await log.flushed()
    assert heard == ["ZeroDivisionError", "ZeroDivisionError", "2: None"]
    assert messages(disk) == [[b"1", b"2"]]
    assert log.failure is None


async def test_a_mistake_in_a_callback_that_concerns_nobody_is_logged(
    log: Log, caplog: pytest.LogCaptureFixture
) -> None:
    log.append([message("1")], mistake)
    await log.flushed()
    ((level, text, why),) = [(r.levelname, r.getMessage(), r.exc_info) for r in caplog.records]
    assert (level, text) == ("CRITICAL", "a callback of a commit")
    assert why is not None


async def test_a_mistake_in_a_refused_or_failed_callback_leaves_the_others_told(
    log: Log, disk: Disk, clock: FakeClock
) -> None:
    heard: list[str] = []

    def told(error: StoreError | None) -> None:
        heard.append(str(error))

    disk.full = True
    for callback in (mistake, told):
        log.append([message("1")], callback, lambda _: None, keep_if_full=False)
    await turns()
    assert heard == ["no space"]
    disk.full, disk.broken = False, StoreUnavailable("lost")
    for callback in (mistake, told):
        log.append([message("1")], callback, lambda _: None)
    clock.advance(FULL_RETRY_S)
    await turns()
    assert heard == ["no space", "lost"]
    assert log.failure is disk.broken


async def test_a_publisher_that_cannot_be_held_or_released_is_told_and_no_other(
    log: Log, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken, sound = Publisher(), Publisher()
    for name in ("pause_reading", "resume_reading"):
        monkeypatch.setattr(broken, name, mistake)
    log.append([message("1")])
    for publisher in (broken, sound):
        log.throttle(publisher)
    await log.flushed()
    assert (broken.calls, sound.calls) == (["failed"] * 2, ["hold", "release"])


async def test_a_source_that_fails_is_left_out_of_the_commit_and_cut_off_before_it(
    log: Log, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P1: its messages are stored, but nothing is acknowledged that needs its state."""
    broken, sound = Source(), Source()
    failed: list[object] = []

    def cut_off(source: object, error: Exception) -> None:
        assert disk.commits == []
        failed.append(source)

    monkeypatch.setattr(broken, "take_changes", mistake)
    log.source_failed = cut_off
    log.changed(broken)
    log.changed(sound)
    log.append([message("1")])
    await log.flushed()
    assert failed == [broken]
    assert broken.calls == ["not committed"]
    assert sound.calls == ["take changes", "committed"]
    assert messages(disk) == [[b"1"]]
    log.changed(sound)
    log.append([message("2")])
    await log.flushed()
    assert failed == [broken]


async def test_a_source_that_fails_after_the_commit_is_cut_off_alone(
    log: Log, disk: Disk, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken, sound = Source(), Source()
    failed: list[object] = []
    monkeypatch.setattr(broken, "committed", mistake)
    monkeypatch.setattr(broken, "not_committed", mistake)
    log.source_failed = lambda source, error: failed.append(source)
    disk.full = True
    log.changed(broken)
    log.changed(sound)
    log.append([message("1")])
    await turns()
    assert failed == [broken]
    disk.full = False
    clock.advance(FULL_RETRY_S)
    await log.flushed()
    assert failed == [broken, broken]
    assert sound.calls == ["take changes", "not committed", "take changes", "committed"]
    assert messages(disk) == [[b"1"]]


async def test_who_is_cut_off_on_a_full_disk_has_its_last_state_in_the_next_commit(
    log: Log, disk: Disk, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken, last = Source(), Source()
    monkeypatch.setattr(broken, "not_committed", mistake)
    log.source_failed = lambda source, error: log.changed(last)
    disk.full = True
    log.changed(broken)
    log.append([message("1")])
    await turns()
    disk.full = False
    clock.advance(FULL_RETRY_S)
    await log.flushed()
    assert last.calls == ["take changes", "committed"]


async def test_a_source_that_nobody_knows_is_logged(
    log: Log, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    broken = Source()
    monkeypatch.setattr(broken, "take_changes", mistake)
    log.changed(broken)
    log.append([message("1")])
    await log.flushed()
    assert [record.levelname for record in caplog.records] == ["CRITICAL"]
