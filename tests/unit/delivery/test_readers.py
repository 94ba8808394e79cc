"""Readers, by what reaches a subscriber whose delivery they read for."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from broker.config import Config
from broker.delivery.delivery import Delivery
from broker.delivery.looks import READ_RETRY_S
from broker.delivery.readers import READ_BYTES_MAX, CatchUp
from broker.documents import SubscriptionDocument
from broker.errors import StoreCorrupt, StoreUnavailable
from broker.message import Message, Offset
from broker.session.served import Served
from broker.session.session import Session
from broker.store import Read
from broker.topics import REPLAY_ENDED
from tests.support.messages import message, numbered, texts
from tests.support.world import Disk, Subscriber, World, payloads, placed, running, subscription

# Behind


async def test_who_comes_back_gets_what_it_missed_and_then_goes_on_live(world: World) -> None:
    """P3"""
    sub = Subscriber(world)
    await sub.open()
    sub.subscribe(subscription())
    await world.publish(*numbered(2))
    await sub.acknowledge()
    sub.close()
    for first in range(3, 40, 4):
        await world.publish(*numbered(4, first=first))
    await sub.open()
    world.log.append(numbered(1, first=43))
    await world.settled()
    assert payloads(sub.got) == texts(43)
    assert world.is_live(sub)


@pytest.mark.parametrize("cursor_moved_over_it", [False, True])
async def test_who_was_handed_what_is_not_routed_yet_is_live_after_that(
    cursor_moved_over_it: bool, world: World
) -> None:
    """Or it would come again. (P9)"""
    feed = Routing(world)
    through = 5 if cursor_moved_over_it else 3
    session = Session("a", created_at_us=1, start=Offset(through), inflight_max=10)
    if not cursor_moved_over_it:
        session.standing.kept = Served(ranges=[range(5, 6)])
    reader = CatchUp(feed, session)
    await reader.run()
    assert feed.live_at == 5


class Routing(Delivery):
    """Has routed up to 3, and the next ones when somebody waits for that."""

    def __init__(self, world: World) -> None:
        super().__init__(world.log, world.counters, Config(), world.clock)
        self.live.through = Offset(3)
        self.live_at = Offset(0)

    async def routed(self, through: Offset) -> None:
        self.live.advance(through)

    async def read(
        self,
        session: Session,
        after: Offset,
        end: Offset,
        filters: object,
        counted: Offset,
        *,
        replay: bool = False,
    ) -> tuple[list[Message], Offset, list[range]]:
        return [], end, []

    def caught_up(self, session: Session) -> None:
        self.live_at = self.live.through


async def test_a_reader_that_is_behind_keeps_to_bytes_as_well(
    world: World, sub: Subscriber, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P7: a window of large messages must not be all of them."""
    monkeypatch.setattr("broker.delivery.readers.READ_MESSAGES_MAX", 1000)
    monkeypatch.setattr("broker.delivery.retained.READ_MESSAGES_MAX", 1000)
    monkeypatch.setattr("broker.delivery.readers.READ_BYTES_MAX", 1000)
    sub.limit = 0
    for n in range(100):
        await world.publish(message(str(n).encode().ljust(40), properties=bytes(60)))
    assert len(placed(sub).outbox) <= 20
    assert placed(sub).outbox.size == sum(m.cost for m, _ in placed(sub).outbox)


async def test_a_damaged_log_breaks_the_session_that_comes_to_it_and_no_other(
    world: World, sub: Subscriber, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P8"""
    await world.settled()
    absent = Subscriber(world)
    await absent.open("sub2")
    absent.subscribe(subscription(client_id="sub2"))
    absent.close()
    await world.publish(*numbered(9))
    await world.publish(*numbered(1, first=10))

    async def damaged(*args: object, **kwargs: object) -> Read:
        raise StoreCorrupt("checksum")

    monkeypatch.setattr(world.disk, "read", damaged)
    await absent.open("sub2")
    await world.publish(*numbered(1, first=11))
    assert [str(error) for error in absent.errors] == ["checksum"]
    assert payloads(sub.got) == texts(11)


async def test_a_read_that_is_not_possible_now_is_tried_again_in_a_moment(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.publish(*numbered(20))
    read, reads = world.disk.read, 0

    async def at_last(*args: Any, **kwargs: Any) -> Read:
        nonlocal reads
        reads += 1
        if reads < 3:
            raise StoreUnavailable("busy")
        return await read(*args, **kwargs)

    monkeypatch.setattr(world.disk, "read", at_last)
    sub = Subscriber(world)
    await sub.open()
    sub.subscribe(subscription(replaying=True))
    for tried in (1, 2):
        await world.settled()
        assert (reads, sub.got) == (tried, [])
        world.clock.advance(READ_RETRY_S)
    await world.settled()
    assert payloads(sub.got) == texts(20)
    assert sub.errors == []


async def test_one_reader_of_a_session_looks_into_the_log_at_a_time(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many filters it replays: other sessions have their turns between."""
    await world.publish(*[message("x", f"t/{n}") for n in range(20)])
    read, looking, most = world.disk.read, Counter[int](), Counter[int]()

    async def counted(start: Offset, end: Offset, filters: list[str], **kwargs: Any) -> Read:
        who = int(filters[0][-1]) % 2  # Even topics are replayed by one session, odd by the other.
        looking[who] += 1
        most[who] = max(most[who], looking[who])
        most[2] = max(most[2], looking.total())
        await asyncio.sleep(0)
        looking[who] -= 1
        return await read(start, end, filters, **kwargs)

    monkeypatch.setattr(world.disk, "read", counted)
    subscribers = Subscriber(world), Subscriber(world)
    for i, subscriber in enumerate(subscribers):
        await subscriber.open(f"sub{i}")
        for n in range(i, 20, 2):
            subscriber.subscribe(subscription(f"t/{n}", client_id=f"sub{i}", replaying=True))
    await world.settled()
    for _ in range(50):
        await world.settled()
    assert [len(subscriber.got) for subscriber in subscribers] == [10, 10]
    assert most == {0: 1, 1: 1, 2: 2}


# Replays


@pytest.mark.parametrize("window", [1, 100])
async def test_a_replay_is_followed_by_live_messages_without_a_gap_or_a_repeat(
    world: World, window: int
) -> None:
    await world.publish(*numbered(20), message("other", "other"))
    sub = Subscriber(world)
    await sub.open(receive_maximum=window)
    sub.subscribe(subscription(start=5, replaying=True))
    for n in range(21, 60):
        world.log.append(numbered(1, first=n))
        await sub.acknowledge()
    while sub.packet_ids:
        await sub.acknowledge()
    assert payloads(sub.got) == texts(54, first=6)
    assert not placed(sub).subscriptions["t"].replaying
    await world.publish(message("end"))
    assert payloads(sub.got)[-1:] == [b"end"]


async def test_a_replay_with_an_end_stops_there_and_says_so(world: World) -> None:
    await world.publish(*numbered(30))
    sub = Subscriber(world)
    await sub.open()
    sub.subscribe(subscription(start=10, until=20, replaying=True))
    await world.settled()
    *history, (notice, grant) = sub.got
    assert payloads(history) == texts(10, first=11)
    assert (notice.topic, notice.payload, grant.qos) == (REPLAY_ENDED, b"t", 0)
    await world.publish(message("live"))
    assert len(sub.got) == 11
    assert placed(sub).subscriptions == {}
    assert await world.disk.scan(SubscriptionDocument) == []


async def test_what_a_replay_left_in_flight_when_it_joined_is_stored_with_that() -> None:
    """Or a crash right after would lose it: nobody else owes it. (P3)"""
    disk = Disk()
    async with running(disk) as world:
        await world.publish(*numbered(3))
        sub = Subscriber(world, limit=0)
        await sub.open()
        sub.subscribe(subscription(replaying=True))
        await world.settled()
        sub.limit = 1 << 20
        sub.wake()
        await world.settled()
        [joined] = await disk.scan(SubscriptionDocument)
        assert (joined.replaying, joined.start_offset) == (False, 3)
    async with running(disk) as world:
        again = Subscriber(world, limit=0)
        await again.open()
        assert [entry.offset for entry in placed(again).in_flight.unfinished()] == [1, 2, 3]


async def test_who_leaves_in_a_replay_goes_on_there_and_gets_nothing_twice() -> None:
    """P4"""
    async with running(Disk()) as world:
        await world.publish(*numbered(20))
        sub = Subscriber(world, limit=1)
        await sub.open(receive_maximum=3)
        sub.subscribe(subscription(start=5, replaying=True))
        await world.settled()
        await sub.acknowledge()
        sub.close()
        await world.settled()
        await sub.open()
        await world.settled()
        while sub.packet_ids:
            await sub.acknowledge()
    assert payloads(sub.got) == texts(15, first=6)


async def test_a_replay_goes_on_after_what_it_did_not_match(world: World) -> None:
    """Or each connection would read all of that again."""
    await world.publish(*numbered(6, "other"))
    await world.publish(message("wanted"))
    sub = Subscriber(world, limit=0)
    await sub.open()
    sub.subscribe(subscription(replaying=True))
    await world.settled()
    sub.close()
    await world.settled()
    [stored] = await world.disk.scan(SubscriptionDocument)
    assert (stored.replaying, stored.start_offset) == (True, 6)


# Retained messages


async def _keep(world: World, count: int, *, qos: int = 1) -> None:
    """Retained messages: one on each topic."""
    await world.publish(
        *[message(str(n), f"kept/{n}", qos=qos, retain=True) for n in range(1, count + 1)]
    )


def _subscribe(world: World, to: Subscriber, qos: int = 1) -> None:
    through = world.disk.high_watermark
    to.subscribe(subscription("kept/+", qos, start=through, retained_through=through))
    world.delivery.send_retained(placed(to))


async def test_what_waits_of_retained_messages_when_the_client_leaves_comes_when_it_is_back() -> (
    None
):
    """P3, P4: each once, then what was published meanwhile."""
    async with running(Disk()) as world:
        await _keep(world, 9)
        sub = Subscriber(world, limit=1)
        await sub.open(receive_maximum=3)
        _subscribe(world, sub)
        await world.settled()
        assert payloads(sub.got) == texts(3)
        await sub.acknowledge()
        sub.close()
        await world.publish(message("10", "kept/1", retain=True))
        await sub.open()
        await world.settled()
        assert payloads(sub.got) == texts(10)
        await sub.acknowledge()
        sub.close()
        await world.settled()
        await sub.open()
        await world.settled()
        assert len(sub.got) == 10


@pytest.mark.parametrize("taken", [0, 4])
async def test_a_crash_loses_no_retained_message_and_repeats_none_of_qos_2(taken: int) -> None:
    """P3"""
    disk = Disk()
    async with running(disk) as world:
        await _keep(world, 9, qos=2)
        sub = Subscriber(world, limit=1 if taken else 0)
        await sub.open(receive_maximum=taken or 1)
        _subscribe(world, sub, qos=2)
        await world.settled()
        world.log.changed(placed(sub), lambda error: None)
        await world.settled()
        assert payloads(sub.got) == texts(taken)
    async with running(disk) as world:
        again = Subscriber(world)
        await again.open()
        await world.settled()
        assert [entry.offset for entry in placed(again).in_flight.unfinished()] == [*range(1, 10)]
        assert payloads(again.got) == texts(9 - taken, first=1 + taken)


async def test_a_slow_client_has_few_retained_messages_wait_for_it(world: World) -> None:
    """P7: no more than were read at a time. All come when it takes them, and then what is newer."""
    size = READ_BYTES_MAX // 4
    await world.publish(*[message(bytes([n]) * size, f"kept/{n}", retain=True) for n in range(10)])
    sub = Subscriber(world, limit=0)
    await sub.open()
    _subscribe(world, sub)
    await world.settled()
    assert len(placed(sub).owed.waiting) == 4
    await world.publish(message(b"\x0a", "kept/9", retain=True))
    sub.limit = size
    sub.wake()
    assert len(sub.got) == 4
    await world.settled()
    assert [payload[0] for payload in payloads(sub.got)] == [*range(11)]
    assert placed(sub).owed.subscriptions() == []


async def test_what_is_removed_while_retained_messages_are_handed_on_is_passed_over(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("broker.delivery.readers.READ_MESSAGES_MAX", 2)
    monkeypatch.setattr("broker.delivery.retained.READ_MESSAGES_MAX", 2)
    await _keep(world, 6)
    sub = Subscriber(world, limit=0)
    await sub.open()
    _subscribe(world, sub)
    await world.settled()
    await world.publish(*[message("", f"kept/{n}", retain=True) for n in (3, 4, 5)])
    await world.disk.trim(world.disk.high_watermark)
    sub.limit = 1 << 20
    sub.wake()
    await world.settled()
    retained = [message.payload for message, grant in sub.got if grant.retained]
    assert retained == [b"1", b"2", b"6"]
    assert placed(sub).owed.subscriptions() == []


async def test_what_was_taken_of_retained_messages_is_not_read_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await _keep(world, 5)
    sub = Subscriber(world, limit=1)
    await sub.open(receive_maximum=3)
    _subscribe(world, sub)
    await world.settled()
    sub.close()
    read: list[Offset] = []
    fetch = world.disk.fetch

    async def noting(offsets: Sequence[Offset], *, bytes_max: int) -> Read:
        read.extend(offsets)
        return await fetch(offsets, bytes_max=bytes_max)

    monkeypatch.setattr(world.disk, "fetch", noting)
    await sub.open()
    await world.settled()
    assert read == [4, 5]


async def test_subscriptions_made_together_get_all_that_is_retained(world: World) -> None:
    """The second is made while the messages of the first are read."""
    await _keep(world, 3)
    await world.publish(message("a", "a", retain=True))
    sub = Subscriber(world)
    await sub.open()
    _subscribe(world, sub)
    sub.subscribe(subscription("a", start=4, retained_through=4))
    world.delivery.send_retained(placed(sub))
    await world.settled()
    assert payloads(sub.got) == [*texts(3), b"a"]


# What is missing


def told(sub: Subscriber) -> list[tuple[bytes, tuple[range, ...]]]:
    return [(message.payload, grant.missing) for message, grant in sub.got if grant.missing]


async def test_what_is_damaged_is_skipped_counted_and_told_with_the_next_message(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P5, P8"""
    absent = Subscriber(world)
    await absent.open()
    absent.subscribe(subscription())
    await world.settled()
    absent.close()
    await world.publish(*numbered(30))
    read = world.disk.read

    async def damaged(start: Offset, *args: Any, **kwargs: Any) -> Read:
        found = await read(start, *args, **kwargs)
        rest = [message for message in found.messages if message.offset not in (5, 29, 30)]
        parts = [part for part in (range(5, 6), range(29, 31)) if start <= part[0] < found.next]
        return Read(rest, found.next, parts)

    monkeypatch.setattr(world.disk, "read", damaged)
    await absent.open()
    await world.settled()
    assert payloads(absent.got) == [b"%d" % n for n in range(1, 29) if n != 5]
    assert absent.errors == []
    await world.publish(*numbered(1, first=31))
    assert told(absent) == [(b"6", (range(5, 6),)), (b"31", (range(29, 31),))]
    assert world.counters.dropped["damaged"] == 3


async def test_what_retention_removed_is_told_and_nobody_reads_for_ever(world: World) -> None:
    """P5"""
    absent = Subscriber(world)
    await absent.open()
    absent.subscribe(subscription())
    await world.settled()
    absent.close()
    await world.publish(*numbered(30))
    await world.disk.trim(Offset(11))
    await absent.open()
    await world.settled()
    assert payloads(absent.got) == [b"%d" % n for n in range(11, 31)]
    assert told(absent) == [(b"11", (range(1, 11),))]
    assert world.counters.dropped["removed by retention"] == 10
    assert world.is_live(absent)


# What an older program accepted


WITHHELD = [
    message("bell", "t/\x07"),
    message("non-character", "t/\U0010ffff"),
    replace(message("newline"), properties=b"\x26\0\1k\0\1v\x26\0\1k\0\1\n"),
    replace(message("key"), properties=b"\x01\x01\x26\0\1\x1f\0\0"),
    replace(message("content type"), properties=b"\x03\0\2\xc2\x85"),
    replace(message("response topic"), properties=b"\x09\0\1x\x08\0\1\x7f"),
]
GOOD = [
    message("first", "t/a"),
    replace(message("last", "t/a\u00ad"), properties=b"\x01\x01\x09\0\2\n\0\x26\0\1k\0\2\xc3\xa4"),
]
WITHHELD_FOR = {"control character in a topic": 2, "control character in a property": 4}


@pytest.mark.parametrize("replaying", [False, True])
async def test_what_has_control_characters_in_its_texts_goes_to_nobody_and_is_counted(
    world: World, replaying: bool
) -> None:
    """P5. The rest comes, and the place of the subscriber passes it."""
    sub = Subscriber(world)
    await sub.open()
    if not replaying:
        sub.subscribe(subscription("#"))
    await world.settled()
    sub.close()
    await world.disk.append([GOOD[0], *WITHHELD, GOOD[1]])
    await world.publish(*numbered(20))
    await sub.open()
    if replaying:
        sub.subscribe(subscription("t/#", replaying=True))
    await world.settled()
    assert payloads(sub.got)[:2] == [b"first", b"last"]
    assert +world.counters.dropped == WITHHELD_FOR
    assert world.is_live(sub)


async def test_a_retained_message_with_a_control_character_does_not_block_the_others(
    world: World,
) -> None:
    kept = [
        replace(each, retain=True, topic=f"{n}/{each.topic}")
        for n, each in enumerate((GOOD[0], *WITHHELD, message("u", "u")))
    ]
    await world.disk.append(kept)
    await world.settled()
    sub = Subscriber(world)
    await sub.open()
    sub.subscribe(subscription("#", start=9, retained_through=9))
    world.delivery.send_retained(placed(sub))
    await world.settled()
    assert payloads(sub.got) == [b"first", b"u"]
    assert +world.counters.dropped == WITHHELD_FOR


# More of what is missing


def without(world: World, monkeypatch: pytest.MonkeyPatch, *parts: range) -> None:
    """These offsets cannot be read."""
    read, fetch = world.disk.read, world.disk.fetch

    def damaged(found: Read, start: int) -> Read:
        rest = [m for m in found.messages if not any(m.offset in part for part in parts)]
        here = [part for part in parts if start <= part.start < found.next]
        return Read(rest, found.next, here)

    async def damaged_read(start: Offset, *args: Any, **kwargs: Any) -> Read:
        return damaged(await read(start, *args, **kwargs), start)

    async def damaged_fetch(offsets: Sequence[Offset], **kwargs: Any) -> Read:
        return damaged(await fetch(offsets, **kwargs), offsets[0])

    monkeypatch.setattr(world.disk, "read", damaged_read)
    monkeypatch.setattr(world.disk, "fetch", damaged_fetch)


async def test_a_replay_tells_what_is_missing_and_goes_on_live(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P5. What is missing at its end is told by the first live message."""
    await world.publish(*numbered(20))
    without(world, monkeypatch, range(5, 8), range(20, 21))
    sub = Subscriber(world)
    await sub.open()
    sub.subscribe(subscription(replaying=True))
    await world.settled()
    assert payloads(sub.got) == [b"%d" % n for n in range(1, 20) if n not in (5, 6, 7)]
    assert told(sub) == [(b"8", (range(5, 8),))]
    await world.publish(*numbered(1, first=21))
    assert told(sub)[1:] == [(b"21", (range(20, 21),))]
    assert world.counters.dropped["damaged"] == 4


async def test_a_replay_with_an_end_tells_what_is_missing_there_with_its_end(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.publish(*numbered(20))
    without(world, monkeypatch, range(9, 11))
    sub = Subscriber(world)
    await sub.open()
    sub.subscribe(subscription(replaying=True, until=10))
    await world.settled()
    message, grant = sub.got[-1]
    assert payloads(sub.got)[:-1] == texts(8)
    assert (message.topic, grant.missing) == (REPLAY_ENDED, (range(9, 11),))


async def test_a_retained_message_that_has_expired_is_neither_sent_nor_counted(
    world: World,
) -> None:
    """It was not dropped: it is not retained any more, whoever subscribes."""
    now_us = world.log.time.aged_us()
    await world.publish(
        message("old", "a", retain=True, expires_at_us=now_us),
        message("new", "b", retain=True, expires_at_us=now_us + 1),
    )
    sub = Subscriber(world)
    await sub.open()
    sub.subscribe(subscription("#", start=2, retained_through=2))
    world.delivery.send_retained(placed(sub))
    await world.settled()
    assert payloads(sub.got) == [b"new"]
    assert world.counters.dropped == {}


async def test_a_damaged_retained_message_is_counted_and_the_others_come(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P5, P8"""
    await world.publish(*[message(str(n), f"t/{n}", retain=True) for n in (1, 2, 3)])
    without(world, monkeypatch, range(2, 3))
    sub = Subscriber(world)
    await sub.open()
    sub.subscribe(subscription("t/+", start=3, retained_through=3))
    world.delivery.send_retained(placed(sub))
    await world.settled()
    assert payloads(sub.got) == [b"1", b"3"]
    assert world.counters.dropped == {"damaged": 1}
    assert placed(sub).subscriptions["t/+"].retained_after == 3


async def test_who_cannot_be_told_what_is_retained_gets_all_else(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """P5: or it would be cut off at each subscription."""

    async def damaged(*_: object) -> list[Offset]:
        raise StoreCorrupt("malformed")

    await world.publish(message("kept", "t/1", retain=True))
    monkeypatch.setattr(world.disk, "retained", damaged)
    sub = Subscriber(world)
    await sub.open()
    sub.subscribe(subscription("t/+", start=1, retained_through=1))
    world.delivery.send_retained(placed(sub))
    await world.publish(message("live", "t/1"))
    assert payloads(sub.got) == [b"live"]
    assert sub.errors == []
    assert "'sub1' gets nothing retained: malformed" in caplog.text
    assert world.counters.dropped == {"damaged": 1}
