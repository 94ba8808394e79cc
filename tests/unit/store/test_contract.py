"""The clauses of `broker/store/__init__.py`, asked of every store."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from broker.documents import (
    CursorDocument,
    Delete,
    Document,
    InFlightDocument,
    Operation,
    Place,
    Put,
    ReceivedQos2Document,
    SessionDocument,
    SubscriptionDocument,
    WillDocument,
)
from broker.documents.queues import DeadLetterDocument, GroupDocument, RetryDocument
from broker.errors import StoreConflict, StoreUnavailable
from broker.message import NOT_STORED, AgedUs, Message, Offset, ServedUs, WallUs
from broker.store import PART_MAX, Amount, Skipped, Store, Stretch
from broker.store.removing import Cut, Order, Owed, updated
from broker.topics import matches
from tests.support.messages import message, numbered
from tests.support.patience import PATIENCE_S
from tests.support.stores import END, payloads, read_all, retained, tail_until


def session(client_id: str = "sub1", expiry_s: int = 60) -> SessionDocument:
    return SessionDocument(client_id, expiry_s, created_at_us=1, expires_at_us=None)


def subscription(client_id: str = "sub1", filter: str = "weather") -> SubscriptionDocument:
    return SubscriptionDocument(
        client_id,
        filter,
        qos=1,
        no_local=True,
        retain_as_published=False,
        retain_handling=2,
        subscription_id=7,
        start_offset=Offset(3),
        metadata=True,
        retained_after=Offset(1),
        retained_through=Offset(2),
    )


def cursor(client_id: str = "sub1", offset: int = 5) -> CursorDocument:
    return CursorDocument(client_id, Offset(offset), Offset(offset), 1, b"\x00\xff")


class At:
    """Where the messages of one append lie: `at(1)` is the offset of the first. So `at(0)` is right
    before them, and of ten messages `at(11)` is right behind them."""

    def __init__(self, batch: Sequence[Message]) -> None:
        self._before = batch[0].offset - 1

    def __call__(self, number: int) -> Offset:
        return Offset(self._before + number)

    def all(self, *numbers: int) -> list[Offset]:
        return [self(number) for number in numbers]

    def numbers(self, messages: Sequence[Message]) -> list[int]:
        return [message.offset - self._before for message in messages]


async def appended(store: Store, batch: Sequence[Message], *state: Operation) -> At:
    await store.append(batch, state)
    return At(batch)


# S1: append


async def test_nothing_can_be_appended_durably(store: Store) -> None:
    """What was committed before is fsynced with it."""
    batch = numbered(2)
    await store.append(batch, [Put(session())], durable=False)
    await store.append((), ())
    await store.append((), (), durable=False)
    assert (store.log_start, store.high_watermark) == (1, batch[-1].offset)


async def test_append_sets_offsets_in_order(store: Store) -> None:
    batch = numbered(1300)
    await store.append(batch)
    offsets = [m.offset for m in batch]
    assert offsets == sorted(set(offsets))
    assert offsets[0] > 0
    assert store.high_watermark == offsets[-1]


async def test_messages_and_state_are_there_after_one_append(store: Store) -> None:
    await store.append([message("a")], [Put(session()), Put(cursor())])
    assert payloads(await read_all(store)) == [b"a"]
    assert await store.get(CursorDocument, ("sub1",)) == cursor()


async def test_a_conflict_undoes_the_whole_append(store: Store) -> None:
    await store.append([message("kept", topic="old")], [Put(session())])
    refused = [message("gone", topic="new", retain=True)]
    with pytest.raises(StoreConflict):
        await store.append(
            refused, [Put(cursor()), Delete(SessionDocument, ("x",)), Put(session(), revision=9)]
        )
    assert refused[0].offset == NOT_STORED
    assert await store.get(CursorDocument, ("sub1",)) is None
    assert await retained(store, ["#"]) == []

    await store.append([message("after", topic="new")])
    assert [(m.topic, m.payload) for m in await read_all(store)] == [
        ("old", b"kept"),
        ("new", b"after"),
    ]
    assert payloads(await read_all(store, ["new"])) == [b"after"]


async def test_an_append_of_nothing_changes_nothing(store: Store) -> None:
    await store.append([])
    assert store.high_watermark == 0
    assert (await store.read(Offset(1), END)).messages == []


async def test_a_cancelled_append_is_committed_whole_or_not_at_all(store: Store) -> None:
    seen: list[bytes] = []

    async def read() -> None:
        async for part in store.tail(Offset(1)):
            assert not isinstance(part, Skipped)
            seen.extend(payloads(part))
            if part[-1].payload == b"last":
                return

    reading = asyncio.create_task(read())
    appending = asyncio.create_task(store.append(numbered(2)))
    await asyncio.sleep(0)
    appending.cancel()
    await asyncio.gather(appending, return_exceptions=True)
    last = message("last")
    await store.append([last])
    assert last.offset == store.high_watermark
    await reading
    assert seen == payloads(await read_all(store))
    assert seen in ([b"1", b"2", b"last"], [b"last"])


# S2: offsets


async def test_offsets_are_not_reused_after_trim_removed_everything(store: Store) -> None:
    await store.append(numbered(10))
    high_watermark = store.high_watermark
    assert await store.trim(Offset(high_watermark + 1)) == 10
    assert store.high_watermark == high_watermark
    assert store.log_start == high_watermark + 1
    await store.close()
    await store.open()
    assert store.high_watermark == high_watermark
    assert store.log_start == high_watermark + 1
    later = message()
    await store.append([later])
    assert later.offset > high_watermark


async def test_a_store_that_is_opened_again_goes_on(store: Store) -> None:
    batch = numbered(3)
    await store.append(batch, [Put(session())])
    await store.close()
    await store.open()
    assert store.high_watermark == batch[-1].offset
    assert await read_all(store) == batch
    assert await store.get(SessionDocument, ("sub1",)) == session()
    more = message()
    await store.append([more])
    assert more.offset > batch[-1].offset


# S3: tail


async def test_tail_yields_history_then_live_without_gap_or_repeat(store: Store) -> None:
    written = numbered(2500)
    await store.append(written[:1500])
    seen = asyncio.create_task(tail_until(store, 1, 2500))
    for i in range(1500, 2500, 10):
        await store.append(written[i : i + 10])
    assert await seen == written


async def test_whoever_appends_hears_of_it_before_tail_gives_it(store: Store) -> None:
    """Delivery must know which of it was delivered already."""
    heard: list[str] = []

    async def append() -> None:
        await store.append([message()])
        heard.append("append")

    async def read() -> None:
        async for _ in store.tail(Offset(1)):
            heard.append("tail")
            return

    reading = asyncio.create_task(read())
    await asyncio.sleep(0)
    await asyncio.create_task(append())
    await reading
    assert heard == ["append", "tail"]


async def test_tail_begins_at_its_start(store: Store) -> None:
    written = numbered(5)
    at = await appended(store, written[:4])
    seen = asyncio.create_task(tail_until(store, at(3), at(5)))
    await store.append(written[4:])
    assert await seen == written[2:]


async def test_tail_waits_for_what_is_not_there_yet(store: Store) -> None:
    seen = asyncio.create_task(tail_until(store, 1, 1))
    await store.append([], [Put(session())])
    assert not seen.done()
    only = message()
    await store.append([only])
    assert await seen == [only]


async def test_a_slow_reader_of_tail_misses_nothing(store: Store) -> None:
    big = bytes(100_000)
    written: list[Message] = []
    seen: list[Message] = []
    batches = store.tail(Offset(1))
    for i in range(30):
        batch = [message(big + bytes([i, j])) for j in range(5)]
        written += batch
        await store.append(batch)
        if i == 2:
            first = await anext(batches)
            assert not isinstance(first, Skipped)
            seen += first
    while len(seen) < len(written):
        batch_or_skipped = await anext(batches)
        assert not isinstance(batch_or_skipped, Skipped)
        seen += batch_or_skipped
    assert seen == written


async def test_tail_says_what_trim_took_from_it(store: Store) -> None:
    written = numbered(10)
    at = await appended(store, written)
    await store.trim(at(5))
    assert await tail_until(store, at(2), at(10)) == [Skipped(at(2), at(4)), *written[4:]]


async def test_tail_says_nothing_of_what_trim_took_behind_it(store: Store) -> None:
    written = numbered(10)
    at = await appended(store, written)
    await store.trim(at(5))
    assert await tail_until(store, at(5), at(10)) == written[4:]


async def test_two_readers_of_tail_get_the_same(store: Store) -> None:
    readers = [asyncio.create_task(tail_until(store, 1, 3)) for _ in range(2)]
    written = numbered(3)
    for m in written:
        await store.append([m])
    assert [await reader for reader in readers] == [written, written]


async def test_tail_ends_when_the_store_is_closed(store: Store) -> None:
    seen: list[Message] = []
    arrived = asyncio.Event()

    async def read_to_the_end() -> None:
        async for batch in store.tail(Offset(1)):
            assert not isinstance(batch, Skipped)
            seen.extend(batch)
            arrived.set()

    async with asyncio.timeout(PATIENCE_S):
        reading = asyncio.create_task(read_to_the_end())
        await store.append(numbered(3))
        await arrived.wait()
        await store.close()
        await reading
    assert payloads(seen) == [b"1", b"2", b"3"]


# S4: read


async def test_read_begins_and_ends_where_it_is_told(store: Store) -> None:
    at = await appended(store, numbered(10))
    read = await store.read(at(3), at(5))
    assert payloads(read.messages) == [b"3", b"4", b"5"]
    assert read.next == at(6)


@pytest.mark.parametrize("properties", [0, 60])
@pytest.mark.parametrize("filters", [None, ["#"], ["t"]])
async def test_read_stops_at_its_limits(
    store: Store, filters: list[str] | None, properties: int
) -> None:
    """P7: of payload and properties together."""
    batch = [message(bytes(100 - properties), properties=bytes(properties)) for _ in range(10)]
    at = await appended(store, batch)
    by_count = await store.read(Offset(1), END, filters, limit=4)
    assert at.numbers(by_count.messages) == [1, 2, 3, 4]
    assert by_count.next == at(5)
    by_size = await store.read(Offset(1), END, filters, bytes_max=250)
    assert len(by_size.messages) == 3
    assert by_size.next == at(4)
    at_least_one = await store.read(at(9), END, filters, bytes_max=1)
    assert at.numbers(at_least_one.messages) == [9]
    assert at_least_one.next == at(10)


async def test_messages_far_apart_count_together(store: Store) -> None:
    for _ in range(3):
        await store.append([message("heavy", "rare", properties=bytes(95)), *numbered(2500)])
    read = await store.read(Offset(1), END, ["rare"], bytes_max=200)
    assert len(read.messages) == 2


async def test_read_beyond_the_end_finds_nothing(store: Store) -> None:
    at = await appended(store, numbered(3))
    assert await store.read(at(4), END) == (await store.read(at(4), END, ["t"]))
    assert (await store.read(at(4), END)).messages == []
    assert (await store.read(Offset(1), END)).next == at(4)
    assert (await store.read(Offset(1), END, ["nothing/of/it"])).next == at(4)


async def test_read_by_filter_finds_a_rare_topic_far_away(store: Store) -> None:
    rare = [message(f"r{i}", "rare") for i in range(3)]
    await store.append([*numbered(3000), rare[0], *numbered(6000), rare[1], rare[2]])
    assert await read_all(store, ["rare"]) == rare
    assert await read_all(store, ["none"]) == []


async def test_wildcards_are_matched_as_topics_say(store: Store) -> None:
    names = ["a", "a/b", "a/b/c", "a/x/c", "b", "ab", "$SYS/a", "/a", "ä/b"]
    await store.append([message(name, name) for name in names])

    async def found(*filters: str) -> set[str]:
        return {m.topic for m in await read_all(store, filters)}

    assert await found("#") == set(names) - {"$SYS/a"}
    assert await found("a/#") == {"a", "a/b", "a/b/c", "a/x/c"}
    assert await found("a/+/c", "b") == {"a/b/c", "a/x/c", "b"}
    assert await found("+/b", "$SYS/#") == {"a/b", "ä/b", "$SYS/a"}
    assert await found("+/a", "a") == {"/a", "a"}


async def test_a_filter_matches_topics_that_are_new_since_it_was_last_read(store: Store) -> None:
    await store.append([message("1", "a/1")])
    for _ in range(4):  # Whichever of its readers a store uses, it has seen these filters.
        assert payloads(await read_all(store, ["a/+", "b"])) == [b"1"]
    await store.append([message("2", "a/2"), message("3", "b"), message("4", "c")])
    assert payloads(await read_all(store, ["a/+", "b"])) == [b"1", b"2", b"3"]


async def test_reading_by_any_filters_equals_filtering_everything(store: Store) -> None:
    """Against the definition, with topics dense, sparse and many, and limits that cut anywhere."""
    random_ = random.Random(4)
    topics = [f"dev/{i}/t" for i in range(60)] + [f"dev/{i}/h" for i in range(60)] + ["bulk"]
    weights = [1] * 60 + [1] * 60 + [3000]
    written = [
        message(str(i), topic) for i, topic in enumerate(random_.choices(topics, weights, k=9000))
    ]
    at = await appended(store, written)
    for filters in (["dev/+/t"], ["dev/3/t", "dev/4/h"], ["bulk", "dev/#"], ["dev/#", "dev/1/t"]):
        from broker.topics import matches

        wanted = [m for m in written if any(matches(f, m.topic) for f in filters)]
        assert await read_all(store, filters) == wanted
        count = random_.randrange(1, len(wanted))
        assert await store.nth_last(filters, count) == wanted[-count].offset
        middle = await store.read(at(2000), at(7000), filters, limit=10_000)
        while middle.next <= at(7000):
            more = await store.read(middle.next, at(7000), filters, limit=10_000)
            middle = replace(more, messages=middle.messages + more.messages)
        assert middle.messages == [m for m in wanted if at(2000) <= m.offset <= at(7000)]
        assert await store.count(filters, at(2000), at(7000)) == (len(middle.messages), at(7001))


async def test_fetch_finds_exactly_what_is_still_there(store: Store) -> None:
    batch = [message("0"), message("1", retain=True), message("2"), message("3"), message("4")]
    await store.append(batch)
    wanted = [batch[i].offset for i in (4, 1, 2)]
    assert payloads((await store.fetch(wanted)).messages) == [b"1", b"2", b"4"]
    await store.trim(batch[3].offset)
    assert payloads((await store.fetch(wanted)).messages) == [b"1", b"4"]
    assert (await store.fetch([])).messages == []


async def test_fetch_stops_at_a_number_of_bytes_but_finds_one_at_least(store: Store) -> None:
    """P7"""
    batch = [message(str(n), properties=bytes(99)) for n in range(4)]
    await store.append(batch)
    wanted = [m.offset for m in batch]
    assert payloads((await store.fetch(wanted, bytes_max=200)).messages) == [b"0", b"1"]
    assert payloads((await store.fetch(wanted[2:], bytes_max=1)).messages) == [b"2"]


async def test_offset_at_finds_the_first_at_or_after_a_time(store: Store) -> None:
    at = await appended(store, [message(at=t) for t in (100, 100, 200, 300)])
    found = [await store.offset_at(t) for t in (0, 100, 101, 300, 301)]
    assert found == at.all(1, 1, 3, 4, 5)


async def test_offset_at_does_not_look_below_the_log_start(store: Store) -> None:
    at = await appended(store, [message("x", at=t, retain=t == 100) for t in (100, 200, 300)])
    await store.trim(at(3))
    assert await store.offset_at(0) == at(3)


async def test_last_before_finds_the_last_before_a_time(store: Store) -> None:
    assert await store.last_before(100) == 0
    at = await appended(store, [message(at=t) for t in (100, 100, 200, 300)])
    assert await store.last_before(100) == 0
    found = [await store.last_before(t) for t in (101, 200, 201, 301)]
    assert found == at.all(2, 2, 3, 4)
    await store.trim(at(3))
    assert await store.last_before(200) == at(2)


async def test_times_are_found_also_where_the_clock_was_set_back(store: Store) -> None:
    """It is ahead for 50 messages, and later for 2,000; then far behind for 10."""
    ahead = [*range(5000), *range(8600, 8650), *range(5000, 6000), *range(7000, 9000)]
    times = [*ahead, *range(6000, 9500), *range(10), *range(9500, 12_000)]
    offsets: list[int] = []
    for start in range(0, len(times), 997):
        batch = [message(at=t) for t in times[start : start + 997]]
        await store.append(batch)
        offsets += [m.offset for m in batch]
    offsets.append(offsets[-1] + 1)
    for time_us in (*range(0, 9500, 131), 5, 10, 4999, 5000, 8600, 8649, 8650, 9000, 12_000):
        first = next((n for n, t in enumerate(times, 1) if t >= time_us), len(times) + 1)
        assert await store.offset_at(time_us) == offsets[first - 1], time_us
        if time_us <= 6000 or time_us > 8000:
            # What was published while it was behind may be left out, and is not to be reached.
            earlier = [
                n for n, t in enumerate(times, 1) if t < time_us and not 11_550 < n <= 11_560
            ]
            found = await store.last_before(time_us)
            last = offsets.index(found) + 1 if found else 0
            assert last in (earlier[-1] if earlier else 0, min(11_550 + time_us, 11_560)), time_us


async def test_nth_last_counts_matching_messages_from_the_end(store: Store) -> None:
    batch = numbered(3000, lambda i: "rare" if i in (5, 2900) else "bulk")
    at = await appended(store, batch)
    assert [await store.nth_last(None, n) for n in (1, 2000, 0)] == at.all(3000, 1001, 3001)
    assert [await store.nth_last(["rare"], n) for n in (1, 2)] == at.all(2900, 5)
    assert await store.nth_last(["rare"], 3) == store.log_start
    assert await store.nth_last(None, 4000) == store.log_start


async def test_count_is_of_what_is_in_the_log_by_now(store: Store) -> None:
    at = await appended(store, numbered(5000, lambda i: "rare" if i % 100 == 0 else "bulk"))
    assert await store.count(["rare"], Offset(1), END) == (50, at(5001))
    assert await store.count(["rare", "#"], at(4001), at(4100)) == (100, at(4101))
    assert await store.count(["other"], Offset(1), at(5000)) == (0, at(5001))
    await store.trim(at(2501))
    assert (await store.count(["rare"], Offset(1), at(3000)))[0] == 5
    assert (await store.count(["rare"], Offset(1), at(2400)))[0] == 0


# S5: retained messages


async def test_the_last_retained_message_of_a_topic_is_kept(store: Store) -> None:
    await store.append(
        [message("1", "a", retain=True), message("2", "b", retain=True), message("3", "a")]
    )
    assert payloads(await retained(store, ["#"])) == [b"1", b"2"]
    await store.append([message("4", "a", retain=True), message("5", "a", retain=True)])
    assert payloads(await retained(store, ["a"])) == [b"5"]
    assert payloads(await retained(store, ["#", "a"])) == [b"2", b"5"]
    assert payloads(await retained(store, ["+/x"])) == []


async def test_what_has_expired_is_retained_until_it_is_forgotten(store: Store) -> None:
    """As what is retained now says, not what was before; and it stays in the log. [MQTT-3.3.2-5]"""
    written = [
        message("1", "a", retain=True, expires_at_us=100),
        message("2", "b", retain=True, expires_at_us=200),
        message("3", "c", retain=True),
        message("4", "d", retain=True, expires_at_us=100),
        message("5", "d", retain=True),
        message("6", "e", retain=True),
        message("7", "e", retain=True, expires_at_us=100),
    ]
    await store.append(written)
    await store.forget_expired(99)
    assert (await store.stats()).retained == 5
    await store.forget_expired(100)
    assert payloads(await retained(store, ["#"])) == [b"2", b"3", b"5"]
    assert (await store.stats()).retained == 3
    await store.close()
    await store.open()
    assert payloads(await retained(store, ["+"])) == [b"2", b"3", b"5"]
    assert await read_all(store) == written


async def test_of_some_offsets_those_that_are_retained_are_found(store: Store) -> None:
    """Also where nobody has forgotten yet what has expired."""
    written = [
        message("1", "a", retain=True),
        message("2", "a", retain=True),
        message("3", "b", retain=True, expires_at_us=100),
        message("4", "c", retain=True),
        message(b"", "c", retain=True),
        message("6", "a"),
    ]
    await store.append(written)
    offsets = [m.offset for m in written]
    assert await store.still_retained(offsets[::-1], 99) == [offsets[1], offsets[2]]
    assert await store.still_retained(offsets, 100) == [offsets[1]]
    assert await store.still_retained([offsets[0], Offset(10**9)], 0) == []
    assert await store.still_retained([], 0) == []


async def test_an_empty_payload_removes_the_retained_message_and_is_logged(store: Store) -> None:
    await store.append([message("1", retain=True), message(b"", retain=True)])
    assert await retained(store, ["#"]) == []
    assert payloads(await read_all(store)) == [b"1", b""]


async def test_retained_messages_are_counted(store: Store) -> None:
    async def counted() -> int:
        return (await store.stats()).retained

    await store.append([message("1", topic, retain=True) for topic in ("a", "b", "c")])
    assert await counted() == 3
    await store.append([message("2", "a", retain=True), message("2", "d"), message("3", "d")])
    assert await counted() == 3
    await store.append([message(b"", topic, retain=True) for topic in ("a", "b", "none", "a")])
    assert await counted() == 1
    refused = Put(subscription("of nobody"))
    with pytest.raises(StoreConflict):
        await store.append([message("4", "e", retain=True)], [refused])
    assert await counted() == 1
    await store.close()
    await store.open()
    assert await counted() == 1


async def test_retained_does_not_show_dollar_topics_to_wildcards(store: Store) -> None:
    await store.append([message("1", "$a/b", retain=True)])
    assert await retained(store, ["#", "+/b"]) == []
    assert payloads(await retained(store, ["$a/+"])) == [b"1"]


async def test_a_retained_message_outlives_trim_until_it_is_replaced(store: Store) -> None:
    at = await appended(store, [message("keep", retain=True), *numbered(5000)])
    assert await store.trim(at(4000)) == 3998
    assert payloads(await retained(store, ["t"])) == [b"keep"]
    assert store.log_start == at(4000)
    assert payloads((await store.read(Offset(1), END, limit=1)).messages) == [b"3999"]
    assert len(await read_all(store, ["t"])) == 1002
    await store.append([message("new", retain=True)])
    assert await store.trim(at(4001)) == 2
    assert payloads(await retained(store, ["t"])) == [b"new"]


async def test_trim_stops_at_the_end_and_never_goes_back(store: Store) -> None:
    at = await appended(store, numbered(4))
    assert await store.trim(END) == 4
    assert store.log_start == at(5)
    assert await store.trim(at(2)) == 0
    assert store.log_start == at(5)


# S11: removing


async def numbers_of(store: Store) -> dict[str, int]:
    """Topics, and their numbers."""
    found: dict[str, int] = {}
    position = Offset(0)
    while segments := await store.removing.segments(position):
        for segment in segments:
            names = await store.removing.topic_names(segment.topics)
            found |= {name: number for number, name in names.items()}
        position = Offset(segments[-1].last + 1)
    return found


async def remove(
    store: Store,
    *,
    before: int = END,
    unread_from: int = END,
    topics: Sequence[str] | None = None,
    most: int = 1024,
    rows_max: int = 100,
    **order: Any,
) -> int:
    """From each segment; how many went."""
    numbers = await numbers_of(store)
    cuts = {
        number: Cut(Offset(before), Offset(unread_from), most)
        for name, number in numbers.items()
        if topics is None or name in topics
    }
    position, removed = Offset(0), 0
    while segments := await store.removing.segments(position):
        for segment in segments:
            part = Order(segment.first, segment.last, cuts, **order)
            while not (result := await store.removing.remove(part, rows_max)).done:
                removed += result.amount.messages
                part = updated(part, result)
            removed += result.amount.messages
        position = Offset(segments[-1].last + 1)
    return removed


async def test_messages_of_some_topics_are_removed_in_the_middle(store: Store) -> None:
    at = await appended(store, numbered(3000, lambda n: "old" if n % 3 else "kept"))
    assert await remove(store, before=at(2000), topics=["old"]) == 1333
    assert (store.log_start, store.high_watermark) == (1, at(3000))
    left = await read_all(store)
    assert at.numbers(left) == [n for n in range(1, 3001) if n % 3 == 0 or n >= 2000]
    assert await read_all(store, ["kept"]) == [m for m in left if m.topic == "kept"]
    assert await read_all(store, ["old"]) == [m for m in left if m.topic == "old"]
    assert await read_all(store, ["#"]) == left
    assert (await store.stats()).messages == len(left)
    assert await store.count(["old"], Offset(1), END) == (667, at(3001))
    assert await store.nth_last(["kept"], 900) == at(303)
    fetched = await store.fetch(at.all(1, 3))
    assert (at.numbers(fetched.messages), list(fetched.damaged)) == ([3], [])


async def test_what_is_removed_stays_so_after_a_restart(store: Store) -> None:
    at = await appended(store, numbered(1500, lambda n: f"t/{n % 2}"))
    await remove(store, topics=["t/1"])
    await store.close()
    await store.open()
    assert at.numbers(await read_all(store)) == list(range(2, 1501, 2))
    assert (await store.stats()).messages == 750


async def test_the_log_start_moves_over_what_is_gone_and_what_is_held(store: Store) -> None:
    batch = [message("held", retain=True), *numbered(1500), message("last", "x")]
    at = await appended(store, batch)
    await remove(store, before=at(1000))
    await store.removing.advance()
    assert (store.log_start, store.missing_before) == (at(1000), 1)
    assert payloads(await retained(store, ["#"])) == [b"held"]
    assert (await store.stats()).messages == 503
    await store.append([message("new", retain=True)])
    assert await store.removing.remove_released() == 1


async def test_offsets_are_not_reused_after_everything_was_removed(store: Store) -> None:
    at = await appended(store, numbered(1030))
    assert await remove(store) == 1030
    for _ in range(2):
        assert await read_all(store) == []
        await store.close()
        await store.open()
        assert store.high_watermark == at(1030)
    await store.removing.advance()
    assert store.log_start == at(1031)
    await store.append([message("next")])
    assert store.high_watermark > at(1030)
    assert payloads(await read_all(store)) == [b"next"]


async def test_the_newest_of_a_topic_stay(store: Store) -> None:
    at = await appended(store, numbered(20, lambda n: f"t/{n % 2}"))
    assert await remove(store, most=7, rows_max=2) == 14
    assert at.numbers(await read_all(store)) == [15, 16, 17, 18, 19, 20]


async def test_what_is_too_much_goes_oldest_first(store: Store) -> None:
    at = await appended(store, numbered(20))
    assert await remove(store, before=at(3), over_messages=5, rows_max=3) == 5
    assert (await read_all(store))[0].offset == at(6)


async def test_what_is_unread_or_held_stays(store: Store) -> None:
    at = await appended(store, numbered(20))
    held = {at(2), at(4)}
    assert await remove(store, unread_from=at(11), held=held) == 8
    assert at.numbers(await read_all(store)) == [2, 4, *range(11, 21)]


async def test_who_reads_over_what_went_unread_is_told(store: Store) -> None:
    at = await appended(store, numbered(30, lambda n: f"t/{n % 2}"))
    size = 10 * (2 + 64)
    await remove(store, before=0, unread_from=at(5), over_bytes=size, unread=True)
    read = await store.read(Offset(1), END, ["t/1"])
    told = [offset for part in read.removed for offset in part]
    assert told
    assert told == [*range(at(5), told[-1] + 1, 2)]
    assert told[-1] + 2 == read.messages[0].offset
    assert not (await store.read(Offset(1), END, ["other"])).removed
    await store.removing.advance()
    read = await store.read(Offset(1), END, ["t/#"])
    assert [offset for part in read.removed for offset in part] == [*range(at(5), told[-1] + 1)]
    await store.removing.forget_unread(Offset(5000))
    assert not (await store.read(Offset(1), END, ["t/#"])).removed


async def test_nobody_is_told_of_what_was_read_by_all(store: Store) -> None:
    at = await appended(store, numbered(30))
    seen = asyncio.create_task(tail_until(store, 1, at(31)))
    await remove(store, before=at(20))
    await store.removing.advance()
    await store.append([message("last")])
    assert not [part for part in await seen if isinstance(part, Skipped)]
    assert not (await store.read(Offset(1), END, ["#"])).removed


async def test_names_without_messages_are_forgotten_and_get_new_numbers(store: Store) -> None:
    batch = [message("m", f"t/{n}", publisher=f"p/{n}") for n in range(1, 1101)]
    at = await appended(store, batch)
    before = await numbers_of(store)
    await remove(store, before=at(1090))
    await store.removing.advance()
    assert await store.removing.forget_names() > 1000
    await store.append([message("again", "t/1"), message("again", "t/1095")])
    after = await numbers_of(store)
    assert after.keys() == {f"t/{n}" for n in range(1090, 1101)} | {"t/1"}
    assert after["t/1095"] == before["t/1095"]
    assert after["t/1"] not in before.values()
    assert payloads(await read_all(store, ["t/1"])) == [b"again"]
    assert len(await read_all(store)) == 13


async def test_what_sessions_are_owed_is_listed(store: Store) -> None:
    replaying = replace(subscription(filter="r/#"), start_offset=Offset(2), replaying=True)
    state: list[Any] = [session(), cursor(offset=5), subscription(), replaying]
    state += [session("new"), replace(subscription("new"), start_offset=Offset(9))]
    state += [subscription("new", "$share/g/t")]
    await store.transact([Put(document) for document in state])
    assert await store.removing.owed(("", "")) == (
        [
            Owed("new", "weather", Offset(10), False),
            Owed("sub1", "r/#", Offset(3), True),
            Owed("sub1", "weather", Offset(6), True),
        ],
        None,
    )
    assert [o.client_id for o in (await store.removing.owed(("new", "x")))[0]] == ["sub1", "sub1"]


# S6: documents


async def test_documents_are_read_as_they_were_put(store: Store) -> None:
    will = WillDocument("sub1", "w", b"\x00bye", 2, True, b"\x01\x02", None, 5)
    documents = (session(), subscription(), cursor(), ReceivedQos2Document("sub1", b"\x00\x07"))
    await store.transact([Put(document) for document in (*documents, will)])
    assert await store.get(SessionDocument, ("sub1",)) == documents[0]
    assert await store.get(SubscriptionDocument, ("sub1", "weather")) == documents[1]
    assert await store.get(CursorDocument, ("sub1",)) == documents[2]
    assert await store.get(ReceivedQos2Document, ("sub1",)) == documents[3]
    found = await store.get(WillDocument, ("sub1",))
    assert found == will
    assert found is not None
    assert found.retain is True
    assert await store.get(WillDocument, ("sub2",)) is None


async def test_scan_finds_a_prefix_in_key_order(store: Store) -> None:
    await store.transact([Put(session("b")), Put(session("a"))])
    wanted = [subscription("a", f) for f in ("x", "y", "é")]
    await store.transact([Put(d) for d in (subscription("b"), *reversed(wanted))])
    assert await store.scan(SubscriptionDocument, ("a",)) == wanted
    assert [s.client_id for s in await store.scan(SessionDocument)] == ["a", "b"]
    assert len(await store.scan(SubscriptionDocument)) == 4
    assert await store.scan(SubscriptionDocument, ("A",)) == []


async def test_several_kinds_are_read_together_kind_by_kind(store: Store) -> None:
    for client_id in ("a", "ab", "b"):
        await store.transact([Put(session(client_id)), Put(cursor(client_id))])
    wanted = [subscription("a", f) for f in ("x", "y")]
    await store.transact([Put(d) for d in (subscription("b"), *reversed(wanted))])
    kinds = (SubscriptionDocument, ReceivedQos2Document, CursorDocument, SessionDocument)
    assert await store.scan_together(kinds, ("a",)) == [*wanted, cursor("a"), session("a")]
    assert await store.scan_together(kinds, ("none",)) == []
    await store.transact([Delete(SessionDocument, ("a",))])
    assert await store.scan_together(kinds, ("a",)) == []


async def test_a_put_replaces_the_whole_document_and_raises_its_revision(store: Store) -> None:
    assert await store.revision(SessionDocument, ("sub1",)) == 0
    await store.transact([Put(session())])
    first = await store.revision(SessionDocument, ("sub1",))
    assert first > 0
    await store.transact([Put(session(expiry_s=1)), Put(session(expiry_s=2))])
    assert await store.revision(SessionDocument, ("sub1",)) > first
    assert await store.get(SessionDocument, ("sub1",)) == session(expiry_s=2)


async def test_a_put_keeps_the_documents_of_the_session(store: Store) -> None:
    await store.transact([Put(session()), Put(subscription())])
    await store.transact([Put(session(expiry_s=9))])
    assert await store.get(SubscriptionDocument, ("sub1", "weather")) == subscription()


async def test_compare_and_set(store: Store) -> None:
    await store.transact([Put(session(), revision=0)])
    with pytest.raises(StoreConflict):
        await store.transact([Put(session(expiry_s=1), revision=0)])
    first = await store.revision(SessionDocument, ("sub1",))
    await store.transact([Put(session(expiry_s=2), revision=first)])
    with pytest.raises(StoreConflict):
        await store.transact([Put(session("other")), Put(session(expiry_s=3), revision=first)])
    assert await store.scan(SessionDocument) == [session(expiry_s=2)]


async def test_a_document_is_removed_only_if_it_is_still_the_one_that_was_read(
    store: Store,
) -> None:
    key = ("sub1",)
    await store.transact([Put(session()), Put(cursor())])
    first = await store.revision(SessionDocument, key)
    await store.transact([Put(session(expiry_s=2))])
    with pytest.raises(StoreConflict):
        await store.append([message()], [Delete(SessionDocument, key, revision=first)])
    assert store.high_watermark == 0
    assert await store.get(CursorDocument, key) == cursor()
    second = await store.revision(SessionDocument, key)
    await store.transact([Delete(SessionDocument, key, revision=second)])
    assert await store.scan(CursorDocument) == []
    with pytest.raises(StoreConflict):
        await store.transact([Delete(SessionDocument, key, revision=second)])
    await store.transact([Put(session(), revision=0)])


async def test_removing_a_session_removes_what_belongs_to_it(store: Store) -> None:
    for client_id in ("sub1", "sub2"):
        await store.transact(
            [
                Put(session(client_id)),
                Put(subscription(client_id)),
                Put(cursor(client_id)),
                Put(ReceivedQos2Document(client_id, b"\x00\x01")),
                Put(WillDocument(client_id, "w", b"", 0, False, b"", None, 0)),
            ]
        )
    await store.transact([Delete(SessionDocument, ("sub1",))])
    assert [d.client_id for d in await store.scan(SubscriptionDocument)] == ["sub2"]
    assert [d.client_id for d in await store.scan(CursorDocument)] == ["sub2"]
    assert [d.client_id for d in await store.scan(ReceivedQos2Document)] == ["sub2"]
    assert [d.client_id for d in await store.scan(WillDocument)] == ["sub1", "sub2"]


async def test_delete_removes_every_document_with_the_key_prefix(store: Store) -> None:
    await store.transact(
        [Put(session()), Put(subscription(filter="a")), Put(subscription(filter="b"))]
    )
    await store.transact([Delete(SubscriptionDocument, ("sub1", "a"))])
    assert [d.filter for d in await store.scan(SubscriptionDocument)] == ["b"]
    await store.transact([Delete(SubscriptionDocument, ("sub1",)), Delete(WillDocument, ("x",))])
    assert await store.scan(SubscriptionDocument) == []


async def test_operations_are_done_in_order(store: Store) -> None:
    await store.transact(
        [Put(session()), Put(cursor()), Delete(SessionDocument, ("sub1",)), Put(session())]
    )
    assert await store.get(CursorDocument, ("sub1",)) is None
    assert await store.get(SessionDocument, ("sub1",)) == session()


OF_A_SESSION = [
    subscription(),
    cursor(),
    InFlightDocument("sub1", 3, b""),
    ReceivedQos2Document("sub1", b""),
]


@pytest.mark.parametrize("document", OF_A_SESSION)
async def test_what_belongs_to_a_session_needs_one(store: Store, document: Document) -> None:
    with pytest.raises(StoreConflict):
        await store.append([message()], [Put(document)])
    assert store.high_watermark == 0


@pytest.mark.parametrize("document", OF_A_SESSION)
async def test_what_belongs_to_a_session_ends_with_it(store: Store, document: Document) -> None:
    await store.transact([Put(session()), Put(document)])
    assert await store.scan_together([type(document)], ("sub1",)) == [document]
    await store.transact([Delete(SessionDocument, ("sub1",))])
    assert await store.scan_together([type(document)], ("sub1",)) == []


async def test_one_page_of_what_is_in_flight_can_be_removed(store: Store) -> None:
    pages = [InFlightDocument("sub1", number, b"\1") for number in (2, 1)]
    await store.transact([Put(session()), *map(Put, pages)])
    assert await store.scan(InFlightDocument, ("sub1",)) == pages[::-1]
    await store.transact([Delete(InFlightDocument, ("sub1", 2))])
    assert await store.scan(InFlightDocument, ("sub1",)) == pages[1:]


async def test_a_document_that_was_read_may_be_changed(store: Store) -> None:
    await store.transact([Put(session())])
    (found,) = await store.scan(SessionDocument)
    found.expires_at_us = ServedUs(7)
    assert await store.get(SessionDocument, ("sub1",)) == session()


async def test_many_documents_of_a_client_are_read_together(store: Store) -> None:
    """In key order, and none twice; also where a class ends with a part."""
    names = sorted(f"t/{n}" for n in range(2995))
    pages = [InFlightDocument("sub1", page, b"") for page in range(3)]
    subscriptions = [subscription(filter=name) for name in names]
    documents: list[Document] = [session(), cursor(), *pages, *subscriptions]
    await store.append((), [Put(document) for document in documents])
    await store.append((), [Put(session("sub2")), Put(subscription("sub2"))])
    kinds = (SessionDocument, CursorDocument, InFlightDocument, SubscriptionDocument)
    assert await store.scan_together(kinds, ("sub1",)) == documents
    assert await store.scan(SubscriptionDocument, ("sub1",)) == documents[5:]
    assert await store.scan(SubscriptionDocument) == [*documents[5:], subscription("sub2")]


async def test_a_group_without_a_subscriber_is_found(store: Store) -> None:
    jobs, mail, other = "$share/g/jobs", "$share/g/mail", "$share/g/other"
    await store.append((), [Put(session(name)) for name in (jobs, mail, "sub1", "sub2")])
    subscriptions = [("sub1", jobs), ("sub2", jobs), ("sub2", mail), ("sub1", "mail")]
    await store.append((), [Put(subscription(*each)) for each in subscriptions])
    names = [jobs, mail, other]
    assert await store.without_subscriber(names) == []
    await store.append((), [Delete(SessionDocument, ("sub2",))])
    assert await store.without_subscriber(names) == [session(mail)]
    assert await store.without_subscriber([]) == []
    await store.append((), [Delete(SubscriptionDocument, ("sub1", jobs))])
    found = await store.without_subscriber(names)
    assert sorted(document.client_id for document in found) == [jobs, mail]


# S7: failures


async def test_a_closed_store_does_nothing(store: Store) -> None:
    await store.append(numbered(1))
    await store.close()
    for call in (
        store.append([message()]),
        store.read(Offset(1), END),
        store.retained(["#"]),
        store.scan(SessionDocument),
        store.scan_together([SessionDocument], ()),
        store.trim(Offset(2)),
        store.offset_at(0),
        store.last_before(0),
    ):
        with pytest.raises(StoreUnavailable):
            await call


# S8: bit for bit


async def test_what_is_read_is_what_was_appended(store: Store) -> None:
    batch = [
        message(b"", "t", qos=0),
        message(bytes(range(256)) * 40, "ü/\U0001f600", qos=2, publisher="é"),
        message("x", retain=True, expires_at_us=1_700_000_100_000_000, properties=b"\x26\x00\x01"),
        message("y", publisher="", at=0),
    ]
    await store.append(batch)
    read = await store.read(Offset(1), END)
    assert read.messages == batch
    assert [type(m.retain) for m in read.messages] == [bool] * 4
    assert [type(m.payload) for m in read.messages] == [bytes] * 4


async def test_stats_count_messages_from_the_log_start_on(store: Store) -> None:
    state = [Put(session()), Put(subscription()), Put(cursor(offset=3000))]
    at = await appended(store, numbered(3000), *state)
    last = message("r", "other", retain=True)
    await store.append([last])
    await store.trim(at(1500))
    stats = await store.stats()
    assert (stats.high_watermark, stats.log_start) == (last.offset, at(1500))
    assert stats.messages == 1502


# S10: places


async def test_a_subscription_begins_after_the_nth_message_of_its_append(store: Store) -> None:
    """Wherever that comes to lie. Also in a large append, which is more than one statement."""
    await store.append(numbered(3), [Put(session())])
    places = [Place(0), Place(1), Place(1200), Place(1300)]
    waiting = [subscription(filter=f"{place.after:04}") for place in places]
    puts = [
        Put(document, places={"start_offset": place})
        for document, place in zip(waiting, places, strict=True)
    ]
    batch = numbered(1300)
    before = store.high_watermark
    await store.append(batch, puts, places=places)
    offsets = [before, batch[0].offset, batch[1199].offset, batch[1299].offset]
    assert [place.offset for place in places] == offsets
    stored = await store.scan(SubscriptionDocument, ("sub1",))
    assert [document.start_offset for document in stored] == offsets
    assert {document.retained_through for document in stored} == {2}


async def test_a_place_is_after_what_was_stored_when_nothing_comes_with_it(store: Store) -> None:
    await store.append(numbered(3), [Put(session())])
    alone, with_document = Place(), Place()
    await store.append([], places=[alone])
    waiting = subscription()
    places = {"start_offset": with_document, "retained_through": with_document}
    await store.append([], [Put(waiting, places=places)], places=[with_document])
    assert alone.offset == with_document.offset == store.high_watermark
    (stored,) = await store.scan(SubscriptionDocument, ("sub1",))
    assert (stored.start_offset, stored.retained_through) == (alone.offset, alone.offset)


async def test_a_document_may_wait_for_a_place_of_an_earlier_append(store: Store) -> None:
    await store.append([], [Put(session())])
    place = Place(after=2)
    await store.append(numbered(3), places=[place])
    later = Place(after=1)
    places = {"start_offset": place, "retained_through": later}
    await store.append(numbered(1), [Put(subscription(), places=places)], places=[later])
    (stored,) = await store.scan(SubscriptionDocument, ("sub1",))
    assert (stored.start_offset, stored.retained_through) == (place.offset, later.offset)
    assert stored.start_offset < stored.retained_through


async def test_a_place_is_another_one_when_the_append_is_done_again(store: Store) -> None:
    """S7: what failed has not taken place."""
    place = Place(after=2)
    waiting = Put(subscription(), places={"start_offset": place})
    with pytest.raises(StoreConflict):
        await store.append(numbered(2), [waiting], places=[place])
    await store.append(numbered(5), [Put(session())])
    place.after = 1
    await store.append(batch := numbered(1), [waiting], places=[place])
    (stored,) = await store.scan(SubscriptionDocument, ("sub1",))
    assert stored.start_offset == place.offset == batch[0].offset


async def test_how_much_is_unread_is_what_reading_it_would_give(store: Store) -> None:
    random_ = random.Random(5)
    topics = [f"{a}/{b}" for a in "abc" for b in range(9)] + ["$own/x", "rare"]
    offsets: list[Offset] = []
    for _ in range(6):
        batch = [
            message(
                "x" * random_.randrange(5),
                random_.choice(topics) if random_.random() < 0.995 else "rare",
                properties=b"\x03\x00\x01x" if random_.random() < 0.1 else b"",
                at=random_.randrange(1, 1000),
            )
            for _ in range(900)
        ]
        await store.append(batch)
        offsets += [m.offset for m in batch]
    await store.trim(offsets[1499])
    logged = await read_all(store)
    sets = [
        *[("#",), ("rare",), ("a/#", "a/1"), ("a/+", "b/3", "rare"), ("none/#",), ("$own/#", "#")],
        *[(f"{a}/{b}",) for a in "abc" for b in range(9)],
        (),
    ]
    places = [0, 1499, 1500, 1535, 1536, 2047, 2048, 3000, 5119, 5120, 5398, 5399, 5400, 9999]
    matching = {f: [m for m in logged if any(matches(x, m.topic) for x in f)] for f in sets}
    for through in (Offset(5400), Offset(3333), Offset(2047), Offset(2048)):
        stretches = [Stretch(filters, Offset(after)) for filters in sets for after in places]
        random_.shuffle(stretches)
        for stretch, found in zip(stretches, await store.measure(stretches, through), strict=True):
            of_filters = matching[tuple(stretch.filters)]
            wanted = [m for m in of_filters if stretch.after < m.offset <= through]
            oldest = WallUs(wanted[0].published_at_us) if wanted else None
            assert found == Amount(len(wanted), sum(m.size for m in wanted), oldest), stretch
    assert await store.measure([], Offset(5400)) == []


async def test_how_much_messages_are_at_known_places(store: Store) -> None:
    at = await appended(store, [message("1"), message("22", at=5), message("333", at=7)])
    assert await store.amount(at.all(3, 2, 9)) == Amount(2, 5, WallUs(5))
    assert await store.amount(at.all(3, 3)) == Amount(2, 6, WallUs(7))
    assert await store.amount([]) == Amount()


# S12: what is held


def retry(due: int, offset: int, group: str = "g") -> RetryDocument:
    return RetryDocument(group, ServedUs(due), Offset(offset), 1, "")


def dead_letter(offset: int, group: str = "g") -> DeadLetterDocument:
    return DeadLetterDocument(group, Offset(offset), 5, "why", "worker", AgedUs(1))


async def test_what_a_group_retries_or_has_given_up_outlives_trim(store: Store) -> None:
    at = await appended(store, numbered(6))
    await store.transact([Put(session("g")), Put(retry(9, at(2))), Put(dead_letter(at(4)))])
    assert await store.trim(at(7)) == 4
    fetched = await store.fetch(at.all(*range(1, 7)))
    assert payloads(fetched.messages) == [b"2", b"4"]
    await store.transact([Delete(DeadLetterDocument, ("g", at(4)))])
    await store.append(numbered(1, first=7))
    assert await store.trim(END) == 2
    assert payloads((await store.fetch(at.all(2, 4))).messages) == [b"2"]


async def test_a_groups_settings_and_retries_go_with_it_and_its_dead_letters_stay(
    store: Store,
) -> None:
    with pytest.raises(StoreConflict):
        await store.transact([Put(retry(9, 2))])
    made = GroupDocument("g", 5, 1000, 2000, 3000, 1)
    await store.append(
        numbered(4), [Put(session("g")), Put(made), Put(retry(9, 2)), Put(dead_letter(4))]
    )
    assert await store.scan(GroupDocument) == [made]
    await store.transact([Delete(SessionDocument, ("g",))])
    assert await store.scan(GroupDocument) == []
    assert await store.scan(RetryDocument) == []
    assert await store.scan(DeadLetterDocument) == [dead_letter(4)]


async def test_documents_are_read_in_parts_in_the_order_of_their_keys(store: Store) -> None:
    """Numbers by their size, not as text."""
    count = PART_MAX + 7
    put = [Put(retry(due, due)) for due in range(count, 0, -1)]
    await store.transact([Put(session("g")), Put(session("h")), *put, Put(retry(5, 5, "h"))])
    first = await store.scan_part(RetryDocument, ("g",))
    assert [d.due_at_us for d in first] == [*range(1, PART_MAX + 1)]
    after = ("g", first[-1].due_at_us, first[-1].offset)
    rest = await store.scan_part(RetryDocument, ("g",), after)
    assert [d.due_at_us for d in rest] == [*range(PART_MAX + 1, count + 1)]
    both = await store.scan_part(RetryDocument, (), ("g", count, count))
    assert [d.client_id for d in both] == ["h"]
