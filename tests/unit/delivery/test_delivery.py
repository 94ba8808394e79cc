from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from broker.config import Config
from broker.counters import Counters
from broker.delivery import waking
from broker.delivery.delivery import Delivery
from broker.delivery.looks import READ_RETRY_S
from broker.delivery.routes import Routes, RouteTable, route
from broker.delivery.waking import WAKE_MESSAGES
from broker.errors import StoreCorrupt, StoreError, StoreFull, StoreUnavailable
from broker.log.log import Log
from broker.log.losses import NOT_LOGGED
from broker.log.outage import FULL_RETRY_S
from broker.log.qos0 import LAZY_COMMIT_S
from broker.message import Grant, Message, Offset
from broker.session.session import Session
from broker.store import Store
from broker.store.memory import MemoryStore
from tests.support.clock import FakeClock
from tests.support.messages import message, numbered, texts
from tests.support.world import Disk, Subscriber, World, payloads, placed, running, subscription

# Routing


def _session(client_id: str) -> Session:
    return Session(client_id, created_at_us=1, start=Offset(0), inflight_max=10)


def test_sessions_with_the_same_grant_share_one_list_of_a_batch() -> None:
    """One publisher to 100 subscribers builds one list."""
    table = RouteTable()
    for n in range(3):
        table.add(_session(f"s{n}"), subscription(client_id=f"s{n}"))
    batch = numbered(2)
    routed = route(batch, table.of)
    assert len({id(outgoing) for outgoing, _ in routed.values()}) == 1
    assert [size for _, size in routed.values()] == [sum(m.cost for m in batch)] * 3


def test_a_session_gets_a_batch_in_order_whatever_topics_alternate_in_it() -> None:
    everything, some, grant = _session("all"), _session("some"), Grant(1)
    routes: dict[str, Routes] = {
        "a": ((everything, grant, grant), (some, grant, grant)),
        "b": ((everything, grant, grant),),
        "c": (),
    }
    batch = [message(str(n), topic) for n, topic in enumerate("abcab")]
    routed = route(batch, routes.__getitem__)
    assert payloads(routed[everything][0]) == [b"0", b"1", b"3", b"4"]
    assert payloads(routed[some][0]) == [b"0", b"3"]
    cost = batch[0].cost
    assert (routed[everything][1], routed[some][1]) == (4 * cost, 2 * cost)


def test_no_local_takes_out_a_clients_own_messages_and_their_size() -> None:
    own = _session("me")
    batch = [message("12345", publisher="me"), message("6", publisher="other")]
    outgoing, size = route(batch, lambda topic: ((own, Grant(1), None),))[own]
    assert (payloads(outgoing), size) == ([b"6"], batch[1].cost)


def test_all_that_a_message_takes_in_memory_counts_in_the_size_of_what_a_session_gets() -> None:
    """P7"""
    grant, plain, no_local = Grant(1), _session("s"), _session("t")
    batch = [message("123", properties=b"4567"), message("8")]
    routed = route(batch, lambda topic: ((plain, grant, grant), (no_local, grant, None)))
    size = 8 + 2 * message("").cost
    assert (routed[plain][1], routed[no_local][1]) == (size, size)


# After acknowledgements


async def test_a_batch_is_routed_after_its_acknowledgements_have_left(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """300 times of 300: its publisher goes on while it is routed."""
    log = Log(store, Counters(), FakeClock(), append_bytes_max=1000)
    delivery = Delivery(log, Counters(), Config(), FakeClock())
    happened: list[tuple[str, bytes]] = []
    routed = asyncio.Event()

    def publish(payload: bytes) -> None:
        def acknowledge(error: StoreError | None) -> None:
            log.acknowledgements.put_off(lambda: happened.append(("acknowledged", payload)))

        log.append([message(payload)], acknowledge)

    def note(batch: Sequence[Message]) -> None:
        happened.extend([("routed", m.payload) for m in batch])
        routed.set()

    monkeypatch.setattr(delivery, "_deliver", note)
    tasks = [asyncio.create_task(log.commit_forever())]
    tasks.append(asyncio.create_task(delivery.deliver_forever()))
    for payload in texts(300):
        publish(payload)
        await routed.wait()
        routed.clear()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    expected = [(what, of) for of in texts(300) for what in ("acknowledged", "routed")]
    assert happened == expected


async def test_what_nobody_here_acknowledges_is_routed_while_our_commit_runs(
    world: World, sub: Subscriber
) -> None:
    """Another broker on the same log appended it."""
    await world.settled()
    world.disk.may_commit.clear()
    world.log.append([message("ours")])
    await asyncio.sleep(0)
    await MemoryStore.append(world.disk, [message("theirs")])
    for _ in range(20):
        await asyncio.sleep(0)
    assert payloads(sub.got) == [b"theirs"]
    world.disk.may_commit.set()
    await world.settled()
    assert payloads(sub.got) == [b"theirs", b"ours"]


# Live and behind


async def test_a_live_session_gets_each_batch_that_concerns_it(
    world: World, sub: Subscriber
) -> None:
    await world.settled()
    assert world.is_live(sub)
    await world.publish(message("1"), message("no", topic="other"), message("2"))
    assert payloads(sub.got) == [b"1", b"2"]
    assert placed(sub).cursor() == 0


async def test_a_session_that_does_not_take_keeps_no_more_than_its_outbox(
    world: World, sub: Subscriber
) -> None:
    """P7"""
    sub.limit = 0
    await world.settled()
    for first in range(1, 100, 3):
        await world.publish(*numbered(3, first=first))
    assert not world.is_live(sub)
    assert len(placed(sub).outbox) <= 10
    sub.limit = 1 << 20
    sub.wake()
    await world.settled()
    assert payloads(sub.got) == texts(99)
    assert world.is_live(sub)


async def test_the_size_of_an_outbox_comes_back_to_nothing(world: World) -> None:
    """Or a reader would wait for ever for room that is there."""
    sub = Subscriber(world)
    await sub.open("me")
    sub.subscribe(subscription(client_id="me", no_local=True))
    await world.settled()
    await world.publish(message("mine", publisher="me"), message("others"))
    assert payloads(sub.got) == [b"others"]
    assert placed(sub).outbox.size == 0


async def test_a_message_committed_before_a_subscription_and_routed_after_it_is_not_its(
    world: World, sub: Subscriber
) -> None:
    await world.settled()
    committed_before: list[Offset] = []

    def subscribe_late(_: object) -> None:
        committed_before.append(world.disk.high_watermark)
        sub.subscribe(subscription("late", start=world.disk.high_watermark))

    world.log.append([message("x", "late")], subscribe_late)
    await world.settled()
    assert committed_before == [1]
    assert world.delivery.live.through == 1
    await world.publish(message("y", "late"))
    assert payloads(sub.got) == [b"y"]


async def test_who_unsubscribed_gets_no_more(world: World, sub: Subscriber) -> None:
    await world.settled()
    assert world.delivery.unsubscribe(placed(sub), "t")
    assert not world.delivery.unsubscribe(placed(sub), "t")
    await world.publish(message("x"))
    assert sub.got == []


async def test_what_the_disk_has_no_room_for_goes_to_who_is_there_and_up_to_date(
    world: World, sub: Subscriber
) -> None:
    """P5, P9: order per topic holds, and whoever misses it is counted."""
    behind = Subscriber(world)
    await behind.open("sub2")
    behind.subscribe(subscription(client_id="sub2"))
    await world.settled()
    behind.limit = 0
    await world.publish(message("1"))
    world.disk.full = True
    world.log.append([message("2", qos=0)], durable=False)
    world.clock.advance(LAZY_COMMIT_S)
    for _ in range(5):
        await asyncio.sleep(0)
    world.log.append([message("3", qos=0)], durable=False)
    assert payloads(sub.got) == [b"1", b"2", b"3"]
    assert payloads(behind.got) == []
    assert world.counters.dropped == {
        NOT_LOGGED: 2, "beside the log, to a slow subscriber": 2
    }  # fmt: skip
    world.disk.full = False
    world.clock.advance(FULL_RETRY_S)
    await world.publish(message("4"))
    assert payloads(sub.got) == [b"1", b"2", b"3", b"4"]


async def test_a_full_disk_keeps_nobody_from_reading() -> None:
    """Cursors cannot be stored then, so what a crash could repeat is not bounded meanwhile."""
    async with running(Disk(), Config(inflight_max=5)) as world:
        sub = Subscriber(world)
        await sub.open()
        sub.subscribe(subscription())
        await world.publish(*numbered(20))
        assert sub.session is not None
        world.disk.full = True
        for _ in range(4):
            sub.session.in_flight.puback(sub.packet_ids)
            sub.packet_ids = []
            heard = asyncio.get_running_loop().create_future()
            world.log.changed(sub.session, heard.set_result, urgent=False)
            assert isinstance(await world.passing_time(heard), StoreFull)
            sub.wake()
        assert payloads(sub.got) == texts(20)


# What we do wrong while a session is served


def mistake(*_: object, **__: object) -> None:
    raise ZeroDivisionError


async def test_a_mistake_while_one_is_woken_is_told_to_that_one_alone(
    world: World, sub: Subscriber, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Subscriber(world)
    await other.open("other")
    other.subscribe(subscription(client_id="other"))
    monkeypatch.setattr(sub, "wake", mistake)
    await world.publish(*numbered(2))
    assert [type(error) for error in sub.errors] == [ZeroDivisionError]
    assert payloads(other.got) == texts(2)


@pytest.mark.parametrize("where", ["offer", "fall_behind"])
async def test_a_mistake_while_messages_are_offered_is_told_to_that_one_alone(
    where: str, world: World, sub: Subscriber, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Subscriber(world)
    await other.open("other")
    other.subscribe(subscription(client_id="other"))
    broken = placed(sub).supply if where == "offer" else placed(sub)
    monkeypatch.setattr(broken, where, mistake)
    sub.limit = 0
    await world.publish(*numbered(6))
    await world.publish(*numbered(6, first=7))
    assert {type(error) for error in sub.errors} == {ZeroDivisionError}
    assert payloads(other.got) == texts(12)


async def test_a_mistake_over_what_retention_removed_is_told_to_that_one_alone(
    world: World, sub: Subscriber, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(placed(sub).supply, "miss", mistake)
    world.delivery._skip(range(1, 3))
    assert [type(error) for error in sub.errors] == [ZeroDivisionError]
    assert world.delivery.live.through == 2


async def test_a_batch_that_is_not_routed_is_read_from_the_log(
    world: World, sub: Subscriber, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """So a mistake over one session's subscriptions is not everybody's."""
    with monkeypatch.context() as patch:
        patch.setattr(world.delivery._routes, "of", mistake)
        await world.publish(*numbered(3))
    await world.publish(*numbered(3, first=4))
    assert payloads(sub.got) == texts(6)
    assert world.is_live(sub)
    assert [record.levelname for record in caplog.records] == ["CRITICAL"]


async def test_a_mistake_beside_the_log_is_told_to_that_one_alone(
    world: World, sub: Subscriber, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Subscriber(world)
    await other.open("other")
    other.subscribe(subscription(client_id="other"))
    monkeypatch.setattr(placed(sub).supply, "offer_aside", mistake)
    world.delivery.offer_beside([message("now", qos=0)])
    assert [type(error) for error in sub.errors] == [ZeroDivisionError]
    assert payloads(other.got) == [b"now"]


async def test_a_mistake_after_the_client_has_left_is_logged(
    world: World, sub: Subscriber, caplog: pytest.LogCaptureFixture
) -> None:
    session = placed(sub)
    sub.close()
    world.delivery.failed(session, ZeroDivisionError())
    assert [(r.levelname, r.getMessage()) for r in caplog.records] == [
        ("CRITICAL", "session of 'sub1'")
    ]


async def test_a_mistake_while_a_client_is_told_of_the_log_is_told_too(
    world: World, sub: Subscriber, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sub, "broken", mistake)
    world.delivery.failed(placed(sub), StoreUnavailable("lost"))
    assert [type(error) for error in sub.errors] == [ZeroDivisionError]


# A log that cannot be read for a moment


@pytest.mark.parametrize("beside", [False, True])
async def test_many_subscribers_are_woken_in_several_turns(
    world: World, monkeypatch: pytest.MonkeyPatch, beside: bool
) -> None:
    """Whoever leaves before its turn is passed over."""
    monkeypatch.setattr(waking, "AT_ONCE_MAX", WAKE_MESSAGES)
    subscribers = [Subscriber(world) for _ in range(7)]
    for n, sub in enumerate(subscribers):
        await sub.open(f"sub{n}")
        sub.subscribe(subscription(client_id=f"sub{n}"))
    await world.settled()
    if beside:
        world.delivery.offer_beside([message(qos=0)])
    else:
        world.log.append([message()])
        while not any(sub.got for sub in subscribers):  # noqa: ASYNC110  No event.
            await asyncio.sleep(0)
    served = []
    for _ in range(4):
        served.append(sum(bool(sub.got) for sub in subscribers))
        subscribers[6].close()
        await asyncio.sleep(0)
    assert served == [2, 4, 6, 6]
    assert [len(sub.got) for sub in subscribers] == [1, 1, 1, 1, 1, 1, 0]


async def test_what_is_for_one_does_not_wait_until_many_were_sent_theirs(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waking, "AT_ONCE_MAX", WAKE_MESSAGES)
    many = [Subscriber(world) for _ in range(50)]
    for n, sub in enumerate(many):
        await sub.open(f"sub{n}")
        sub.subscribe(subscription(client_id=f"sub{n}"))
    one = Subscriber(world)
    await one.open("one")
    one.subscribe(subscription("own", client_id="one"))
    await world.settled()
    await world.log.commit_now([], [message()])
    await world.log.commit_now([], [message("own", "own")])
    while not one.got:  # noqa: ASYNC110  No event.
        await asyncio.sleep(0)
    assert sum(bool(sub.got) for sub in many) < len(many) // 2
    await world.settled()
    assert [len(sub.got) for sub in many] == [1] * len(many)


@pytest.mark.parametrize("question", ["retained", "fetch", "tail"])
async def test_what_the_log_cannot_answer_now_is_asked_again(
    question: str,
    world: World,
    sub: Subscriber,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    answer, asked = getattr(world.disk, question), 0

    def at_last(*args: Any, **kwargs: Any) -> object:
        nonlocal asked
        asked += 1
        if asked < 3:
            raise StoreUnavailable("busy")
        return answer(*args, **kwargs)

    monkeypatch.setattr(world.disk, question, at_last)
    await world.publish(message("1", retain=True))
    result: asyncio.Future[object] = asyncio.ensure_future(
        {
            "retained": lambda: world.delivery.retained(placed(sub), ["t"]),
            "fetch": lambda: world.delivery.fetch(placed(sub), [Offset(1)], 100),
            "tail": world.delivery.deliver_forever,
        }[question]()
    )
    for tried in (1, 2):
        await world.settled()
        assert (asked, result.done()) == (tried, False)
        world.clock.advance(READ_RETRY_S)
    await world.settled()
    assert asked == 3
    if question != "tail":
        assert result.done()
        assert caplog.messages == [
            "the log is not read until this is over: busy",
            "the log is read again",
        ]
    result.cancel()


async def test_a_log_that_is_damaged_is_not_asked_again(
    world: World, sub: Subscriber, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def damaged(*_: object) -> list[Offset]:
        raise StoreCorrupt("checksum")

    monkeypatch.setattr(world.disk, "retained", damaged)
    with pytest.raises(StoreCorrupt):
        await world.delivery.retained(placed(sub), ["t"])


async def test_a_live_session_that_retention_passed_is_told_with_its_next_message(
    world: World, sub: Subscriber
) -> None:
    """P5. Removed before they were routed: whoever is behind finds out by reading."""
    await world.publish(*numbered(2))
    slow = Subscriber(world)
    await slow.open("slow")
    slow.subscribe(subscription(client_id="slow"))
    await world.settled()
    placed(slow).fall_behind()
    world.delivery._skip(range(3, 6))
    assert world.counters.dropped == {"removed by retention": 3}
    assert world.delivery.live.through == 5
    placed(sub).supply.offer([(replace(message("6"), offset=Offset(6)), Grant(1))], 1)
    sub.wake()
    assert sub.got[-1][1].missing == (range(3, 6),)
    assert placed(slow).outbox.first() is None
