"""Retained topics: what counts for whom, and what gives a place back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest

from broker.clock import US
from broker.documents import Put
from broker.documents.quotas import RetainedByDocument
from broker.errors import RetainedQuotaExceeded, StoreUnavailable
from broker.log.retained_topics import COUNT_INTERVAL_S, NOTHING, TOO_MANY, RetainedTopics
from broker.message import Message, Offset
from broker.security.quotas import Quota
from broker.store import PART_MAX
from tests.support.messages import message
from tests.support.passwords import user
from tests.support.world import Disk, World, running

LIMITS = {"ann": 2, "bob": 2}
MANY = 2 * PART_MAX + 1


@pytest.fixture
def disk() -> Disk:
    return Disk()


@pytest.fixture
async def world(disk: Disk) -> AsyncIterator[World]:
    async with running(disk) as world:
        yield world


@pytest.fixture
def retained(world: World) -> RetainedTopics:
    return RetainedTopics(world.log, LIMITS.get)


async def publish(world: World, retained: RetainedTopics, user: str, *messages: Message) -> int:
    """How many of them were refused."""
    refused = 0
    if retained.must_count(user, messages):
        await world.passing_time(retained.count(user))
    for one in messages:
        try:
            append(world, retained, user, one)
        except RetainedQuotaExceeded as error:
            refused += error.dropped_as == TOO_MANY
    await world.settled()
    return refused


def append(world: World, retained: RetainedTopics, user: str, one: Message) -> None:
    counted = retained.take(user, one)
    world.log.append([one])
    world.log.append([], operations=counted.operations, place=counted.place)


def kept(topic: str, payload: bytes = b"x", expires_at_us: int | None = None) -> Message:
    return message(payload, topic, retain=True, expires_at_us=expires_at_us)


async def documents(world: World, user: str) -> int:
    return len(await world.disk.scan(RetainedByDocument, (user,)))


async def test_one_topic_more_than_the_limit_is_refused(
    world: World, retained: RetainedTopics
) -> None:
    messages = [kept("a"), kept("b"), kept("a"), kept("c")]
    assert await publish(world, retained, "ann", *messages) == 1
    offsets = {document.offset for document in await world.disk.scan(RetainedByDocument)}
    assert offsets == {messages[1].offset, messages[2].offset}
    assert await publish(world, retained, "ann", kept("a"), message("x", "c")) == 0
    with pytest.raises(RetainedQuotaExceeded, match="ann may have retained messages on 2 topics, "):
        retained.take("ann", kept("c"))


async def test_who_has_no_limit_leaves_nothing(world: World, retained: RetainedTopics) -> None:
    assert not retained.must_count("root", [kept("a")])
    assert retained.take("root", kept("a")) is retained.take("root", kept("a", b"")) is NOTHING
    assert await publish(world, retained, "root", *[kept(str(n)) for n in range(9)]) == 0
    assert await documents(world, "root") == 0


async def test_an_empty_payload_gives_a_place_back_at_once(
    world: World, retained: RetainedTopics
) -> None:
    assert await publish(world, retained, "ann", kept("a"), kept("b"), kept("b", b"")) == 0
    assert await documents(world, "ann") == 1
    assert await publish(world, retained, "ann", kept("z", b""), kept("c"), kept("d")) == 1


async def test_what_another_user_replaces_counts_for_that_user(
    world: World, retained: RetainedTopics
) -> None:
    await publish(world, retained, "ann", kept("a"), kept("b"))
    assert await publish(world, retained, "bob", kept("a"), kept("x"), kept("y")) == 1
    world.clock.advance(COUNT_INTERVAL_S)
    assert await publish(world, retained, "ann", kept("c"), kept("d")) == 1
    world.clock.advance(COUNT_INTERVAL_S)
    assert await publish(world, retained, "bob", kept("y")) == 1
    assert await documents(world, "ann") == 2


async def test_what_anybody_removes_and_what_expires_counts_no_more(
    world: World, retained: RetainedTopics, disk: Disk
) -> None:
    expires_at_us = world.log.time.aged_us() + 100 * US
    await publish(world, retained, "ann", kept("a"), kept("b", expires_at_us=expires_at_us))
    assert await publish(world, retained, "ann", kept("c")) == 1
    await publish(world, retained, "root", kept("a", b""))
    world.clock.advance(COUNT_INTERVAL_S)
    assert await publish(world, retained, "ann", kept("c"), kept("d")) == 1
    world.clock.advance(100)
    assert await publish(world, retained, "ann", kept("d"), kept("e")) == 1
    assert await documents(world, "ann") == 2
    assert len(await disk.retained(["#"])) == 3, "nobody has forgotten yet what has expired"


async def test_it_is_not_counted_more_often_than_in_an_interval(
    world: World, retained: RetainedTopics
) -> None:
    await publish(world, retained, "ann", kept("a"), kept("b"))
    assert not retained.must_count("ann", [kept("c")]), "it was counted at the first message"
    world.clock.advance(COUNT_INTERVAL_S)
    assert not retained.must_count("ann", [kept("a"), kept("b"), kept("c", b"")])
    assert retained.must_count("ann", [kept("c")])
    assert await publish(world, retained, "ann", kept("c")) == 1
    assert not retained.must_count("ann", [kept("c")])


async def test_what_an_earlier_run_has_counts(disk: Disk) -> None:
    async with running(disk) as world:
        await publish(world, RetainedTopics(world.log, LIMITS.get), "ann", kept("a"), kept("b"))
    async with running(disk) as world:
        again = RetainedTopics(world.log, LIMITS.get)
        assert await publish(world, again, "ann", kept("c"), kept("b")) == 1


async def test_a_message_and_whose_it_is_are_one_commit(
    world: World, retained: RetainedTopics, disk: Disk
) -> None:
    await publish(world, retained, "ann", kept("a"))
    await publish(world, retained, "ann", kept("a", b""))
    with_documents = [
        payloads
        for payloads, operations, _ in disk.commits
        for one in operations
        if (type(one.document) if isinstance(one, Put) else one.kind) is RetainedByDocument
    ]
    assert with_documents == [[b"x"], [b""]]


async def test_what_waits_for_the_disk_counts(
    world: World, retained: RetainedTopics, disk: Disk
) -> None:
    await publish(world, retained, "ann", kept("a"))
    world.clock.advance(COUNT_INTERVAL_S)
    disk.may_commit.clear()
    append(world, retained, "ann", kept("b"))
    counting = asyncio.create_task(retained.count("ann"))
    await asyncio.sleep(0)
    disk.may_commit.set()
    await world.passing_time(counting)
    assert await publish(world, retained, "ann", kept("c")) == 1


async def test_what_is_published_while_it_is_counted_counts(
    world: World, retained: RetainedTopics, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    await publish(world, retained, "ann", kept("a"), kept("b"))
    await publish(world, retained, "root", kept("a", b""), kept("b", b""))
    world.clock.advance(COUNT_INTERVAL_S)
    still_retained = disk.still_retained

    async def look(offsets: Sequence[Offset], now_us: int) -> list[Offset]:
        found = await still_retained(offsets, now_us)
        append(world, retained, "ann", kept("b"))
        return found

    monkeypatch.setattr(disk, "still_retained", look)
    await world.passing_time(retained.count("ann"))
    await world.settled()
    assert await documents(world, "ann") == 1
    assert await publish(world, retained, "ann", kept("c"), kept("d")) == 1


async def test_clients_that_wait_together_have_it_counted_once(
    world: World, retained: RetainedTopics, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[int] = []
    still_retained = world.disk.still_retained

    async def look(offsets: Sequence[Offset], now_us: int) -> list[Offset]:
        looks.append(now_us)
        return await still_retained(offsets, now_us)

    monkeypatch.setattr(world.disk, "still_retained", look)
    await world.passing_time(asyncio.gather(*[retained.count("ann") for _ in range(5)]))
    assert len(looks) == 1


async def test_all_parts_are_counted(world: World) -> None:
    first = RetainedTopics(world.log, lambda _: MANY)
    assert await publish(world, first, "ann", *[kept(f"t/{n}") for n in range(MANY + 1)]) == 1
    again = RetainedTopics(world.log, lambda _: MANY)
    assert await publish(world, again, "ann", kept("new"), *[kept("t/7")]) == 1


async def test_while_the_store_cannot_be_read_what_is_known_counts(
    world: World,
    retained: RetainedTopics,
    disk: Disk,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await publish(world, retained, "ann", kept("a"), kept("b"))
    world.clock.advance(COUNT_INTERVAL_S)

    async def fails(*_: object) -> list[Offset]:
        raise StoreUnavailable("no answer")

    monkeypatch.setattr(disk, "still_retained", fails)
    assert await publish(world, retained, "ann", kept("c")) == 1
    assert "retained topics of ann are not counted: no answer" in caplog.text


async def test_a_user_that_is_removed_leaves_nothing(world: World) -> None:
    await world.users.put(user("ann"), user("bob"))
    await world.quotas.put("user", "ann", Quota(retained=1))
    assert await publish(world, world.quotas.retained, "ann", kept("a"), kept("b")) == 1
    await world.passing_time(world.users.remove("ann"))
    assert await documents(world, "ann") == 0
    await world.users.put(user("ann"))
    await world.quotas.put("user", "ann", Quota(retained=1))
    assert await publish(world, world.quotas.retained, "ann", kept("b")) == 0
