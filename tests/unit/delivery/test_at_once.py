"""QoS 0 goes to live sessions in the turn in which it came: each gets it once, and in order. (P9)

Commits are held up here, so whatever comes does not come from the log.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from broker.config import Config
from broker.delivery import at_once
from broker.delivery.waking import WAKE_MESSAGES
from broker.documents import NOT_YET, CursorDocument, SubscriptionDocument
from broker.log.qos0 import LAZY_COMMIT_S
from broker.message import Message
from broker.security.rights import Rights
from broker.session.cursor import served_beyond
from tests.support.groups import member, numbers
from tests.support.messages import message, numbered, texts
from tests.support.rulebook import Rulebook
from tests.support.world import Disk, Subscriber, World, payloads, placed, running, subscription


def fire(world: World, *messages: Message | str) -> None:
    """A publisher's socket brings these in one read."""
    made = [message(m, qos=0) if isinstance(m, str) else m for m in messages]
    world.log.append(made, durable=False)


async def subscriber(
    world: World, client_id: str, *documents: SubscriptionDocument, expiry_s: int = 100
) -> Subscriber:
    made = Subscriber(world)
    await made.open(client_id, expiry_s=expiry_s)
    for document in documents or (subscription(),):
        made.subscribe(replace(document, client_id=client_id))
    await world.settled()
    return made


def change(world: World, of: Subscriber, topic_filter: str, retain_handling: int = 2) -> list[str]:
    """Subscribe in the order of arrival. The list has an entry when that is in effect."""
    session, done = placed(of), list[str]()
    document = replace(
        subscription(topic_filter, client_id=session.client_id, start=NOT_YET),
        retain_handling=retain_handling,
    )
    world.delivery.changes.subscribe(session, [document], lambda error: done.append("done"))
    return done


async def come_back(
    world: World, client_id: str = "sub1", *, clean_start: bool = False
) -> Subscriber:
    again = Subscriber(world)
    await again.open(client_id, clean_start=clean_start)
    await world.settled()
    return again


async def stored_cursor(world: World, client_id: str = "sub1") -> CursorDocument:
    found = await world.disk.get(CursorDocument, (client_id,))
    assert found is not None
    return found


@pytest.fixture
async def live(world: World, sub: Subscriber) -> Subscriber:
    """Subscribed to `t`, live, and with commits held up from here on."""
    await world.settled()
    world.disk.may_commit.clear()
    return sub


# Live


async def test_it_comes_before_its_commit_and_not_again_after_it(
    world: World, live: Subscriber
) -> None:
    fire(world, "1", "2")
    fire(world, "3")
    assert payloads(live.got) == texts(3)
    world.disk.may_commit.set()
    await world.settled()
    assert payloads(live.got) == texts(3)
    assert world.disk.high_watermark == 3


async def test_it_is_logged_with_company_and_earlier_with_what_somebody_waits_for(
    world: World, sub: Subscriber
) -> None:
    await world.settled()
    before = len(world.disk.commits)
    fire(world, "1")
    world.clock.advance(LAZY_COMMIT_S / 2)
    await asyncio.sleep(0)
    fire(world, "2")
    assert len(world.disk.commits) == before
    world.log.append([message("3", "u")])
    await world.flushed()
    assert [batch for batch, _, _ in world.disk.commits[before:]] == [[b"1", b"2", b"3"]]
    fire(world, "4")
    world.clock.advance(LAZY_COMMIT_S)
    for _ in range(5):
        await asyncio.sleep(0)
    assert world.disk.commits[-1][0] == [b"4"]
    assert world.disk.commits[-1][2] is False


async def test_each_of_many_gets_it_a_part_in_each_turn(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(at_once, "AT_ONCE_MAX", 2 * (WAKE_MESSAGES + 1))
    many = [await subscriber(world, f"s{n}") for n in range(5)]
    world.disk.may_commit.clear()
    fire(world, "1")
    fire(world, "2")
    served = []
    for _ in range(4):
        served.append([len(each.got) for each in many])
        await asyncio.sleep(0)
    assert served == [[1, 1, 0, 0, 0], [1, 1, 2, 2, 0], [2, 1, 2, 2, 2], [2, 2, 2, 2, 2]]
    world.disk.may_commit.set()
    await world.settled()
    assert [payloads(each.got) for each in many] == [texts(2)] * 5


async def test_it_goes_out_with_each_ones_own_grant(world: World, live: Subscriber) -> None:
    world.disk.may_commit.set()
    overlapping = await subscriber(
        world, "o", subscription("t", 2, identifier=7), subscription("#", 0, identifier=8)
    )
    alone = await subscriber(world, "pub1", subscription("t", no_local=True))
    world.disk.may_commit.clear()
    fire(world, "1")
    [(_, grant)] = overlapping.got
    assert (grant.qos, grant.subscription_ids) == (2, (7, 8))
    assert alone.got == []
    fire(world, message("2", qos=0, publisher="other"))
    assert payloads(alone.got) == [b"2"]


# The order within a topic


async def test_it_waits_for_an_older_message_of_its_topic_and_for_no_other(
    world: World, live: Subscriber
) -> None:
    """[MQTT-4.6.0-6]"""
    placed_there = await wildcard(world)
    world.log.append([message("old", "t")])
    fire(world, message("new", "t", qos=0), message("other", "u", qos=0))
    assert payloads(placed_there.got) == [b"other"]
    for _ in range(5):  # The first is being committed now.
        await asyncio.sleep(0)
    fire(world, message("newer", "t", qos=0))
    assert payloads(placed_there.got) == [b"other"]
    world.disk.may_commit.set()
    await world.settled()
    assert payloads(placed_there.got) == [b"other", b"old", b"new", b"newer"]
    assert payloads(live.got) == [b"old", b"new", b"newer"]


async def wildcard(world: World) -> Subscriber:
    world.disk.may_commit.set()
    made = await subscriber(world, "wildcard", subscription("#"))
    world.disk.may_commit.clear()
    return made


async def test_a_message_that_is_committed_and_not_routed_is_not_overtaken(
    world: World, sub: Subscriber
) -> None:
    await world.settled()
    world.log.append([message("old")], lambda error: fire(world, "new"))
    await world.settled()
    assert payloads(sub.got) == [b"old", b"new"]


async def test_qos_1_for_a_subscription_with_qos_0_waits_for_its_commit(
    world: World, live: Subscriber
) -> None:
    world.disk.may_commit.set()
    light = await subscriber(world, "light", subscription(qos=0))
    world.disk.may_commit.clear()
    world.log.append([message("1")])
    await asyncio.sleep(0)
    assert light.got == []
    world.disk.may_commit.set()
    await world.settled()
    assert payloads(light.got) == [b"1"]


# Whoever cannot take it


async def test_who_is_slow_gets_it_from_the_log_in_its_order(
    world: World, live: Subscriber
) -> None:
    fire(world, "1")
    live.limit = 0
    fire(world, "2")
    live.limit = 1 << 20
    fire(world, "3")
    assert payloads(live.got) == [b"1"], "2 must come first"
    world.disk.may_commit.set()
    await world.settled()
    assert payloads(live.got) == texts(3)
    world.disk.may_commit.clear()
    fire(world, "4")
    assert payloads(live.got) == texts(4)


async def test_who_can_take_it_again_catches_up_without_the_log(
    world: World, live: Subscriber
) -> None:
    live.limit = 0
    fire(world, "1")
    fire(world, "2")
    live.limit = 1 << 20
    live.wake()
    fire(world, "3")
    assert payloads(live.got) == texts(3)
    world.disk.may_commit.set()
    await world.settled()
    assert payloads(live.got) == texts(3)


async def test_who_falls_behind_gets_nothing_twice_and_misses_nothing(
    world: World, live: Subscriber
) -> None:
    fire(world, *[str(n) for n in range(1, 4)])
    live.limit = 0
    world.log.append(numbered(20, "t", first=4))
    fire(world, message("x", qos=0))
    world.disk.may_commit.set()
    await world.settled()
    world.log.append(numbered(20, "t", first=24))
    await world.settled()
    assert not world.is_live(live)
    live.limit = 1 << 20
    live.wake()
    await world.settled()
    expected = [*texts(23), b"x", *texts(20, first=24)]
    assert payloads(live.got) == expected


async def full_window(world: World) -> Subscriber:
    """Has room for one message, has that, and another one waits."""
    narrow = Subscriber(world)
    await narrow.open("narrow", receive_maximum=1)
    narrow.subscribe(subscription(client_id="narrow"))
    await world.publish(*numbered(2))
    assert payloads(narrow.got) == [b"1"]
    world.disk.may_commit.clear()
    return narrow


async def test_it_goes_past_a_full_window_and_does_not_come_again(world: World) -> None:
    narrow = await full_window(world)
    fire(world, "3")
    assert payloads(narrow.got) == [b"1", b"3"]
    world.disk.may_commit.set()
    await world.settled()
    fire(world, "4")
    assert payloads(narrow.got) == [b"1", b"3", b"4"]
    await narrow.acknowledge()
    assert payloads(narrow.got) == [b"1", b"3", b"4", b"2"]
    await narrow.acknowledge()
    fire(world, "5")
    assert payloads(narrow.got) == [b"1", b"3", b"4", b"2", b"5"]


@pytest.mark.parametrize("committed", [False, True])
async def test_what_went_past_a_full_window_does_not_come_to_the_next_connection(
    world: World, committed: bool
) -> None:
    narrow = await full_window(world)
    fire(world, "3")
    if committed:
        world.disk.may_commit.set()
        await world.settled()
    await world.publish(message("4")) if committed else None
    narrow.close()
    world.disk.may_commit.set()
    await world.settled()
    again = await come_back(world, "narrow")
    await again.acknowledge()
    assert b"3" not in payloads(again.got)
    assert payloads(again.got)[:1] == [b"2"]


async def test_what_came_past_an_older_message_that_waits_does_not_come_again(
    world: World, live: Subscriber
) -> None:
    """The older one is routed, and so is what was handed on, before the client takes it."""
    wide = await wildcard(world)
    world.log.append([message("2", "t")])
    fire(world, message("3", "u", qos=0))
    wide.limit = 0
    world.disk.may_commit.set()
    await world.settled()
    assert payloads(wide.got) == [b"3"]
    wide.close()
    again = await come_back(world, "wildcard")
    assert payloads(again.got) == [b"2"]


async def test_what_a_cursor_would_have_too_much_to_say_of_waits_for_its_commit(
    world: World, live: Subscriber, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each QoS 1 message between makes a part more. Sessions that end need no cursor."""
    monkeypatch.setattr(at_once, "PARTS_MAX", 3)
    world.disk.may_commit.set()
    passing = Subscriber(world)
    await passing.open("passing", expiry_s=0)
    world.delivery.subscribe(placed(passing), subscription(client_id="passing"))
    await world.settled()
    world.disk.may_commit.clear()
    for number in range(1, 8):
        fire(world, str(number))
        world.log.append([message("between", "u")])
    assert (payloads(live.got), payloads(passing.got)) == (texts(3), texts(7))
    world.disk.may_commit.set()
    await world.settled()
    assert (payloads(live.got), payloads(passing.got)) == (texts(7), texts(7))


async def test_a_crash_does_not_repeat_what_went_past_a_full_window(world: World) -> None:
    await full_window(world)
    fire(world, "3")
    world.disk.may_commit.set()
    await world.settled()
    async with running(world.disk) as after:
        again = await come_back(after, "narrow")
        assert payloads(again.got) == [b"1", b"2"]


# Coming, leaving, changing


async def test_a_subscription_counts_from_where_it_stands_in_the_order_of_arrival(
    world: World, live: Subscriber
) -> None:
    fire(world, message("before", "u", qos=0))
    done = change(world, live, "u")
    fire(world, message("after", "u", qos=0), message("other", "t", qos=0))
    assert payloads(live.got) == []
    assert done == []
    world.disk.may_commit.set()
    await world.settled()
    assert done == ["done"]
    assert payloads(live.got) == [b"after", b"other"]


async def test_a_subscription_ends_the_wait_for_company(world: World, sub: Subscriber) -> None:
    await world.settled()
    fire(world, "1")
    done = change(world, sub, "u")
    for _ in range(20):
        await asyncio.sleep(0)
    assert done == ["done"]
    assert world.disk.high_watermark == 1


async def test_nothing_comes_after_an_unsubscribe(world: World, live: Subscriber) -> None:
    fire(world, "before")
    world.delivery.changes.unsubscribe(placed(live), ["t"], lambda error: None)
    fire(world, "after")
    world.disk.may_commit.set()
    await world.settled()
    assert payloads(live.got) == [b"before"]


async def test_who_comes_between_arrival_and_commit_gets_what_comes_after_it(
    world: World, live: Subscriber
) -> None:
    fire(world, "before")
    late = Subscriber(world)
    opening = asyncio.create_task(late.open("late", expiry_s=0))
    await asyncio.sleep(0)
    await opening
    done = change(world, late, "t")
    fire(world, "after")
    world.disk.may_commit.set()
    await world.settled()
    assert done == ["done"]
    assert payloads(late.got) == [b"after"]
    assert payloads(live.got) == [b"before", b"after"]


async def test_who_is_gone_and_back_before_the_commit_gets_each_once(
    world: World, live: Subscriber
) -> None:
    fire(world, "1")
    live.close()
    fire(world, "2")
    opening = asyncio.create_task(come_back(world))
    for _ in range(10):
        await asyncio.sleep(0)
    fire(world, "3")
    world.disk.may_commit.set()
    again = await opening
    await world.settled()
    assert payloads(live.got) == [b"1"]
    assert payloads(again.got) == [b"2", b"3"]


async def test_who_leaves_before_the_commit_and_is_read_from_the_log_gets_nothing_twice(
    world: World, live: Subscriber
) -> None:
    """Its cursor names all of it, though one commit does not take so much of QoS 0."""
    world.log._pace.batch_bytes_max = 1
    fire(world, "1")
    fire(world, "2")
    left = placed(live)
    live.close()
    world.disk.may_commit.set()
    await world.settled()
    again = await come_back(world)
    assert (payloads(live.got), payloads(again.got)) == (texts(2), [])
    assert placed(again) is not left


async def test_who_is_taken_over_gets_each_once(world: World, live: Subscriber) -> None:
    fire(world, "1")
    opening = asyncio.create_task(come_back(world))
    for _ in range(10):
        await asyncio.sleep(0)
    assert live.lost
    fire(world, "2")
    world.disk.may_commit.set()
    again = await opening
    await world.settled()
    assert (payloads(live.got), payloads(again.got)) == ([b"1"], [b"2"])


async def test_a_clean_start_gets_nothing_of_what_was_before(
    world: World, live: Subscriber
) -> None:
    fire(world, "1")
    opening = asyncio.create_task(come_back(world, clean_start=True))
    for _ in range(10):
        await asyncio.sleep(0)
    fire(world, "2")
    world.disk.may_commit.set()
    again = await opening
    await world.settled()
    assert (payloads(live.got), payloads(again.got)) == ([b"1"], [])


async def test_a_retained_message_that_is_not_logged_yet_is_found_by_a_new_subscription(
    world: World, live: Subscriber
) -> None:
    fire(world, message("kept", "t", qos=0, retain=True))
    world.disk.may_commit.set()
    late = Subscriber(world)
    await late.open("late", expiry_s=0)
    change(world, late, "t", retain_handling=0)
    await world.settled()
    world.delivery.send_owed(placed(late))
    await world.settled()
    assert [(m.payload, grant.retained) for m, grant in late.got] == [(b"kept", True)]
    assert [(m.payload, grant.retained) for m, grant in live.got] == [(b"kept", False)]


# Whoever needs the log


@pytest.mark.parametrize("why", ["metadata", "a group", "the first after a replay"])
async def test_who_needs_the_log_waits_for_a_commit_that_begins_at_once_and_is_not_synced(
    why: str, world: World, live: Subscriber
) -> None:
    """Nobody else waits for it."""
    world.disk.may_commit.set()
    if why == "a group":
        topic, waiting = "jobs/a", await member(world, "waiting")
    elif why == "metadata":
        topic = "t"
        waiting = await subscriber(world, "waiting", replace(subscription(), metadata=True))
    else:
        topic = "u"
        await world.publish(*numbered(3, "u"))
        waiting = await subscriber(world, "waiting", subscription("u", replaying=True))
        waiting.got.clear()
    fire(world, message("first", topic, qos=0), message("second", "t", qos=0))
    assert (payloads(live.got)[-1:], waiting.got) == ([b"second"], [])
    for _ in range(20):
        await asyncio.sleep(0)
    assert (world.disk.commits[-1][0], world.disk.commits[-1][2]) == ([b"first", b"second"], False)
    await world.settled()
    found, grant = waiting.got[0]
    assert (found.payload, found.offset) == (b"first", world.disk.high_watermark - 1)
    assert grant.metadata == (why == "metadata")
    assert grant.caught_up == (why == "the first after a replay")
    assert payloads(waiting.got).count(b"first") == payloads(live.got).count(b"second") == 1


async def test_who_replays_gets_each_once(world: World, sub: Subscriber) -> None:
    await world.publish(*numbered(3, "u"))
    replaying = await subscriber(
        world, "r", subscription("u", start=0, replaying=True), subscription("t")
    )
    assert payloads(replaying.got) == texts(3)
    world.disk.may_commit.clear()
    fire(world, message("4", "u", qos=0), message("5", "t", qos=0))
    assert payloads(replaying.got) == texts(3)
    world.disk.may_commit.set()
    await world.settled()
    assert payloads(replaying.got) == texts(5)
    assert replaying.got[3][1].caught_up, "the first live message says so, and waits for the log"
    world.disk.may_commit.clear()
    fire(world, message("6", "u", qos=0))
    assert payloads(replaying.got) == texts(6)


async def test_one_member_of_a_group_gets_it_once(world: World) -> None:
    members = [await member(world, f"m{n}") for n in range(3)]
    for number in range(1, 7):
        fire(world, message(str(number), "jobs/a", qos=0))
        await world.settled()
    assert numbers(*members) == list(range(1, 7))


# The disk


async def test_a_crash_repeats_nothing_that_was_served(world: World, live: Subscriber) -> None:
    """Its place is in the commit of the messages."""
    fire(world, "1", "2")
    world.disk.may_commit.set()
    await world.flushed()
    [(batch, _, durable)] = [c for c in world.disk.commits if c[0]]
    assert (batch, durable) == ([b"1", b"2"], False)
    async with running(world.disk) as after:
        again = await come_back(after)
        assert again.got == []
        fire(after, "3")
        assert payloads(again.got) == [b"3"]


async def test_a_crash_repeats_nothing_that_was_served_beside_what_was_not(
    world: World, live: Subscriber
) -> None:
    """The messages of QoS 1 in the commit were not sent yet."""
    world.log.append([message("a", "t")])
    world.disk.may_commit.set()
    await world.settled()
    world.disk.may_commit.clear()
    fire(world, "1")
    world.log.append([message("b", "t")])
    world.disk.may_commit.set()
    await world.flushed()
    async with running(world.disk) as after:
        again = await come_back(after)
        assert payloads(again.got) == [b"a", b"b"]


async def test_the_cursor_moves_over_what_was_served(world: World, live: Subscriber) -> None:
    fire(world, "1", "2")
    world.disk.may_commit.set()
    await world.flushed()
    cursor = await stored_cursor(world)
    assert (cursor.offset, cursor.sent_through, cursor.inflight) == (2, 2, b"")
    world.disk.may_commit.clear()
    world.log.append([message("3")])
    world.disk.may_commit.set()
    await world.settled()
    world.disk.may_commit.clear()
    fire(world, "4")
    world.disk.may_commit.set()
    await world.flushed()
    cursor = await stored_cursor(world)
    assert (cursor.offset, served_beyond(cursor).ranges()) == (2, [range(4, 5)])


async def test_a_full_disk_keeps_nobody_waiting(world: World, live: Subscriber) -> None:
    world.disk.may_commit.set()
    world.disk.full = True
    fire(world, "1")
    world.clock.advance(LAZY_COMMIT_S)
    for _ in range(5):
        await asyncio.sleep(0)
    fire(world, "2")
    assert payloads(live.got) == texts(2)
    assert world.counters.dropped["not logged: disk"] == 2
    world.disk.full = False
    await world.settled()
    fire(world, "3")
    await world.settled()
    assert payloads(live.got) == texts(3)


async def test_a_stalled_disk_keeps_nobody_waiting_and_takes_no_memory_beyond_the_bound() -> None:
    """P7"""
    async with running(Disk(), Config(append_bytes_max=20 * message().cost)) as world:
        sub = await subscriber(world, "sub1")
        world.disk.may_commit.clear()
        world.log.append([message("held up", "u")])
        for n in range(100):
            fire(world, f"{n:03}")
        assert len(sub.got) == 100
        assert world.log.qos0.size <= 20 * message().cost
        world.disk.may_commit.set()
        await world.settled()
        assert len(sub.got) == 100
        assert world.counters.dropped["not logged: disk"] == 101 - world.disk.high_watermark


async def test_a_mistake_while_it_is_handed_on_is_told_to_that_one_alone(
    world: World, live: Subscriber, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.disk.may_commit.set()
    other = await subscriber(world, "other")
    world.disk.may_commit.clear()

    def mistake(outgoing: object) -> bool:
        raise ZeroDivisionError

    monkeypatch.setattr(live, "hand_on", mistake)
    fire(world, "1")
    assert [type(error) for error in live.errors] == [ZeroDivisionError]
    assert payloads(other.got) == [b"1"]


# Rights


def may_read(world: World, of: Subscriber, *rules: str) -> None:
    """From now on only that."""
    placed(of).grants.allow(Rights(Rulebook(*rules), "anna", None, "c"))
    world.delivery.rights_changed(limited=True)


async def test_what_waits_for_a_turn_does_not_come_to_who_may_not_read_it_any_more(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(at_once, "AT_ONCE_MAX", WAKE_MESSAGES + 1)
    many = [await subscriber(world, f"s{n}") for n in range(4)]
    world.disk.may_commit.clear()
    fire(world, "1")
    assert [len(each.got) for each in many] == [1, 0, 0, 0]
    for each in many[1:3]:
        may_read(world, each)
    for _ in range(4):
        await asyncio.sleep(0)
    world.disk.may_commit.set()
    await world.settled()
    assert [payloads(each.got) for each in many] == [[b"1"], [], [], [b"1"]]


async def test_who_catches_up_gets_what_it_may_read_by_then(world: World, live: Subscriber) -> None:
    live.limit = 0
    fire(world, "1")
    may_read(world, live)
    live.limit = 1 << 20
    live.wake()
    assert live.got == []
    world.disk.may_commit.set()
    await world.settled()
    assert live.got == []
