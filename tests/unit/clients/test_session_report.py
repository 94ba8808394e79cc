"""What a client that asks is told in CONNACK about the session that it comes back to."""

from __future__ import annotations

import pytest

from broker.clients import session_report
from broker.clients.session_report import SUBSCRIPTIONS, UNREAD, report
from broker.errors import StoreUnavailable
from broker.mqtt.packets import MQTT_5, Connect, UserProperties
from tests.support.clients import Dialogue
from tests.support.messages import message, numbered
from tests.support.world import Subscriber, World, placed, subscription


async def told(world: World, *asked: tuple[str, str]) -> UserProperties:
    """Of `sub1`, which comes back and takes nothing."""
    back = Subscriber(world, limit=0)
    assert await back.open()
    packet = Connect(MQTT_5, "sub1", False, 60, user_properties=list(asked))
    answer = await report(packet, placed(back), world.log)
    back.close()
    await world.settled()
    return answer


@pytest.fixture
async def absent(world: World) -> None:
    """`sub1` has acknowledged nothing of one message, and is away."""
    first = Subscriber(world)
    await first.open()
    first.subscribe(subscription("t"))
    first.subscribe(subscription("u/#"))
    await world.publish(message("in flight"))
    first.close()
    await world.settled()


@pytest.mark.usefixtures("absent")
async def test_it_names_the_subscriptions_and_their_number(world: World) -> None:
    assert await told(world, SUBSCRIPTIONS) == [
        ("subscription", "t"),
        ("subscription", "u/#"),
        ("subscriptions", "2"),
    ]


@pytest.mark.usefixtures("absent")
async def test_more_filters_than_a_packet_should_hold_are_counted(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_report, "FILTERS_BYTES_MAX", 1)
    assert await told(world, SUBSCRIPTIONS) == [("subscription", "t"), ("subscriptions", "2")]


@pytest.mark.usefixtures("absent")
async def test_it_counts_what_was_not_acknowledged_and_what_was_missed(world: World) -> None:
    await world.publish(message("x", "u/1"), message("x", "other"), message("x", "t", qos=0))
    assert await told(world, UNREAD) == [("unread", "3")]


@pytest.mark.usefixtures("absent")
async def test_counting_stops_where_it_would_read_too_much(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_report, "READS_MAX", 1)
    await world.publish(*numbered(2000))
    assert await told(world, UNREAD) == [("unread-at-least", "1001")]


@pytest.mark.usefixtures("absent")
async def test_a_log_that_cannot_be_read_is_no_reason_to_refuse_the_client(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def failing(*_: object, **__: object) -> None:
        raise StoreUnavailable("not now")

    await world.publish(*numbered(1))
    monkeypatch.setattr(world.disk, "read", failing)
    packet = Connect(MQTT_5, "sub1", False, 60, user_properties=[UNREAD])
    back = Subscriber(world, limit=0)
    await back.open()
    assert await report(packet, placed(back), world.log) == []
    assert "client 'sub1': unread messages not counted: not now" in caplog.messages


async def test_it_comes_with_the_connack_of_a_session_that_is_there(world: World) -> None:
    """And who does not ask is told nothing."""
    connect = "10 ( 0004 'MQTT' 05 00 003C ( 11 00000064 {} ) 0001 'a' )"
    asking = connect.format("26 0004 'tell' 000D 'subscriptions'")
    for script, connack in (
        (asking, "20 03 00 00 00"),
        (asking, "20 16 01 00 13 26 000D 'subscriptions' 0001 '0'"),
        (connect.format(""), "20 03 01 00 00"),
    ):
        dialogue = Dialogue(world)
        dialogue.client(script)
        await dialogue.broker(connack)
        dialogue.peer.lost()
