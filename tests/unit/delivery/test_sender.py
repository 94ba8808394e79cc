"""Sender: what an earlier connection left goes first, in parts; then what is new."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest

from broker.delivery.sender import Sender
from broker.documents import CursorDocument
from broker.errors import StoreCorrupt, StoreError, StoreUnavailable
from broker.log.waking import CURSOR_COMMIT_DELAY_S
from broker.message import Grant, Message, Offset, Outgoing, PacketIdentifier
from broker.registry.faces import Owner
from broker.session.exchange import InFlight, Stage
from broker.store import Read
from tests.support.messages import message, numbered, texts
from tests.support.patience import PATIENCE_S
from tests.support.world import (
    Disk,
    World,
    leave_in_flight,
    payloads,
    running,
    subscription,
)


class Connection(Owner):
    """A connection of `sub1` that is sent what its Sender gives, `space` messages at most."""

    def __init__(self, world: World, *, space: int = 100) -> None:
        self.world = world
        self.space = space
        self.sent: list[tuple[bytes, int]] = []
        """Payloads and Packet Identifiers."""
        self.again: list[tuple[Message, Grant, int]] = []
        """What was sent again, which is in `sent` too."""
        self.errors: list[Exception] = []
        self.woken = 0

    async def open(self, *, expiry_s: int = 100, receive_maximum: int = 100) -> None:
        session, _ = await self.world.sessions.open(
            "sub1",
            self,
            clean_start=False,
            session_expiry_s=expiry_s,
            receive_maximum=receive_maximum,
            will=None,
            now=self.world.clock.now(),
        )
        self.session = session
        world = self.world
        self.sender = Sender(session, self, world.log, world.delivery, world.counters)

    async def come_back(self) -> None:
        await self.open()
        self.sender.resend(self.session.in_flight.unfinished())
        await self.world.settled()

    def wake(self) -> None:
        self.woken += 1
        while self.space and (taken := self.sender.take(self.world.log.time.aged_us())) is not None:
            self._send(taken.outgoing, taken.packet_ids)

    def room(self) -> int:
        return self.space

    def send_again(self, outgoing: list[Outgoing], packet_ids: list[int]) -> None:
        self.again += [
            (*out, packet_id) for out, packet_id in zip(outgoing, packet_ids, strict=True)
        ]
        self._send(outgoing, packet_ids)

    def _send(self, outgoing: Sequence[Outgoing], packet_ids: Sequence[int]) -> None:
        self.space -= len(outgoing)
        self.sent += zip(payloads(outgoing), packet_ids, strict=True)

    def got(self) -> list[bytes]:
        return [payload for payload, _ in self.sent]

    def broken(self, error: StoreError) -> None:
        self.errors.append(error)

    def failed(self, error: Exception) -> None:
        self.errors.append(error)

    def taken_over(self) -> None:
        self.sender.stop()
        self.world.sessions.close(self.session, self, self.world.clock.now())


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with running(Disk()) as world:
        yield world


@pytest.fixture
def connection(world: World) -> Connection:
    return Connection(world)


def held_up(world: World, monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """Reads of the log wait for this."""
    may_fetch, fetch = asyncio.Event(), world.disk.fetch

    async def wait_and_fetch(offsets: Sequence[Offset], *, bytes_max: int) -> Read:
        await may_fetch.wait()
        return await fetch(offsets, bytes_max=bytes_max)

    monkeypatch.setattr(world.disk, "fetch", wait_and_fetch)
    return may_fetch


# What an earlier connection left


async def test_what_was_left_is_sent_again_under_its_identifiers_and_before_what_is_new(
    world: World, connection: Connection
) -> None:
    await leave_in_flight(world, *numbered(3))
    await world.publish(*numbered(2, first=4))
    await connection.come_back()
    assert connection.sent == [(b"1", 1), (b"2", 2), (b"3", 3), (b"4", 4), (b"5", 5)]
    assert [packet_id for *_, packet_id in connection.again] == [1, 2, 3]
    assert world.counters.dropped == {}


async def test_what_is_new_waits_until_all_that_was_left_is_sent(
    world: World, connection: Connection
) -> None:
    await leave_in_flight(world, *numbered(3))
    connection.space = 2
    await connection.come_back()
    await world.publish(*numbered(1, first=4))
    assert connection.got() == texts(2)
    connection.space = 1
    connection.wake()
    await world.settled()
    assert connection.got() == texts(3)
    connection.space = 1
    connection.wake()
    assert connection.got() == texts(4)


async def test_what_was_left_is_read_a_few_messages_at_a_time(
    world: World, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P7"""
    monkeypatch.setattr("broker.delivery.sender.RESEND_MESSAGES_MAX", 2)
    await leave_in_flight(world, *numbered(5))
    await connection.come_back()
    assert [len(part) for part in world.disk.fetched] == [2, 2, 1]
    assert connection.got() == texts(5)


async def test_what_was_left_is_read_a_few_bytes_at_a_time_and_none_of_it_is_skipped(
    world: World, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P7, P3: a message that the store did not come to was not removed by retention."""
    monkeypatch.setattr("broker.delivery.sender.TAKE_BYTES_MAX", 200)
    await leave_in_flight(world, *[message(str(n), properties=bytes(99)) for n in range(1, 6)])
    await connection.come_back()
    assert [len(part) for part in world.disk.fetched] == [2, 2, 1]
    assert connection.got() == texts(5)
    assert world.counters.dropped == {}


async def test_without_room_nothing_is_read(world: World, connection: Connection) -> None:
    await leave_in_flight(world, *numbered(2))
    connection.space = 0
    await connection.come_back()
    connection.wake()
    await world.settled()
    assert (connection.got(), world.disk.fetched) == ([], [])


async def test_no_more_is_sent_than_there_is_room_for_when_it_was_read(
    world: World, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_fetch = held_up(world, monkeypatch)
    await leave_in_flight(world, *numbered(3))
    await connection.come_back()
    connection.space = 1
    may_fetch.set()
    await world.settled()
    assert connection.got() == texts(1)
    connection.space = 5
    connection.wake()
    await world.settled()
    assert connection.got() == texts(3)


async def test_who_is_woken_while_it_is_read_is_sent_it_once(
    world: World, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_fetch = held_up(world, monkeypatch)
    await leave_in_flight(world, *numbered(2))
    await connection.come_back()
    connection.wake()
    may_fetch.set()
    await world.settled()
    assert (connection.got(), connection.errors) == (texts(2), [])


async def test_what_retention_removed_is_counted_and_given_up(
    world: World, connection: Connection
) -> None:
    """P5"""
    await leave_in_flight(world, *numbered(3))
    await world.disk.trim(Offset(3))
    await connection.come_back()
    await world.publish(*numbered(1, first=4))
    assert connection.sent == [(b"3", 3), (b"4", 4)]
    assert world.counters.dropped == {"removed by retention": 2}
    assert connection.session.cursor() == 2
    cursor = await world.disk.get(CursorDocument, ("sub1",))
    assert cursor is not None
    assert cursor.offset == 2


async def test_where_all_was_removed_only_what_is_new_is_sent(
    world: World, connection: Connection
) -> None:
    await leave_in_flight(world, *numbered(3))
    await world.disk.trim(Offset(4))
    await connection.come_back()
    await world.publish(*numbered(1, first=4))
    assert (connection.got(), connection.again) == ([b"4"], [])
    assert world.counters.dropped == {"removed by retention": 3}


async def test_a_message_is_sent_again_as_it_was_sent(world: World, connection: Connection) -> None:
    """QoS and RETAIN belong to the exchange, identifiers to the subscription. [MQTT-4.4.0-1]"""
    await world.publish(*[message(str(n), qos=n) for n in (1, 2)], *numbered(2, "other", first=3))
    await connection.open()
    kept = subscription(qos=2, identifier=7)
    world.delivery.subscribe(connection.session, kept)
    exchanges = [
        InFlight(Offset(1), PacketIdentifier(11), Stage.SENT_QOS1),
        InFlight(Offset(2), PacketIdentifier(12), Stage.SENT_QOS2, retained=True),
        InFlight(Offset(3), PacketIdentifier(13), Stage.SENT_QOS1),
        InFlight(Offset(4), PacketIdentifier(14), Stage.SENT_QOS2),
    ]
    connection.sender.resend(exchanges)
    await world.settled()
    assert [(grant, packet_id) for _, grant, packet_id in connection.again] == [
        (Grant(1, subscription_ids=(7,)), 11),
        (Grant(2, subscription_ids=(7,), retained=True), 12),
        (Grant(1), 13),
        (Grant(2), 14),
    ]


async def test_what_is_added_is_sent_again_in_the_order_of_the_log(
    world: World, connection: Connection
) -> None:
    await world.publish(*numbered(4))
    connection.space = 0
    await connection.open()
    for offsets in ((2, 4), (1, 3)):
        connection.sender.resend(
            InFlight(Offset(offset), PacketIdentifier(offset), Stage.SENT_QOS1)
            for offset in offsets
        )
    connection.space = 9
    connection.wake()
    await world.settled()
    assert connection.sent == [(b"1", 1), (b"2", 2), (b"3", 3), (b"4", 4)]


async def test_what_is_added_while_it_reads_is_sent_again_too(
    world: World, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_fetch = held_up(world, monkeypatch)
    await world.publish(*numbered(3))
    await connection.open()
    for offset in (2, 1, 3):
        entry = InFlight(Offset(offset), PacketIdentifier(offset), Stage.SENT_QOS1)
        connection.sender.resend([entry])
        await asyncio.sleep(0)
    may_fetch.set()
    await world.settled()
    assert connection.got() == [b"2", b"1", b"3"]


async def test_who_lost_its_session_is_sent_nothing_again(
    world: World, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_fetch = held_up(world, monkeypatch)
    await leave_in_flight(world, *numbered(2))
    await connection.come_back()
    other = Connection(world)
    await other.come_back()
    may_fetch.set()
    await world.settled()
    assert (connection.got(), other.got()) == ([], texts(2))
    assert connection.sender.left == {}


@pytest.mark.parametrize("raised", [StoreCorrupt("checksum"), KeyError(1)])
async def test_who_cannot_be_sent_it_again_hears_of_that_and_gets_nothing_new(
    raised: Exception,
    world: World,
    connection: Connection,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """P8"""
    await leave_in_flight(world, *numbered(2))
    fetch = world.disk.fetch

    async def damaged(*_: object, **__: object) -> list[Message]:
        raise raised

    monkeypatch.setattr(world.disk, "fetch", damaged)
    await connection.come_back()
    await world.publish(*numbered(1, first=3))
    assert set(connection.errors) == {raised}
    assert connection.got() == []
    monkeypatch.setattr(world.disk, "fetch", fetch)
    connection.wake()
    await world.settled()
    assert connection.got() == texts(3)


# What is new


async def test_nothing_is_taken_where_nothing_waits(world: World, connection: Connection) -> None:
    await connection.open()
    assert connection.sender.take(world.log.time.aged_us()) is None


async def test_what_is_new_is_taken_in_parts_that_are_bounded_in_bytes(
    world: World, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P7"""
    monkeypatch.setattr("broker.delivery.sender.TAKE_BYTES_MAX", 2 * 300)
    connection.space = 0
    await connection.open()
    world.delivery.subscribe(connection.session, subscription())
    await world.settled()
    await world.publish(*[message(str(n), properties=bytes(99)) for n in range(5)])
    part = connection.sender.take(world.log.time.aged_us())
    assert part is not None
    assert len(part.outgoing) == 2


async def test_what_expired_is_counted_and_not_sent(world: World, connection: Connection) -> None:
    """P5, [MQTT-3.3.2-5]"""
    await connection.open()
    world.delivery.subscribe(connection.session, subscription())
    await world.settled()
    now_us = world.log.time.aged_us()
    expiring = [message(str(n), expires_at_us=now_us + n) for n in (0, 1)]
    await world.publish(*expiring, message("2", expires_at_us=now_us - 1))
    assert connection.got() == [b"1"]
    assert world.counters.dropped == {"expired": 2}
    await world.publish(message("3", expires_at_us=now_us))
    assert world.counters.dropped == {"expired": 3}


@pytest.mark.parametrize(("expiry_s", "stored"), [(100, 3), (0, None)])
async def test_that_qos_0_was_sent_is_committed_where_the_session_lasts(
    expiry_s: int, stored: int | None, world: World, connection: Connection
) -> None:
    """Nobody acknowledges it, and a crash must not repeat all of it."""
    await connection.open(expiry_s=expiry_s)
    world.delivery.subscribe(connection.session, subscription(qos=0))
    await world.publish(*numbered(3))
    await world.settled()
    assert connection.sent == [(b"1", 0), (b"2", 0), (b"3", 0)]
    cursor = await world.disk.get(CursorDocument, ("sub1",))
    assert (cursor and cursor.offset) == stored


async def test_that_qos_1_was_sent_is_not_committed(world: World, connection: Connection) -> None:
    """A crash repeats it anyhow, until it is acknowledged."""
    await connection.open()
    world.delivery.subscribe(connection.session, subscription())
    await world.publish(*numbered(3))
    await world.settled()
    assert len(connection.sent) == 3
    assert await world.disk.get(CursorDocument, ("sub1",)) is None


# The cursor


async def test_who_acknowledged_is_woken_when_the_cursor_is_committed(
    world: World, connection: Connection
) -> None:
    """P4: only then may more be in flight."""
    await connection.open()
    connection.sender.cursor_moved()
    assert connection.woken == 0
    await world.settled()
    assert connection.woken == 1


async def test_cursors_wait_for_company_while_room_is_left(
    world: World, connection: Connection
) -> None:
    """P4: a crash repeats what was acknowledged since, half of what may be in flight at most."""
    await connection.open()
    await world.settled()
    before, window = world.counters.commits, connection.session.in_flight

    async def committed(within_s: float) -> int:
        connection.sender.cursor_moved()
        await asyncio.sleep(0)
        world.clock.advance(within_s)
        for _ in range(5):
            await asyncio.sleep(0)
        return world.counters.commits - before

    window.repeatable.sent = window.inflight_max // 2 - 1
    assert await committed(CURSOR_COMMIT_DELAY_S) == 0
    window.repeatable.sent += 1
    assert await committed(CURSOR_COMMIT_DELAY_S) == 1
    assert connection.woken == 1


async def test_who_acknowledged_is_woken_also_when_the_disk_is_full(
    world: World, connection: Connection
) -> None:
    """No reason not to read."""
    await connection.open()
    world.delivery.subscribe(connection.session, subscription())
    await world.publish(*numbered(1))
    connection.woken = 0
    world.disk.full = True
    connection.session.in_flight.puback([1])
    connection.sender.cursor_moved()
    async with asyncio.timeout(PATIENCE_S):
        while not world.counters.append_failures:
            world.clock.advance(CURSOR_COMMIT_DELAY_S)
            await asyncio.sleep(0)
    assert connection.woken == 1


async def test_nobody_is_woken_when_the_log_has_failed(
    world: World, connection: Connection
) -> None:
    """P4: what a crash could repeat would grow without bound."""
    await connection.open()
    world.disk.broken = StoreUnavailable("lost")
    world.log.append(numbered(1))
    connection.sender.cursor_moved()
    for _ in range(20):
        await asyncio.sleep(0)
    assert isinstance(world.log.failure, StoreUnavailable)
    assert connection.woken == 0


async def test_the_cursor_of_a_session_that_does_not_last_is_no_matter_of_the_log(
    world: World, connection: Connection
) -> None:
    await connection.open(expiry_s=0)
    connection.sender.cursor_moved()
    await world.settled()
    assert (connection.woken, world.counters.commits) == (0, 0)


async def test_what_is_discarded_is_counted_and_makes_room(
    world: World, connection: Connection
) -> None:
    """P5"""
    await connection.open(receive_maximum=2)
    world.delivery.subscribe(connection.session, subscription(qos=2))
    await world.publish(message("1", qos=1), message("2", qos=2), message("3"), message("4"))
    assert connection.got() == texts(2)
    assert connection.sender.take(world.log.time.aged_us()) is None
    connection.sender.discard([1, 2], "too large")
    await world.settled()
    assert connection.got() == texts(4)
    assert world.counters.dropped == {"too large": 2}


async def test_what_was_left_and_has_a_control_character_is_given_up_and_counted(
    world: World, connection: Connection
) -> None:
    """P5. An older program accepted it and sent it."""
    await leave_in_flight(world, *numbered(4))
    world.disk.content.log[1].topic = "t/\x07"
    world.disk.content.log[2].properties = b"\x26\0\1k\0\1\n"
    await connection.come_back()
    assert connection.got() == [b"1", b"4"]
    reasons = {"control character in a topic": 1, "control character in a property": 1}
    assert world.counters.dropped == reasons
    assert len(connection.session.in_flight) == 2


async def test_what_was_left_and_is_damaged_is_given_up_and_counted(
    world: World, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P5, P8. The others are sent again."""
    await leave_in_flight(world, *numbered(4))
    fetch = world.disk.fetch

    async def damaged(offsets: Sequence[Offset], *, bytes_max: int) -> Read:
        read = await fetch(offsets, bytes_max=bytes_max)
        rest = [message for message in read.messages if message.offset not in (2, 3)]
        return Read(rest, read.next, [range(2, 4)])

    monkeypatch.setattr(world.disk, "fetch", damaged)
    await connection.come_back()
    assert connection.got() == [b"1", b"4"]
    assert world.counters.dropped == {"damaged": 2}
    assert [entry.offset for entry in connection.session.in_flight.unfinished()] == [1, 4]
