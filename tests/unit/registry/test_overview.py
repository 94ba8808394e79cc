"""Who is subscribed and how far behind, in memory and in the log."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from broker.config import Config
from broker.documents import CursorDocument, Put
from broker.documents.queues import RetryDocument
from broker.errors import NotFound
from broker.message import Offset, ServedUs, WallUs
from broker.registry.overview import FILTERS_SHOWN_MAX, Overview
from tests.support.clock import FakeClock
from tests.support.groups import GROUP, member, publish
from tests.support.messages import message
from tests.support.world import Disk, Subscriber, World, placed, running, subscription

AT_US = 1_700_000_000_000_000
NOW = WallUs(AT_US + 90_000_000)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with running(Disk(), Config(), FakeClock()) as world:
        yield world


async def records(world: World) -> dict[Any, dict[str, Any]]:
    page = await Overview(world.disk, world.sessions).page()
    return {row.id: row.record(NOW) for row in page.rows}


async def subscribed(world: World, client_id: str, *filters: str) -> Subscriber:
    subscriber = Subscriber(world)
    subscriber.address = "10.0.0.7:1"
    await subscriber.open(client_id)
    for topic_filter in filters:
        subscriber.subscribe(subscription(topic_filter, client_id=client_id))
    await world.settled()
    return subscriber


async def test_a_connected_subscriber_is_told_as_it_is_now(world: World) -> None:
    subscriber = await subscribed(world, "sub1", "t", "u/#")
    await world.publish(message("12345"), message("1", "u/1"), message("other", "o"))
    session = placed(subscriber)
    session.in_flight.puback(subscriber.packet_ids[:1])
    record = (await records(world))["sub1"]
    assert record == {
        "id": "sub1",
        "kind": "subscriber",
        "connected": True,
        "address": "10.0.0.7:1",
        "last_seen": None,
        "members": None,
        "filters": ["t", "u/#"],
        "filter_count": 2,
        "cursor": 1,
        "lag": 1,
        "lag_bytes": 1,
        "lag_s": 90.0,
        "exact": True,
        "in_flight": 1,
        "redeliveries": 0,
        "gaps": 0,
        "session_expiry_s": 100,
    }


async def test_one_that_is_away_is_told_from_the_log(world: World) -> None:
    subscriber = await subscribed(world, "sub1", "t", "#")
    subscriber.limit = 0
    await world.publish(message("1"), message("2", "o"))
    seen_us = world.clock.wall_us()
    subscriber.close()
    await world.settled()
    world.clock.advance(50)
    await world.publish(message("345"))
    record = (await records(world))["sub1"]
    assert not world.sessions.in_memory
    assert (record["connected"], record["address"]) == (False, None)
    assert (record["lag"], record["lag_bytes"], record["cursor"]) == (3, 5, 0)
    one = await Overview(world.disk, world.sessions).one("sub1", NOW)
    assert one["last_seen"] == record["last_seen"]
    stored = await world.disk.scan_together([CursorDocument], ("sub1",))
    assert len(stored) == 1
    assert seen_us > 0


async def test_a_log_at_rest_tells_the_same_of_who_is_away(world: World) -> None:
    for client_id in ("a", "b", "c"):
        subscriber = await subscribed(world, client_id, "t")
        await world.publish(message(client_id))
        await subscriber.acknowledge()
        subscriber.close()
        await world.settled()
    page = await Overview(world.disk).page()
    assert {row.id: row.record(NOW) for row in page.rows} == await records(world)
    assert [row.lag.messages for row in page.rows if row.lag] == [2, 1, 0]


async def test_a_group_has_members_and_its_own_lag(world: World) -> None:
    worker = await member(world, "w1", expiry_s=100)
    await member(world, "w2")
    await publish(world, 1, 4)
    found = await records(world)
    assert (found[GROUP]["kind"], found[GROUP]["members"]) == ("group", 2)
    assert (found[GROUP]["lag"], found[GROUP]["in_flight"]) == (4, 4)
    assert found["w1"]["lag"] == 0
    one = await Overview(world.disk, world.sessions).one(GROUP, NOW)
    assert one["member_names"] == ["w1", "w2"]
    before = numbers_of(worker)
    worker.close()
    await world.settled()
    assert (await records(world))[GROUP]["redeliveries"] == before


def numbers_of(subscriber: Subscriber) -> int:
    return len(subscriber.got)


async def test_what_a_group_tries_again_later_is_not_read_yet(world: World) -> None:
    worker = await member(world, "w1")
    await publish(world, 1, 3)
    await worker.acknowledge()
    assert (await records(world))[GROUP]["lag"] == 0
    retry = RetryDocument(GROUP, ServedUs(1), Offset(2), 1, "")
    await world.disk.transact([Put(retry)])
    assert (await records(world))[GROUP]["lag"] == 1
    assert (await Overview(world.disk, world.sessions).one(GROUP, NOW))["lag"] == 1


async def test_who_only_publishes_is_no_subscriber(world: World) -> None:
    passing = Subscriber(world)
    await passing.open("publisher", expiry_s=0)
    watching = Subscriber(world)
    await watching.open("watching", expiry_s=0)
    world.delivery.subscribe(placed(watching), subscription("t", client_id="watching"))
    assert [*await records(world)] == ["watching"]


async def test_pages_follow_each_other_by_name(world: World) -> None:
    for number in range(7):
        (await subscribed(world, f"sub{number}", "t")).close()
    await world.settled()
    overview = Overview(world.disk, world.sessions)
    names: list[str] = []
    after: str | None = ""
    while after is not None:
        page = await overview.page(after, 3)
        assert len(page.rows) <= 3
        names += [row.id for row in page.rows]
        after = page.next
    assert names == [f"sub{number}" for number in range(7)]


async def test_many_filters_are_named_in_part_but_for_one_alone(world: World) -> None:
    await subscribed(world, "sub1", *[f"t/{n}" for n in range(FILTERS_SHOWN_MAX + 5)])
    record = (await records(world))["sub1"]
    assert (len(record["filters"]), record["filter_count"]) == (
        FILTERS_SHOWN_MAX,
        FILTERS_SHOWN_MAX + 5,
    )
    one = await Overview(world.disk, world.sessions).one("sub1", NOW)
    subscriptions = one["subscriptions"]
    assert isinstance(subscriptions, list)
    assert len(subscriptions) == FILTERS_SHOWN_MAX + 5


async def test_one_that_is_damaged_does_not_hide_the_others(world: World) -> None:
    (await subscribed(world, "a", "t")).close()
    (await subscribed(world, "b", "t")).close()
    await world.settled()
    damaged = CursorDocument("a", Offset(0), Offset(0), 1, b"\x81damaged")
    await world.disk.transact([Put(damaged)])
    found = await records(world)
    assert "damaged" in found["a"]
    assert found["b"]["lag"] == 0


async def test_what_nobody_is_called_is_not_found(world: World) -> None:
    await subscribed(world, "kitchen", "t")
    with pytest.raises(NotFound, match=r"did you mean kitchen\?"):
        await Overview(world.disk, world.sessions).one("kitchn", NOW)
