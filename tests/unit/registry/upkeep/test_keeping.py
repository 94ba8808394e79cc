"""Keeping: whose messages stay, and what is told when they cannot."""

from __future__ import annotations

import json
import logging

import pytest

from broker.documents import CursorDocument, Put, SessionDocument
from broker.errors import ConfigError
from broker.message import Offset
from broker.registry.upkeep import keeping
from broker.registry.upkeep.keeping import Keeping, Selected, Wanted, require_filter
from broker.settings.retention import RetentionRule
from tests.support.messages import numbered
from tests.support.world import Subscriber, World, leave_in_flight, subscription


def keeper(world: World, *rules: RetentionRule) -> Keeping:
    rules = rules or (RetentionRule(None, count=0),)
    return Keeping(rules, world.disk, world.delivery, world.counters, world.clock)


async def judged(world: World, of: Keeping) -> dict[str, tuple[int, int]]:
    """By topic, the number of its rule, and from where on it is wanted; 0: by nobody."""
    through = await of.look()
    found = {}
    for segment in await world.disk.removing.segments(Offset(0)):
        names = await world.disk.removing.topic_names(segment.topics)
        for number, judgement in (await of.judge(segment.topics)).items():
            wanted = judgement.unread_from if judgement.unread_from <= through else 0
            found[names[number]] = judgement.rule, int(wanted)
    return found


async def test_the_first_rule_that_matches_counts(world: World) -> None:
    await world.publish(*numbered(4, lambda n: ["a/b", "a/c", "d", "$x"][n - 1]))
    rules = RetentionRule("a/b"), RetentionRule("a/#"), RetentionRule("#")
    found = await judged(world, keeper(world, *rules))
    assert found == {"a/b": (0, 0), "a/c": (1, 0), "d": (2, 0)}
    assert (await judged(world, keeper(world)))["$x"] == (0, 0)


async def test_an_absent_subscriber_wants_what_matches_above_its_cursor(world: World) -> None:
    absent = Subscriber(world)
    await absent.open()
    absent.subscribe(subscription("a/#"))
    await world.publish(*numbered(3, "a/b"))
    await absent.acknowledge()
    absent.close()
    await world.publish(*numbered(4, lambda n: ["a/b", "b"][n % 2]))
    of = keeper(world)
    assert await judged(world, of) == {"a/b": (0, 4), "b": (0, 0)}
    assert of.unread_from == 4


async def test_who_has_read_everything_wants_nothing(world: World) -> None:
    live = Subscriber(world)
    await live.open()
    live.subscribe(subscription("t"))
    await world.publish(*numbered(3))
    of = keeper(world)
    assert await judged(world, of) == {"t": (0, 1)}
    await live.acknowledge()
    assert await judged(world, of) == {"t": (0, 0)}
    assert of.unread_from == 4


async def test_a_connected_session_that_is_behind_wants_what_it_has_not_read(
    world: World,
) -> None:
    """Also one that is not durable."""
    slow = Subscriber(world, limit=0)
    await slow.open(expiry_s=0)
    assert slow.session is not None
    world.delivery.subscribe(slow.session, subscription("t"))
    await world.publish(*numbered(5))
    slow.session.fall_behind(Offset(2))
    assert await judged(world, keeper(world)) == {"t": (0, 3)}


async def test_what_is_in_flight_below_the_cursor_is_held(world: World) -> None:
    """As a retained message or a replay is, whose exchange is not over. QoS 2, too."""
    await leave_in_flight(world, *numbered(3), qos=2)
    cursor = await world.disk.get(CursorDocument, ("sub1",))
    assert cursor is not None
    of = keeper(world)
    assert await judged(world, of) == {"t": (0, 1)}
    assert of.held == set()


async def test_a_damaged_cursor_holds_up_nobody(world: World) -> None:
    await leave_in_flight(world, *numbered(3), qos=2)
    cursor = await world.disk.get(CursorDocument, ("sub1",))
    assert cursor is not None
    cursor.inflight = b"\x81damaged"
    await world.disk.transact([Put(cursor)])
    assert await judged(world, keeper(world)) == {"t": (0, 1)}


async def test_what_goes_unread_is_told_as_an_event_and_on_standard_error(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    await world.disk.transact([Put(SessionDocument("sub7", 60, 1, None))])
    await world.disk.transact([Put(subscription("t", client_id="sub7"))])
    listener = Subscriber(world)
    await listener.open()
    listener.subscribe(subscription(keeping.EVENT))
    await world.publish(*numbered(9))
    of = keeper(world)
    assert await judged(world, of) == {"t": (0, 1)}
    with caplog.at_level(logging.WARNING):
        of.removed_unread([Offset(2), Offset(5)], {1})
        of.removed_unread([Offset(6)], {1})
    await world.settled()
    (message, _), _ = listener.got
    expected = {"messages": 2, "first": 2, "last": 5, "subscribers": ["sub7"]}
    assert json.loads(message.payload) == expected
    assert caplog.text.count("sub7 did not get, from offset 2 on") == 1
    assert world.counters.removed_unread == 3


async def test_selected_by_hand(world: World) -> None:
    await world.publish(*numbered(3, lambda n: ["a", "b", "$c"][n - 1]))
    usual = keeper(world)
    assert await judged(world, Selected(["a"], usual)) == {"a": (0, 0)}
    assert await judged(world, Selected([], usual)) == {"a": (0, 0), "b": (0, 0), "$c": (0, 0)}


def test_more_filters_than_are_told_apart_are_all_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeping, "FILTERS_MAX", 1)
    wanted = Wanted()
    wanted.add("$share/g/x", Offset(1), "member")
    wanted.add("a", Offset(9), "one")
    wanted.add("a", Offset(7), "two")
    assert (wanted.by_topic("a"), wanted.lowest) == (7, 7)
    wanted.add("b", Offset(8), "three")
    assert (wanted.by_topic("c"), wanted.by_topic("a")) == (8, 7)
    assert wanted.by(Offset(7), ["a"]) == ["one", "two"]
    assert wanted.by(Offset(6), ["a"]) == wanted.by(Offset(7), ["b"]) == []


@pytest.mark.parametrize("wrong", ["a/#/b", "a+", "$share/g/t"])
def test_a_rule_whose_filter_is_none_is_refused(wrong: str) -> None:
    with pytest.raises(ConfigError, match=r"retention\[2\].filter"):
        require_filter("retention[2].filter", wrong)
    require_filter("x", None)
    require_filter("x", "a/+/#")
