from __future__ import annotations

import pytest

from broker import retained
from broker.message import Offset
from broker.session import Session
from tests.unit.world import Disk, message, subscription


@pytest.fixture
async def disk() -> Disk:
    """a/1 at offset 1, a/2 at 3, b at 4; the last by sub1."""
    disk = Disk()
    await disk.open()
    await disk.append(
        [
            message("one", "a/1", retain=True),
            message("old", "a/2", retain=True),
            message("two", "a/2", retain=True),
            message("b", "b", retain=True, publisher="sub1"),
        ]
    )
    return disk


@pytest.fixture
def session() -> Session:
    return Session("sub1", created_at_us=1, start=Offset(0), inflight_max=10)


async def test_a_subscription_gets_the_last_retained_message_of_each_topic(
    disk: Disk, session: Session
) -> None:
    """[MQTT-3.3.1-9, MQTT3-3.3.1-8]"""
    wanting = [subscription("a/+", start=4, identifier=7)]
    outgoing = await retained.matching(disk, session, wanting, Offset(4))
    assert [(m.payload, g.qos, g.subscription_ids, g.retained) for m, g in outgoing] == [
        (b"one", 1, (7,), True),
        (b"two", 1, (7,), True),
    ]


async def test_overlapping_subscriptions_get_one_copy(disk: Disk, session: Session) -> None:
    wanting = [subscription("a/+", 0, identifier=1), subscription("a/1", 2, identifier=2)]
    outgoing = await retained.matching(disk, session, wanting, Offset(4))
    assert [(m.payload, g.qos, g.subscription_ids) for m, g in outgoing] == [
        (b"one", 2, (1, 2)),
        (b"two", 0, (1,)),
    ]


async def test_what_was_published_after_the_subscribe_comes_live_only(
    disk: Disk, session: Session
) -> None:
    outgoing = await retained.matching(disk, session, [subscription("#")], Offset(3))
    assert [m.payload for m, _ in outgoing] == [b"one", b"two"]


async def test_who_subscribes_again_gets_also_what_came_since_the_first_time(
    disk: Disk, session: Session
) -> None:
    """[MQTT-3.8.4-3]: though the subscription goes on from where it began."""
    again = [subscription("#", start=1)]
    outgoing = await retained.matching(disk, session, again, Offset(4))
    assert [m.payload for m, _ in outgoing] == [b"one", b"two", b"b"]


async def test_no_local_leaves_out_a_clients_own(disk: Disk, session: Session) -> None:
    outgoing = await retained.matching(disk, session, [subscription("#", no_local=True)], Offset(4))
    assert [m.payload for m, _ in outgoing] == [b"one", b"two"]
