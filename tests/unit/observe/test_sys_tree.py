from __future__ import annotations

import asyncio
import sys

import pytest

from broker import __version__
from broker.clock import Instant
from broker.delivery.delivery import ASIDE_MAX
from broker.errors import StoreUnavailable
from broker.message import Grant, Monotonic, Offset, Outgoing, WallUs
from broker.observe.sys_tree import Load, SysTree
from broker.session.session import Session
from broker.store import StoreStats
from tests.support.messages import message
from tests.support.world import Subscriber, World, subscription


def session() -> Session:
    return Session("sub1", created_at_us=0, start=Offset(0), inflight_max=1)


@pytest.fixture
def tree(world: World) -> SysTree:
    return SysTree(
        world.log,
        world.delivery,
        world.sessions,
        world.groups,
        world.counters,
        now=Monotonic(100.0),
    )


async def subscriber(world: World, *filters: str, client_id: str = "sub1") -> Subscriber:
    subscriber = Subscriber(world)
    await subscriber.open(client_id)
    for topic_filter in filters:
        subscriber.subscribe(subscription(topic_filter, 2, client_id=client_id))
    await world.settled()
    return subscriber


def at(second: float) -> Instant:
    return Instant(Monotonic(second), WallUs(0))


def values(outgoing: list[Outgoing]) -> dict[str, str]:
    """By topic below $SYS/broker; the last of each."""
    return {m.topic.removeprefix("$SYS/broker/"): m.payload.decode() for m, _ in outgoing}


async def published(world: World, tree: SysTree, now: float = 100.0) -> dict[str, str]:
    """What is published to whoever wants all of it, by a client of this call's own."""
    everybody = await subscriber(world, "$SYS/#", client_id="all")
    await tree.publish(at(now))
    everybody.close()
    await world.settled()
    return values(everybody.got)


async def test_a_subscriber_gets_all_and_then_what_changed(world: World, tree: SysTree) -> None:
    sub = await subscriber(world, "$SYS/broker/uptime", "$SYS/broker/version")
    await tree.publish(at(100.0))
    assert values(sub.got) == {
        "uptime": "0 seconds",
        "version": f"pubsub version {__version__}",
    }
    sub.got.clear()
    await tree.publish(at(110.2))
    assert values(sub.got) == {"uptime": "10 seconds"}


async def test_what_is_told_beside_is_not_of_this_broker_alone(world: World, tree: SysTree) -> None:
    alive = ["a b"]
    tree.beside.append(lambda: {"brokers/alive": alive[0]})
    sub = await subscriber(world, "$SYS/brokers/#")
    await tree.publish(at(100.0))
    alive[0] = "a"
    await tree.publish(at(110.0))
    await tree.publish(at(120.0))
    assert [(m.topic, m.payload, m.retain) for m, _ in sub.got] == [
        ("$SYS/brokers/alive", b"a b", True),
        ("$SYS/brokers/alive", b"a", True),
    ]


async def test_what_it_gets_is_of_qos_0_retained_and_not_of_the_log(
    world: World, tree: SysTree
) -> None:
    sub = await subscriber(world, "$SYS/#")
    world.disk.commits.clear()
    await tree.publish(at(100.0))
    await world.settled()
    assert {(m.qos, m.retain, m.offset) for m, _ in sub.got} == {(0, True, 0)}
    assert set(sub.packet_ids) == {0}
    assert world.disk.high_watermark == 0
    assert world.disk.commits == []


@pytest.mark.parametrize("topic_filter", ["#", "+/broker/version", "+/#", "broker/version"])
async def test_no_wildcard_that_comes_first_matches(
    world: World, tree: SysTree, topic_filter: str
) -> None:
    """[MQTT-4.7.2-1, MQTT3-4.7.2-1]"""
    sub = await subscriber(world, topic_filter)
    await tree.publish(at(100.0))
    assert sub.got == []
    assert tree.matching([subscription(topic_filter)], session()) == []


async def test_a_new_subscription_gets_the_values_as_retained_messages(
    world: World, tree: SysTree
) -> None:
    """[MQTT-3.3.1-9] One copy, though two filters match."""
    assert tree.matching([subscription("$SYS/#")], session()) == []
    await tree.publish(at(100.0))
    wanting = [
        subscription("$SYS/broker/+", 1, identifier=1),
        subscription("$SYS/broker/version", 0, identifier=2),
        subscription("weather"),
    ]
    outgoing = {m.topic: g for m, g in tree.matching(wanting, session())}
    assert outgoing == {
        "$SYS/broker/version": Grant(1, subscription_ids=(1, 2), retained=True),
        "$SYS/broker/uptime": Grant(1, subscription_ids=(1,), retained=True),
        "$SYS/broker/commits": Grant(1, subscription_ids=(1,), retained=True),
    }


async def test_a_slow_subscriber_misses_values_instead_of_gathering_them(
    world: World, tree: SysTree
) -> None:
    slow = await subscriber(world, "$SYS/broker/uptime")
    session = slow.session
    assert session is not None
    slow.limit = 0
    for second in range(ASIDE_MAX + 5):
        await tree.publish(at(100.0 + second))
    assert len(session.supply.aside) == ASIDE_MAX
    assert world.counters.dropped.total() == 5


async def test_of_a_shared_subscription_one_member_gets_each(world: World, tree: SysTree) -> None:
    members = []
    for client_id in ("a", "b"):
        member = await subscriber(world, client_id=client_id)
        assert member.session is not None
        document = subscription("$share/g/$SYS/broker/uptime", client_id=client_id)
        await world.groups.join(member.session, document, member)
        members.append(member)
    for second in range(4):
        await tree.publish(at(100.0 + second))
    assert [len(member.got) for member in members] == [2, 2]


async def test_clients_are_counted_and_not_groups(world: World, tree: SysTree) -> None:
    def clients() -> dict[str, str]:
        got = values(tree.matching([subscription("$SYS/#")], session()))
        return {name: got[f"clients/{name}"] for name in ("total", "connected", "disconnected")} | {
            "maximum": got["clients/maximum"]
        }

    first, second = [await subscriber(world, client_id=c) for c in ("a", "b")]
    assert first.session is not None
    await world.groups.join(first.session, subscription("$share/g/t", client_id="a"), first)
    await Subscriber(world).open("of no duration", expiry_s=0)
    await tree.publish(at(100.0))
    assert clients() == {"total": "3", "connected": "3", "disconnected": "0", "maximum": "3"}
    second.close()
    await tree.publish(at(101.0))
    assert clients() == {"total": "3", "connected": "2", "disconnected": "1", "maximum": "3"}


async def test_messages_and_subscriptions_are_counted(world: World, tree: SysTree) -> None:
    await subscriber(world, "a", "b/#")
    await world.publish(message("12"))
    world.log.append([message("345", properties=b"not counted")])
    world.counters.dropped["expired"] += 1
    world.counters.packets.received += 7
    await world.settled()
    got = await published(world, tree)
    assert got["subscriptions/count"] == "3"  # With that of `published`.
    assert got["publish/messages/received"] == got["messages/stored"] == "2"
    assert got["publish/bytes/received"] == "5"
    assert got["publish/messages/dropped"] == "1"
    assert got["messages/received"] == "7"
    assert (got["store/log_start"], got["store/high_watermark"]) == ("1", "2")


async def test_loads_are_per_minute(world: World, tree: SysTree) -> None:
    await tree.publish(at(100.0))
    world.counters.messages_in += 60
    world.counters.connects += 1
    got = await published(world, tree, 160.0)
    assert [got[f"load/publish/received/{n}min"] for n in (1, 5, 15)] == ["37.93", "10.88", "3.87"]
    assert got["load/connections/1min"] == "0.63"
    assert tree.rates() == {"messages_in_per_s": 0.6, "messages_out_per_s": 0.0}


def test_a_load_comes_to_the_rate_and_goes_when_nothing_comes() -> None:
    load, total = Load(), 0
    for _ in range(60):
        total += 10
        load.update(total, 10.0)
    assert load.per_minute[1] == pytest.approx(60, rel=0.001)
    assert load.per_minute[15] == pytest.approx(60 * (1 - 2.718281828 ** (-600 / 900)))
    for _ in range(60):
        load.update(total, 10.0)
    assert load.per_minute[1] < 0.01 < load.per_minute[15]


OF_MOSQUITTO = {
    "bytes/received", "bytes/sent", "clients/active", "clients/connected", "clients/disconnected",
    "clients/expired", "clients/inactive", "clients/maximum", "clients/total", "heap/current",
    "heap/maximum", "messages/received", "messages/sent", "messages/stored",
    "publish/bytes/received", "publish/bytes/sent", "publish/messages/dropped",
    "publish/messages/received", "publish/messages/sent", "retained messages/count",
    "shared_subscriptions/count", "store/messages/bytes", "store/messages/count",
    "subscriptions/count", "uptime", "version",
    *(
        f"load/{name}/{minutes}min"
        for minutes in (1, 5, 15)
        for name in (
            "bytes/received", "bytes/sent", "connections", "messages/received", "messages/sent",
            "publish/dropped", "publish/received", "publish/sent", "sockets",
        )
    ),
}  # fmt: skip


async def test_every_name_of_mosquitto_is_there(world: World, tree: SysTree) -> None:
    """All that its version 2.0 publishes, but for bridges, which we have not."""
    got = await published(world, tree)
    ours = {"commits", "store/high_watermark", "store/log_start"}
    ours |= {"groups/attempts failed", "groups/dead letters"}
    assert OF_MOSQUITTO | ours == {*got} | ({"heap/current"} - {*got})


async def test_memory_and_what_is_retained_are_told(world: World, tree: SysTree) -> None:
    await world.publish(message("12", "a", retain=True), message("3", "b", retain=True))
    got = await published(world, tree)
    assert got["retained messages/count"] == "2"
    assert int(got["heap/maximum"]) > 10_000_000
    if sys.platform == "linux":
        assert 10_000_000 < int(got["heap/current"]) <= int(got["heap/maximum"])


async def test_only_what_somebody_counted_already_is_asked_for(
    world: World, tree: SysTree, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is looked up in the log, however often this goes."""
    for call in ("read", "fetch", "retained", "scan", "get", "nth_last"):
        monkeypatch.setattr(world.disk, call, None)
    await tree.publish(at(100.0))


@pytest.mark.parametrize(
    ("error", "level"), [(StoreUnavailable("busy"), "WARNING"), (ZeroDivisionError(), "CRITICAL")]
)
async def test_what_cannot_be_told_now_is_told_an_interval_later(
    error: Exception,
    level: str,
    world: World,
    tree: SysTree,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    sub = await subscriber(world, "$SYS/broker/version")

    async def fail() -> StoreStats:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(world.disk, "stats", fail)
        publishing = asyncio.create_task(tree.publish_forever(world.clock, 10))
        await world.settled()
    assert [record.levelname for record in caplog.records] == [level]
    assert sub.got == []
    world.clock.advance(10)
    await world.settled()
    assert len(sub.got) == 1
    publishing.cancel()
