"""LineClient: commands are answered in order; what the system took counts as acknowledged."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from broker.clients.half_open import SELDOM_S
from broker.clients.line_client import NOT_STORED, TAKEN_OVER
from broker.documents import SessionDocument, SubscriptionDocument
from broker.log.outage import DISK_LOW
from broker.message import Message, Offset
from tests.support.clients import NOTHING_TO_TELL
from tests.support.lines import Lines
from tests.support.messages import message, numbered
from tests.support.two_brokers import both_settled, two_brokers
from tests.support.world import Disk, World, cursor, leave_in_flight, running


async def turns() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


# Commands


async def test_commands_are_answered_in_their_order(world: World, lines: Lines) -> None:
    world.disk.may_commit.clear()
    lines.says("PUBLISH t 1 p", "nonsense", "SUBSCRIBE t sub1", "PUBLISH t 2 p", "PUBLISH")
    await turns()
    assert lines.written() == []
    world.disk.may_commit.set()
    assert await lines.gets() == [
        "OK",
        "ERROR unknown command: use SUBSCRIBE, UNSUBSCRIBE, PUBLISH, CONFIRM or LOGIN",
        "OK",
        "OK",
        "ERROR PUBLISH takes a topic, a message and a publisher",
        "2",
    ]


async def test_a_message_is_stored_with_its_publisher_and_time(world: World, lines: Lines) -> None:
    now_us = world.clock.wall_us()
    lines.says("PUBLISH t one two p", "PUBLISH u x q")
    assert await lines.gets() == ["OK", "OK"]
    read = await world.disk.read(Offset(1), Offset(2))
    assert read.messages == [
        Message("t", b"one two", 1, False, "p", now_us, offset=Offset(1)),
        Message("u", b"x", 1, False, "q", now_us, offset=Offset(2)),
    ]
    assert [payloads for payloads, *_ in world.disk.commits] == [[b"one two", b"x"]]


async def test_who_publishes_is_told_that_the_disk_is_full(world: World, lines: Lines) -> None:
    world.disk.full = True
    lines.says("PUBLISH t 1 p", "PUBLISH t 2 p")
    await turns()
    assert lines.written() == [f"ERROR {NOT_STORED}"] * 2


async def test_who_publishes_is_told_that_the_disk_is_nearly_full(
    world: World, lines: Lines
) -> None:
    world.log.outage.room("no room")
    lines.says("PUBLISH t 1 p", "PUBLISH t 2 p")
    await turns()
    assert lines.written() == ["ERROR no room"] * 2
    assert world.counters.dropped[DISK_LOW] == 2
    world.log.outage.room("")
    lines.says("PUBLISH t 3 p")
    assert await lines.gets() == ["OK"]


async def test_a_connection_is_not_read_from_while_too_much_waits_for_the_disk() -> None:
    """P7"""
    config = replace(NOTHING_TO_TELL, append_bytes_max=9)
    async with running(Disk(), config) as world:
        lines = Lines(world, config)
        world.disk.may_commit.clear()
        lines.says("PUBLISH t 123456789 p")
        await turns()
        assert lines.transport.reading, "it is being committed"
        lines.says("PUBLISH t 1 p")
        assert not lines.transport.reading
        world.disk.may_commit.set()
        assert await lines.gets() == ["OK", "OK"]
        assert lines.transport.reading


async def test_a_command_that_is_done_does_not_end_another_reason_not_to_read() -> None:
    """P7"""
    config = replace(NOTHING_TO_TELL, append_bytes_max=9)
    async with running(Disk(), config) as world:
        lines = Lines(world, config)
        lines.says("SUBSCRIBE t sub1")
        assert await lines.gets() == ["OK"]
        world.disk.may_commit.clear()
        lines.says("PUBLISH t 1 p")
        await turns()
        lines.says("SUBSCRIBE t sub1", "PUBLISH t 1234567890 p")  # It has that subscription.
        assert lines.transport.not_read_because == {"step"}
        await turns()
        assert lines.transport.not_read_because == {"log"}
        world.disk.may_commit.set()
        assert sorted(await lines.gets()) == ["1", "1234567890", "OK", "OK", "OK"]
        assert lines.transport.reading


async def test_a_mistake_of_ours_while_it_subscribes_cuts_it_off(
    world: World,
    lines: Lines,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Or its connection would not be read from for ever."""

    def mistake(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(world.delivery.changes, "subscribe", mistake)
    lines.says("SUBSCRIBE t sub1")
    await world.settled()
    assert lines.transport.aborted
    assert caplog.messages == ["line client at here (subscribers: sub1) is cut off"]
    assert world.sessions.connected_count == 0


# Without CONFIRM


@pytest.fixture
def original(world: World) -> Lines:
    """A client of the program that spoke the protocol first: it asks for no answers."""
    return Lines(world, confirm=False)


async def test_what_succeeds_is_answered_by_nothing(world: World, original: Lines) -> None:
    original.says("SUBSCRIBE t sub1", "PUBLISH u 1 p", "UNSUBSCRIBE u sub1")
    assert await original.gets() == []
    await world.publish(message("2"))
    assert await original.gets() == ["2"]
    assert [payloads for payloads, *_ in world.disk.commits if payloads] == [[b"1"], [b"2"]]


async def test_confirm_counts_from_where_it_stands(world: World, original: Lines) -> None:
    """What came before it is not answered, also where that is done later."""
    world.disk.may_commit.clear()
    original.says("PUBLISH t 1 p", "confirm", "PUBLISH t 2 p", "PUBLISH", "CONFIRM")
    await turns()
    assert original.written() == []
    world.disk.may_commit.set()
    error = "ERROR PUBLISH takes a topic, a message and a publisher"
    assert await original.gets() == ["OK", "OK", error, "OK"]


async def test_what_went_wrong_is_said_once_a_second_and_counted(
    world: World, original: Lines
) -> None:
    original.says("nonsense", "PUBLISH", "SUBSCRIBE a#b sub1")
    [error] = await original.gets()
    assert error.startswith("ERROR unknown command")
    assert world.counters.left_out.line_errors == 2
    world.clock.advance(0.9)
    original.says("PUBLISH")
    assert await original.gets() == []
    world.clock.advance(0.2)
    original.says("PUBLISH")
    assert await original.gets() == ["ERROR PUBLISH takes a topic, a message and a publisher"]
    assert world.counters.left_out.line_errors == 3


async def test_a_message_that_could_not_be_stored_is_told_too(
    world: World, original: Lines
) -> None:
    """P6"""
    world.disk.full = True
    original.says("PUBLISH t 1 p", "PUBLISH t 2 p")
    await turns()
    assert original.written() == [f"ERROR {NOT_STORED}"]


async def test_who_does_not_read_is_told_nothing_and_goes_on_publishing(
    world: World, original: Lines
) -> None:
    original.client.writable(yes=False)
    for number in range(3):
        original.says("nonsense", f"PUBLISH t {number} p")
        await world.settled()
        world.clock.advance(2)
    assert await original.gets() == []
    assert original.transport.reading
    assert world.counters.left_out.line_errors == 3
    assert world.disk.high_watermark == 3
    original.client.writable(yes=True)
    original.says("nonsense")
    assert len(await original.gets()) == 1


# Subscribing


async def test_a_subscription_is_stored_before_it_is_answered(world: World, lines: Lines) -> None:
    """And what follows waits for it, in the socket too."""
    await world.publish(*numbered(1))
    lines.says("SUBSCRIBE t sub1", "SUBSCRIBE u sub1")
    assert not lines.transport.reading
    await asyncio.sleep(0)
    world.disk.may_commit.clear()
    await turns()
    assert lines.written() == []
    world.disk.may_commit.set()
    assert await lines.gets() == ["OK", "OK"]
    assert lines.transport.reading
    stored = await world.disk.scan(SubscriptionDocument)
    assert [(s.filter, s.qos, s.start_offset) for s in stored] == [("t", 1, 1), ("u", 1, 1)]
    session = await world.disk.get(SessionDocument, ("sub1",))
    assert session is not None
    assert session.session_expiry_s == NOTHING_TO_TELL.session_expiry_default_s


async def test_who_is_subscribed_already_is_only_told_so(world: World, lines: Lines) -> None:
    """Also what is retained comes once."""
    await world.publish(message("1", retain=True))
    for got in (["OK", "1"], ["OK"]):
        lines.says("SUBSCRIBE t sub1")
        assert await lines.gets() == got
    [stored] = await world.disk.scan(SubscriptionDocument)
    assert stored.start_offset == 1


async def test_what_the_broker_says_of_itself_comes_with_a_subscription(
    world: World, lines: Lines
) -> None:
    await lines.services.sys_tree.publish(world.clock.now())
    lines.says("SUBSCRIBE $SYS/broker/subscriptions/count sub1")
    assert await lines.gets() == ["OK", "0"]
    lines.says("SUBSCRIBE other sub1")
    assert await lines.gets() == ["OK"]


async def test_who_unsubscribed_gets_no_more(world: World, subscribed: Lines) -> None:
    subscribed.says("UNSUBSCRIBE t sub1", "UNSUBSCRIBE x sub1")
    await world.settled()
    await world.publish(*numbered(1))
    assert await subscribed.gets() == ["OK", "OK"]
    assert await world.disk.scan(SubscriptionDocument) == []


async def test_history_comes_first_and_is_unsubscribed_from_by_the_same_words(
    world: World, lines: Lines
) -> None:
    await world.publish(message("1", retain=True), message("2"))
    lines.says("SUBSCRIBE $replay/earliest/t sub1")
    assert sorted(await lines.gets()) == ["1", "2", "OK"]
    await world.publish(message("3"))
    lines.says("UNSUBSCRIBE $replay/earliest/t sub1")
    assert await lines.gets() == ["3", "OK"]
    assert await world.disk.scan(SubscriptionDocument) == []


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        ("SUBSCRIBE $share/g/t sub1", "shared subscriptions are not supported"),
        (
            "SUBSCRIBE t $share/g/t",
            "subscribers with $share/ are groups: use another name",
        ),
        ("SUBSCRIBE $replay/sometime/t sub1", None),
    ],
)
async def test_what_cannot_be_subscribed_to_is_refused_with_a_reason(
    command: str, reason: str | None, world: World, lines: Lines
) -> None:
    lines.says(command, "PUBLISH t 1 p")
    error, ok = await lines.gets()
    assert ok == "OK"
    assert error.startswith("ERROR ")
    assert reason is None or error == f"ERROR {reason}"
    assert await world.disk.scan(SubscriptionDocument) == []


@pytest.mark.parametrize(
    "command",
    [
        "UNSUBSCRIBE t never-seen",
        "SUBSCRIBE $share/g/t never-seen",
        "SUBSCRIBE $replay/sometime/t never-seen",
        "SUBSCRIBE $replay/1/$share/g/t never-seen",
    ],
)
async def test_a_session_is_made_only_for_a_subscription(
    world: World, lines: Lines, command: str
) -> None:
    lines.says(command)
    [answer] = await lines.gets()
    assert answer == "OK" or answer.startswith("ERROR ")
    assert (world.sessions.kept.client_count, world.sessions.connected_count) == (0, 0)
    assert await world.disk.scan(SessionDocument) == []


async def test_who_left_can_be_unsubscribed_by_another_connection(
    world: World, subscribed: Lines
) -> None:
    subscribed.client.lost()
    await world.settled()
    other = Lines(world)
    other.says("UNSUBSCRIBE t sub1")
    assert await other.gets() == ["OK"]
    assert await world.disk.scan(SubscriptionDocument) == []


async def test_a_connection_has_a_limited_number_of_subscribers(world: World) -> None:
    """Each is a session that stays, and takes memory while it is there."""
    lines = Lines(world, replace(NOTHING_TO_TELL, subscribers_per_connection_max=2))
    lines.says("SUBSCRIBE t a", "SUBSCRIBE t b", "SUBSCRIBE t c", "SUBSCRIBE u a")
    refused = "ERROR this connection has 2 subscribers already; use another"
    assert await lines.gets() == ["OK", "OK", refused, "OK"]
    assert (world.sessions.kept.client_count, world.sessions.connected_count) == (2, 2)
    other = Lines(world, replace(NOTHING_TO_TELL, subscribers_per_connection_max=2))
    other.says("SUBSCRIBE t c", "SUBSCRIBE t a")
    assert await other.gets() == ["OK", "OK"]
    lines.says("SUBSCRIBE t d")
    assert await lines.gets() == ["OK"], "one was taken over"


async def test_a_subscriber_has_a_limited_number_of_patterns_of_wildcards(world: World) -> None:
    lines = Lines(world, replace(NOTHING_TO_TELL, wildcard_patterns_per_session_max=1))
    lines.says("SUBSCRIBE a/+ s", "SUBSCRIBE b/+ s", "SUBSCRIBE b s", "SUBSCRIBE # s")
    refused = "ERROR the subscriber has 1 pattern of wildcards already"
    assert await lines.gets() == ["OK", "OK", "OK", refused]
    lines.says("SUBSCRIBE $replay/1/+/c s", "UNSUBSCRIBE a/+ s", "UNSUBSCRIBE b/+ s")
    lines.says("SUBSCRIBE +/c s")
    assert await lines.gets() == [refused, "OK", "OK", "OK"]


async def test_a_subscriber_has_a_limited_number_of_subscriptions(world: World) -> None:
    lines = Lines(world, replace(NOTHING_TO_TELL, subscriptions_per_session_max=2))
    lines.says("SUBSCRIBE a s", "SUBSCRIBE b s", "SUBSCRIBE c s", "SUBSCRIBE $replay/1/d s")
    refused = "ERROR the subscriber has 2 subscriptions already"
    assert await lines.gets() == ["OK", "OK", refused, refused]
    lines.says("SUBSCRIBE $replay/1/b s", "SUBSCRIBE a s", "UNSUBSCRIBE a s", "SUBSCRIBE c s")
    assert await lines.gets() == ["OK", "OK", "OK", "OK"]
    assert len(await world.disk.scan(SubscriptionDocument)) == 2


async def test_a_subscription_that_the_log_cannot_take_is_refused(
    world: World, lines: Lines, caplog: pytest.LogCaptureFixture
) -> None:
    world.disk.full = True
    lines.says("SUBSCRIBE t sub1")
    await turns()
    assert lines.written() == [f"ERROR {NOT_STORED}"]
    assert caplog.messages[1:] == ["line client at here: no space"]
    assert lines.transport.reading


# Taken over


async def test_another_connection_takes_a_subscriber_over_and_leaves_the_others(
    world: World, lines: Lines
) -> None:
    lines.says("SUBSCRIBE t sub1", "SUBSCRIBE t sub2")
    await world.settled()
    other = Lines(world)
    other.says("SUBSCRIBE t sub1")
    await world.settled()
    await world.publish(message("1"))
    assert (await lines.gets(), await other.gets()) == (["OK", "OK", "1"], ["OK", "1"])
    lines.says("SUBSCRIBE u sub1")
    await world.settled()
    await world.publish(message("2"))
    assert (await lines.gets(), await other.gets()) == (["OK", "2", "2"], [])
    assert world.sessions.connected_count == 2


async def test_who_is_taken_over_while_the_log_is_asked_is_told_so(
    world: World, subscribed: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Lines(world)

    async def taken_over_meanwhile(*_: object) -> Offset:
        other.says("SUBSCRIBE t sub1")
        await turns()
        return Offset(1)

    monkeypatch.setattr(world.disk, "nth_last", taken_over_meanwhile)
    subscribed.says("SUBSCRIBE $replay/-3/u sub1")
    assert await subscribed.gets() == [f"ERROR {TAKEN_OVER}"]
    assert await other.gets() == ["OK"]
    assert [s.filter for s in await world.disk.scan(SubscriptionDocument)] == ["t"]


# The end


async def test_who_has_no_more_to_say_is_delivered_to_until_it_closes(
    world: World, subscribed: Lines
) -> None:
    """It counts as acknowledged when it has arrived: one that is gone looks the same."""
    assert subscribed.client.end_of_input()
    subscribed.transport.arrived = False
    await world.publish(message("1"))
    assert await subscribed.gets() == ["1"]
    assert await cursor(world) == 0
    look(world, subscribed)
    assert await cursor(world) == 0
    subscribed.transport.arrived = True
    look(world, subscribed)
    assert await cursor(world) == 1
    assert not subscribed.transport.closed.is_set()


async def test_what_did_not_arrive_at_who_is_gone_is_delivered_again(
    world: World, subscribed: Lines
) -> None:
    assert subscribed.client.end_of_input()
    await world.publish(message("1"))
    assert await subscribed.gets() == ["1"]
    subscribed.transport.gone = True  # A reset also leaves nothing to arrive.
    look(world, subscribed)
    assert subscribed.transport.aborted
    subscribed.client.lost()
    again = Lines(world)
    again.says("SUBSCRIBE t sub1")
    assert sorted(await again.gets()) == ["1", "OK"]


async def test_who_is_half_closed_is_taken_over_by_the_next_and_closed(
    world: World, subscribed: Lines
) -> None:
    assert subscribed.client.end_of_input()
    Lines(world).says("SUBSCRIBE t sub1")
    await world.settled()
    assert subscribed.transport.closed.is_set()


async def test_who_is_half_closed_and_does_not_read_is_not_written_to(
    world: World, subscribed: Lines
) -> None:
    assert subscribed.client.end_of_input()
    subscribed.client.writable(yes=False)
    await world.publish(message("1"))
    look(world, subscribed)
    assert await subscribed.gets() == []
    subscribed.client.writable(yes=True)
    assert await subscribed.gets() == ["1"]


async def test_after_the_end_of_input_answers_still_come(world: World, lines: Lines) -> None:
    world.disk.may_commit.clear()
    lines.says("PUBLISH t 1 p")
    assert lines.client.end_of_input()
    await turns()
    assert not lines.transport.closed.is_set()
    world.disk.may_commit.set()
    assert await lines.gets() == ["OK"]
    assert lines.transport.closed.is_set()


async def test_the_end_of_input_right_after_a_subscription_is_no_end(
    world: World, lines: Lines
) -> None:
    """printf 'SUBSCRIBE t sub1\n' | nc -N"""
    await leave_in_flight(world, *numbered(2))
    lines.says("SUBSCRIBE t sub1")
    assert lines.client.end_of_input()
    assert sorted(await lines.gets()) == ["1", "2", "OK"]
    assert not lines.transport.closed.is_set()


async def test_who_is_subscribed_to_nothing_any_more_is_closed(world: World, lines: Lines) -> None:
    lines.says("SUBSCRIBE t sub1", "UNSUBSCRIBE t sub1")
    assert lines.client.end_of_input()
    assert await lines.gets() == ["OK", "OK"]
    assert lines.transport.closed.is_set()


async def test_where_the_system_does_not_tell_what_arrived_the_end_of_input_is_the_end(
    subscribed: Lines,
) -> None:
    subscribed.transport.tells_arrival = False
    assert not subscribed.client.end_of_input()


async def test_who_is_nobody_has_ended(lines: Lines) -> None:
    assert not lines.client.end_of_input()


def look(world: World, lines: Lines) -> None:
    """Let the time come at which it is looked whether all has arrived."""
    world.clock.advance(SELDOM_S)
    lines.client.expire(world.clock.monotonic())


async def test_whose_connection_is_lost_waits_in_the_log(world: World, subscribed: Lines) -> None:
    subscribed.client.lost()
    await world.publish(message("1"))
    assert await subscribed.gets() == []
    assert (world.sessions.connected_count, world.sessions.kept.absent_count) == (0, 1)


async def test_who_is_lost_while_it_subscribes_is_subscribed(world: World, lines: Lines) -> None:
    lines.says("SUBSCRIBE t sub1", "SUBSCRIBE u sub1")
    lines.client.lost()
    await world.settled()
    assert {s.filter for s in await world.disk.scan(SubscriptionDocument)} == {"t", "u"}
    assert world.sessions.connected_count == 0
    assert lines.written() == []
    assert not lines.transport.reading


async def test_when_the_broker_stops_the_connection_is_closed(
    world: World, subscribed: Lines
) -> None:
    subscribed.client.shut_down()
    assert subscribed.transport.closed.is_set()
    assert world.sessions.connected_count == 0
    subscribed.says("PUBLISH t 1 p")
    assert await subscribed.gets() == []


async def test_a_line_connection_has_no_keep_alive(world: World, subscribed: Lines) -> None:
    assert subscribed.client.deadline() is None
    subscribed.client.expire(world.clock.monotonic())
    assert not subscribed.transport.closed.is_set()


async def test_a_line_subscriber_cannot_be_told_and_its_place_passes_what_is_missing(
    world: World, subscribed: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("broker.delivery.recent.RECENT_MESSAGES_MAX", 0)
    subscribed.client.lost()
    await world.publish(*numbered(3))
    await world.disk.trim(Offset(4))
    again = Lines(world)
    again.says("SUBSCRIBE t sub1")
    await world.settled()
    again.client.lost()
    await world.settled()
    assert await cursor(world, "sub1") == 3


# Several brokers on one log


async def test_a_subscriber_goes_on_at_another_broker_and_leaves_it_there() -> None:
    async with two_brokers() as (a, b):
        first, second = Lines(a), Lines(b)
        first.says("SUBSCRIBE t sub1", "PUBLISH t 1 p")
        await both_settled(a, b)
        assert first.written() == ["OK", "OK", "1"]
        second.says("SUBSCRIBE t sub1", "PUBLISH t 2 p")
        await both_settled(a, b)
        assert second.written() == ["OK", "OK", "2"]
        assert first.written() == []
        third = Lines(a)
        third.says("UNSUBSCRIBE t sub1")
        await both_settled(a, b)
        assert third.written() == ["OK"]
        second.says("PUBLISH t 3 p")
        await both_settled(a, b)
        assert second.written() == ["OK"]
        assert await a.disk.scan(SubscriptionDocument) == []
