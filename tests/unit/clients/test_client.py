"""Client: events in their order, what has to wait, and how it ends."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from broker.clients import connecting
from broker.documents import SessionDocument, SubscriptionDocument, WillDocument
from broker.errors import QuotaExceeded, StoreCorrupt, StoreError, StoreFull, StoreUnavailable
from broker.log.losses import NOT_LOGGED
from broker.message import Monotonic, Offset
from broker.mqtt.encode import encode
from broker.mqtt.packets import MQTT_5, Connect, Will
from broker.registry.faces import Member
from broker.session.session import Session
from tests.support.clients import NOTHING_TO_TELL, Dialogue, connected
from tests.support.groups import GROUP, member
from tests.support.messages import message, numbered
from tests.support.world import World, payloads

CONNECT = "10 0E 0004 'MQTT' 05 00 003C 00 0001 'a'"
LASTING = "10 13 0004 'MQTT' 05 00 003C 05 11 00000064 0001 'a'"
WITH_WILL = "10 1B 0004 'MQTT' 05 04 003C 05 11 00000064 0001 'a' 00 0001 'w' 0002 '!!'"
"""A will without delay, of a session that lasts 100 s."""


@pytest.fixture
async def dialogue(world: World) -> Dialogue:
    """A client whose session lasts, with a will."""
    dialogue = Dialogue(world)
    dialogue.client(WITH_WILL)
    await dialogue.broker("20 03 00 00 00")
    return dialogue


async def stored(world: World) -> list[bytes]:
    """Payloads, that of a will being `!!`."""
    await world.settled()
    read = await world.disk.read(Offset(1), world.disk.high_watermark)
    return [message.payload for message in read.messages]


async def turns() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


# In order


async def test_what_comes_at_once_is_done_in_order(world: World, dialogue: Dialogue) -> None:
    dialogue.client(
        "32 07 0001 't' 0001 00 '1'  82 07 0002 00 0001 't' 00  32 07 0001 't' 0003 00 '2'"
        "A2 06 0004 00 0001 't'  32 07 0001 't' 0005 00 '3'"
    )
    await dialogue.broker(
        "40 03 0001 10  40 02 0003  40 03 0005 10"
        "90 04 0002 00 00  30 05 0001 't' 00 '2'  B0 04 0004 00 00"
    )
    assert await stored(world) == [b"1", b"2", b"3"]


async def test_a_ping_is_answered_at_once(dialogue: Dialogue) -> None:
    """[MQTT-3.12.4-1]"""
    dialogue.client("C0 00")
    dialogue.written("D0 00")


async def test_an_acknowledgement_belongs_to_one_direction(
    world: World, dialogue: Dialogue
) -> None:
    """The same Packet Identifier may be in use in the other. [section 2.2.1]"""
    await dialogue.subscribe("t", 2)
    dialogue.client("34 07 0001 't' 0001 00 'x'")
    await dialogue.broker("50 02 0001 34 07 0001 't' 0001 00 'x'")
    dialogue.client("62 02 0001")
    await dialogue.broker("70 02 0001")
    dialogue.client("50 02 0001")
    await dialogue.broker("62 02 0001")
    dialogue.client("70 02 0001")
    await dialogue.broker("")


async def test_a_client_need_not_wait_for_connack(world: World) -> None:
    """[MQTT-3.1.4-5] What it sends meanwhile waits, and it is not read from."""
    dialogue = Dialogue(world)
    dialogue.client(LASTING + "32 07 0001 't' 0001 00 '1'")
    assert not dialogue.transport.reading
    dialogue.client("C0 00  32 07 0001 't' 0002 00 '2'")
    assert await stored(world) == [b"1", b"2"]
    dialogue.written("20 03 00 00 00  D0 00  40 03 0001 10 40 03 0002 10")
    assert dialogue.transport.reading


async def test_what_follows_a_subscribe_that_replays_waits_for_it(
    world: World, dialogue: Dialogue
) -> None:
    await world.publish(*numbered(1))
    dialogue.client(
        "32 07 0001 't' 0001 00 '2'  82 (0002 00 00('$replay/earliest/t') 01)"
        "32 07 0001 't' 0003 00 '3'  82 (0004 00 00('$replay/earliest/u') 01)  C0 00"
    )
    assert not dialogue.transport.reading
    assert await stored(world) == [b"1", b"2", b"3"]
    assert dialogue.transport.reading
    acknowledged = dialogue.transport.written
    order = [acknowledged.index(part) for part in (b"\x90\x04\x00\x02", b"\x40\x02\x00\x03")]
    assert order == sorted(order)
    assert b"\x90\x04\x00\x04" in acknowledged


async def test_nothing_is_done_after_disconnect(world: World, dialogue: Dialogue) -> None:
    dialogue.client("32 07 0001 't' 0001 00 '1'  E0 00  32 07 0001 't' 0002 00 '2'")
    dialogue.client("32 07 0001 't' 0003 00 '3'")
    assert await stored(world) == [b"1"]
    assert dialogue.transport.closed.is_set()


async def test_a_broken_rule_ends_the_connection_after_what_came_before_it(
    world: World, dialogue: Dialogue, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    dialogue.client("30 05 0001 't' 00 '1'  00 00  30 05 0001 't' 00 '2'")
    dialogue.written("E0 .. 81 *")
    assert dialogue.transport.closed.is_set()
    assert world.counters.protocol_errors == 1
    assert caplog.messages == [
        "client 'a' at here: disconnected: 0x00 begins no packet that a client may send"
    ]
    assert await stored(world) == [b"1", b"!!"]


async def test_a_mistake_of_ours_cuts_off_one_client(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(packet: Connect) -> str:
        raise ZeroDivisionError

    monkeypatch.setattr(connecting, "identifier", broken)
    dialogue = Dialogue(world)
    dialogue.client(CONNECT)
    await dialogue.broker("")
    assert dialogue.transport.closed.is_set()
    assert caplog.messages == ["client '' at here is cut off"]
    assert caplog.records[0].exc_info is not None


async def test_a_mistake_while_a_client_leaves_leaves_all_the_same(
    world: World,
    dialogue: Dialogue,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def mistake(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(world.wills, "client_lost", mistake)
    monkeypatch.setattr(world.groups, "detach", mistake)
    dialogue.peer.failed(KeyError("what was wrong"))
    assert dialogue.transport.aborted
    assert world.sessions.connected_count == 0
    assert caplog.messages == [
        "client 'a' at here is cut off",
        "client 'a' did not leave as it should",
    ]


async def test_what_a_mistake_left_half_taken_comes_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P3: what the log has of a session counts, not what memory has."""
    dialogue = Dialogue(world)
    await dialogue.connect(expiry_s=100)
    await dialogue.subscribe("t")
    session = world.sessions.in_memory["a"]
    take = session.in_flight.take

    def half(*args: Any, **kwargs: Any) -> None:
        take(*args, **kwargs).outgoing.clear()
        session.in_flight.finish([1])
        raise ZeroDivisionError

    monkeypatch.setattr(session.in_flight, "take", half)
    await world.publish(*numbered(2))
    assert dialogue.transport.aborted
    back = Dialogue(world)
    back.client(LASTING)
    assert [publish.payload for publish in await back.deliveries()] == [b"1", b"2"]


async def test_what_a_mistake_left_half_received_is_received_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P1: its Packet Identifier does not count as received."""
    dialogue = Dialogue(world)
    await dialogue.connect(expiry_s=100)

    def mistake(*_: object) -> None:
        raise ZeroDivisionError

    with monkeypatch.context() as patch:
        patch.setattr("broker.clients.publishing._new_message", mistake)
        with pytest.raises(ZeroDivisionError) as raised:
            dialogue.client("34 07 0001 't' 0001 00 '1'")
        dialogue.peer.failed(raised.value)  # As the rim does.
    back = Dialogue(world)
    await back.connect(expiry_s=100)
    back.client("3C 07 0001 't' 0001 00 '1'")
    await back.broker("50 * 0001 *")
    assert b"1" in await stored(world)


async def test_who_asks_for_what_the_log_cannot_say_now_is_refused_and_leaves_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def unavailable(*_: object, **__: object) -> None:
        raise StoreUnavailable("busy")

    monkeypatch.setattr(connecting, "acceptance", unavailable)
    dialogue = Dialogue(world)
    dialogue.client(CONNECT)
    await dialogue.broker("20 .. 00 88 *")
    assert dialogue.transport.closed.is_set()
    assert world.sessions.connected_count == 0


# Backpressure


async def test_a_client_is_not_read_from_while_too_much_waits_for_the_disk() -> None:
    """P7"""
    async with connected(append_bytes_max=9) as (world, dialogue):
        world.disk.may_commit.clear()
        dialogue.client("32 07 0001 't' 0001 00 '1'")
        await turns()
        assert dialogue.transport.reading, "it is being committed"
        dialogue.client("32 07 0001 't' 0002 00 '1'")
        assert not dialogue.transport.reading
        world.disk.may_commit.set()
        await turns()
        assert dialogue.transport.reading


async def test_qos_0_is_never_held_up_by_the_disk() -> None:
    """P9"""
    async with connected(append_bytes_max=9) as (world, dialogue):
        world.disk.may_commit.clear()
        for _ in range(9):
            dialogue.client("30 0E 0001 't' 00 '1234567890'")
            await turns()
            assert dialogue.transport.reading
        assert world.counters.dropped == {NOT_LOGGED: 8}
        world.disk.may_commit.set()


@pytest.mark.parametrize("flood", ["62 02 0007", "32 09 0004 '$SYS' 0001 00"])
async def test_whatever_waits_for_an_answer_from_the_disk_is_bounded(flood: str) -> None:
    """P7: a PUBREL or a refused PUBLISH takes memory, too."""
    async with connected(expiry_s=100, append_bytes_max=10_000) as (world, dialogue):
        world.disk.may_commit.clear()
        dialogue.client(flood)
        await turns()
        read = 0
        while dialogue.transport.reading and read < 1000:
            dialogue.client(flood)
            read += 1
        assert 10 < read < 60
        world.disk.may_commit.set()
        await turns()
        assert dialogue.transport.reading


async def test_who_is_gone_is_not_read_from_again() -> None:
    async with connected(append_bytes_max=9) as (world, dialogue):
        dialogue.client("32 07 0001 't' 0001 00 '1'")
        assert not dialogue.transport.reading
        dialogue.peer.lost()
        await world.settled()
        assert not dialogue.transport.reading


# Time


async def test_a_connection_has_a_deadline_that_accepting_it_moves(world: World) -> None:
    dialogue = Dialogue(world)
    now = world.clock.monotonic()
    assert dialogue.peer.deadline() == now + 10
    dialogue.client(CONNECT)
    await dialogue.broker("20 *")
    assert dialogue.peer.deadline() == now + 1.5 * 60
    assert dialogue.transport.deadlines_moved == 1


async def test_a_client_that_is_silent_too_long_is_lost(world: World, dialogue: Dialogue) -> None:
    """[MQTT-3.1.2-22]"""
    deadline = dialogue.peer.deadline()
    assert deadline is not None
    dialogue.peer.expire(Monotonic(deadline - 1))
    dialogue.written("")
    dialogue.peer.expire(deadline)
    dialogue.written("E0 .. 8D *")
    assert dialogue.transport.closed.is_set()
    assert await stored(world) == [b"!!"]


async def test_whom_we_do_not_read_from_is_not_called_silent(world: World) -> None:
    dialogue = Dialogue(world)
    dialogue.client(CONNECT)
    assert not dialogue.transport.reading
    dialogue.peer.expire(Monotonic(1e9))
    dialogue.written("")
    assert not dialogue.transport.closed.is_set()


@pytest.mark.parametrize("part", ["", "32 20 0001 't'"])
async def test_time_in_which_we_did_not_read_is_no_silence(part: str) -> None:
    """Nor does it count against a PUBLISH that had begun to arrive."""
    async with connected(append_bytes_max=9) as (world, dialogue):
        world.disk.may_commit.clear()
        dialogue.client("32 07 0001 't' 0001 00 '1'")
        await turns()
        dialogue.client(f"32 07 0001 't' 0002 00 '1' {part}")
        assert not dialogue.transport.reading
        world.clock.advance(1000)
        world.disk.may_commit.set()
        await turns()
        now = world.clock.monotonic()
        assert dialogue.peer.deadline() == now + 1.5 * 60
        dialogue.peer.expire(now)
        assert not dialogue.transport.closed.is_set()


# The end


async def test_a_will_is_published_for_a_client_that_is_lost(
    world: World, dialogue: Dialogue
) -> None:
    """[MQTT-3.1.2-8]"""
    dialogue.peer.lost()
    dialogue.peer.lost()
    assert await stored(world) == [b"!!"]
    assert world.sessions.connected_count == 0
    assert dialogue.peer.closed


@pytest.mark.parametrize(
    ("reason_code", "published"), [("00", []), ("04", [b"!!"]), ("81", [b"!!"])]
)
async def test_disconnect_says_whether_the_will_is_published(
    reason_code: str, published: list[bytes], world: World, dialogue: Dialogue
) -> None:
    """[MQTT-3.14.4-3]"""
    dialogue.client(f"E0 01 {reason_code}")
    assert await stored(world) == published
    assert await world.disk.scan(WillDocument) == []


@pytest.mark.parametrize(("asked_for", "expiry_s"), [("000003E8", 1000), ("000003E9", 1000)])
async def test_disconnect_may_change_how_long_the_session_lasts(
    asked_for: str, expiry_s: int, world: World
) -> None:
    """[section 3.14.2.2.2] Within what is allowed."""
    dialogue = Dialogue(world, replace(NOTHING_TO_TELL, session_expiry_max_s=1000))
    dialogue.client(LASTING)
    await dialogue.broker("20 *")
    dialogue.client(f"E0 07 00 05 11 {asked_for}")
    await world.settled()
    document = await world.disk.get(SessionDocument, ("a",))
    assert document is not None
    assert document.session_expiry_s == expiry_s


async def test_a_session_that_does_not_last_stays_like_that(world: World) -> None:
    dialogue = Dialogue(world)
    dialogue.client(CONNECT)
    await dialogue.broker("20 *")
    dialogue.client("E0 07 00 05 11 00000000")
    await world.settled()
    assert await world.disk.scan(SessionDocument) == []
    assert dialogue.transport.closed.is_set()


async def test_who_is_lost_is_a_member_of_its_groups_no_more(
    world: World, dialogue: Dialogue
) -> None:
    """What it has not acknowledged goes to the others. [section 4.8.2]"""
    await dialogue.subscribe(GROUP)
    other = await member(world, "other")
    await world.publish(*numbered(2, "jobs/a"))
    dialogue.peer.lost()
    await world.settled()
    before = len(other.got)
    world.clock.advance(1.1)  # The one that it had first was a failed attempt.
    await world.settled()
    assert (before, sorted(payloads(other.got))) == (1, [b"1", b"2"])


async def test_who_takes_over_has_the_session_and_the_other_is_told(
    world: World, dialogue: Dialogue, caplog: pytest.LogCaptureFixture
) -> None:
    """[MQTT-3.1.4-3]"""
    caplog.set_level("INFO")
    other = Dialogue(world)
    other.client(LASTING)
    await other.broker("20 03 01 00 00")
    dialogue.written("E0 .. 8E *")
    assert dialogue.transport.closed.is_set()
    assert caplog.messages == [
        "client 'a' at here: disconnected: taken over by another connection with its client "
        "identifier",
        "client 'a' at here: connected (MQTT 5, session resumed, keep alive 60 s)",
    ]
    assert world.sessions.connected_count == 1
    assert await stored(world) == [b"!!"]


async def test_when_the_broker_stops_the_client_is_told(world: World, dialogue: Dialogue) -> None:
    dialogue.peer.shut_down()
    dialogue.written("E0 .. 8B *")
    assert dialogue.transport.closed.is_set()
    assert world.sessions.connected_count == 0


async def test_who_cannot_be_sent_what_it_is_owed_is_cut_off(
    world: World, dialogue: Dialogue, caplog: pytest.LogCaptureFixture
) -> None:
    """P8"""
    dialogue.peer.broken(StoreCorrupt("checksum"))
    dialogue.written("E0 .. 83 * 'the log is damaged'")
    assert dialogue.transport.closed.is_set()
    assert caplog.messages == ["client 'a' at here: checksum"]


async def test_an_answer_that_the_client_cannot_take_ends_the_connection(world: World) -> None:
    """[MQTT-3.1.2-24]"""
    dialogue = Dialogue(world)
    await dialogue.connect(packet_bytes_max=6)
    dialogue.client("82 0B 0002 00 0001 't' 00 0001 'u' 00")
    await dialogue.broker("")
    assert dialogue.transport.closed.is_set()
    assert world.sessions.connected_count == 0


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (QuotaExceeded("too many sessions"), "97"),
        (StoreFull("no space"), "97"),
        (StoreUnavailable("busy"), "80"),
    ],
)
async def test_who_cannot_have_its_share_is_told_so_and_keeps_its_session(
    error: QuotaExceeded | StoreError,
    code: str,
    world: World,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Or it would stay, believing to be a member, and get nothing."""
    left = await member(world, "a", expiry_s=100)
    left.close()
    await world.settled()

    async def refused(*_: object) -> None:
        raise error

    monkeypatch.setattr(world.groups, "join", refused)
    dialogue = Dialogue(world)
    dialogue.client(LASTING)
    await dialogue.broker(f"20 03 01 00 00 E0 .. {code} *")
    assert dialogue.transport.closed.is_set()
    assert caplog.messages == [f"client 'a' at here: refused: {error}"]
    assert (world.sessions.connected_count, world.counters.refused_connects) == (0, 1)
    assert await world.disk.get(SubscriptionDocument, ("a", GROUP)) is not None


async def test_who_is_refused_has_nothing_done_of_what_it_sent(world: World) -> None:
    """[MQTT-3.1.4-6]"""
    world.disk.broken = StoreUnavailable("busy")
    dialogue = Dialogue(world)
    dialogue.client(LASTING + "32 07 0001 't' 0001 00 '1'")
    await turns()
    dialogue.written("20 .. 00 88 *")
    assert dialogue.transport.closed.is_set()


async def test_a_client_hears_nothing_of_the_brokers_files(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.disk.broken = StoreUnavailable("/var/lib/pubsub.db: Input/output error")
    dialogue = Dialogue(world)
    dialogue.client(LASTING)
    await turns()
    dialogue.written("20 .. 00 88 * 'the broker cannot use its log now'")
    assert "/var/lib/pubsub.db: Input/output error" in caplog.text


# While it waits


async def test_what_a_client_sent_before_it_was_gone_still_counts(world: World) -> None:
    """It may have been told that it is connected."""
    dialogue = Dialogue(world)
    dialogue.client(WITH_WILL + "32 07 0001 't' 0001 00 '1'")
    dialogue.peer.lost()
    assert await stored(world) == [b"1", b"!!"]
    assert world.sessions.connected_count == 0
    dialogue.written("")


async def test_who_leaves_while_it_is_let_in_is_gone_afterwards(world: World) -> None:
    dialogue = Dialogue(world)
    dialogue.client(WITH_WILL + "32 07 0001 't' 0001 00 '1'")
    await asyncio.sleep(0)
    dialogue.peer.shut_down()
    await world.settled()
    assert world.sessions.connected_count == 0
    assert await stored(world) == [b"!!"]
    dialogue.written("20 03 00 88 00")
    assert dialogue.transport.deadlines_moved == 0


async def test_what_is_too_large_for_the_client_ends_it_only_after_what_it_waits_for(
    world: World,
) -> None:
    """Here the CONNACK: what it said before that still counts."""
    dialogue = Dialogue(world)
    packet = Connect(MQTT_5, "a", False, 60, packet_bytes_max=4, will=Will("w", b"!!", 0, False))
    publish = b"\x30\x05\x00\x01t\x001"
    dialogue.peer.receive(encode(packet, MQTT_5) + publish, world.clock.monotonic())
    assert await stored(world) == [b"1", b"!!"]
    assert dialogue.transport.closed.is_set()


# What the operator is told


@pytest.mark.parametrize(
    ("leave", "why"),
    [
        ("E0 00", "it sent DISCONNECT"),
        ("E0 02 04 00", "it sent DISCONNECT with Reason Code 0x04"),
        ("10 00", "CONNECT was sent twice"),
        ("", "the connection was lost"),
    ],
)
async def test_who_comes_and_goes_is_told_with_the_reason(
    leave: str, why: str, world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    dialogue = Dialogue(world)
    await dialogue.connect("a\u202e")
    if leave:
        dialogue.client(leave)
    dialogue.peer.lost()
    assert caplog.messages == [
        "client 'a\\u202e' at here: connected (MQTT 5, new session, keep alive 60 s)",
        f"client 'a\\u202e' at here: disconnected: {why}",
    ]


async def test_who_is_silent_too_long_is_told(
    world: World, dialogue: Dialogue, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    dialogue.peer.expire(Monotonic(world.clock.monotonic() + 90))
    assert caplog.messages == [
        "client 'a' at here: disconnected: no packet for 1.5 times the keep alive"
    ]


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("10 0E 0004 'MQTT' 06 02 003C 00 0001 'a'", "the protocol is neither MQTT 3.1.1 nor 5.0"),
        ("10 0E 0004 'MQTT' 05 03 003C 00 0001 'a'", "a reserved flag of CONNECT is set"),
    ],
)
async def test_a_connect_that_is_refused_is_told(
    script: str, why: str, world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    Dialogue(world).client(script)
    assert caplog.messages == [f"connection from here closed: {why}"]


async def test_a_stop_does_not_tell_of_each_client(
    dialogue: Dialogue, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    dialogue.peer.shut_down()
    assert caplog.messages == []


async def test_neither_payloads_nor_passwords_are_told(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """Not at any level."""
    caplog.set_level("DEBUG")
    dialogue = Dialogue(world)
    dialogue.client("10 (0004 'MQTT' 05 C6 003C 00 0001 'a' 00 0001 'w' 0006 'SECRET'"
                    "0004 'user' 0006 'SECRET')")  # fmt: skip
    await dialogue.broker("20 *")
    dialogue.client("82 07 0002 00 0001 't' 01  32 (0001 't' 0001 00 'SECRET')  30 05 0001 '#' 00")
    await world.settled()
    assert len(caplog.messages) >= 2
    assert "SECRET" not in caplog.text


# Half-closed


@pytest.mark.parametrize("version", [4, 5])
async def test_who_closes_its_side_after_a_publish_gets_its_puback(
    world: World, version: int
) -> None:
    client = Dialogue(world)
    await client.connect("half", version=version)
    world.disk.may_commit.clear()
    client.client(f"82 ( 0001 {'00' if version == 5 else ''} 0001't' 01 )")
    client.client(f"32 ( 0001't' 0002 {'00' if version == 5 else ''} 'x' )")
    assert client.peer.end_of_input()
    client.peer.writable(yes=True)
    world.disk.may_commit.set()
    await client.broker(f"90 .. 0001 {'00' if version == 5 else ''} 01  40 02 0002")
    assert client.transport.closed.is_set()


async def test_who_closes_its_side_at_once_is_accepted_and_answered(world: World) -> None:
    client = Dialogue(world)
    client.client("10 0D 0004'MQTT' 04 02 003C 0001'a'  32 06 0001't' 0002 'x'")
    assert client.peer.end_of_input()
    await client.broker("20 02 00 00  40 02 0002")
    assert client.transport.closed.is_set()
    assert await stored(world) == [b"x"]


async def test_where_no_answer_is_due_the_end_of_input_is_the_end(dialogue: Dialogue) -> None:
    assert not dialogue.peer.end_of_input()
    assert not Dialogue(dialogue.world).peer.end_of_input()


@pytest.mark.parametrize("qos", [1, 2])
async def test_what_a_seek_sends_again_is_a_new_message_and_what_is_in_flight_stays(
    world: World, qos: int
) -> None:
    """[MQTT-3.3.1-1, MQTT-4.3.3-2] After it as before, each exchange ends by its own identifier."""
    dialogue = Dialogue(world)
    await dialogue.connect(expiry_s=100)
    await dialogue.subscribe("t", qos)
    await world.publish(message("one", qos=qos), message("two", qos=qos))
    first = f"3{2 * qos:X}"
    await dialogue.broker(f"{first} 09 0001 't' 0001 00 'one' {first} 09 0001 't' 0002 00 'two'")
    await world.passing_time(world.administration.seek("a", "2"))
    await dialogue.broker(f"{first} 09 0001 't' 0003 00 'two'")
    for packet_id in (1, 3, 2):
        if qos == 1:
            dialogue.client(f"40 02 {packet_id:04X}")
            continue
        dialogue.client(f"50 02 {packet_id:04X}")
        await dialogue.broker(f"62 02 {packet_id:04X}")
        dialogue.client(f"70 02 {packet_id:04X}")
    await world.settled()
    session = world.sessions.in_memory["a"]
    assert (len(session.in_flight), session.cursor()) == (0, 2)
    await world.publish(message("three", qos=qos))
    await dialogue.broker(f"{first} 0B 0001 't' 0004 00 'three'")


async def test_who_is_removed_is_told_so_and_has_no_session_any_more(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """MQTT 5, 4.13: 0x98, Administrative action."""
    dialogue = Dialogue(world)
    await dialogue.connect(expiry_s=100)
    caplog.set_level("INFO")
    removed = await world.passing_time(world.administration.remove("a"))
    assert removed.connected
    dialogue.written("E0 .. 98 *")
    assert dialogue.transport.closed.is_set()
    assert "disconnected: its session was removed by an operator" in caplog.text
    assert not world.sessions.has_durable("a")
    await Dialogue(world).connect(expiry_s=100)
    assert not world.sessions.kept.absent_count


async def test_a_group_does_not_end_while_one_that_is_subscribed_to_it_comes(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P3: its session is not absent any more, and not a member yet."""
    first = Dialogue(world)
    await first.connect("a", expiry_s=100)
    await first.subscribe(GROUP)
    first.peer.lost()
    await world.publish(*[message(str(n), "jobs/a") for n in range(5)])
    attach, may_go_on = world.groups.attach, asyncio.Event()

    async def slow(session: Session, subscriber: Member) -> None:
        await may_go_on.wait()
        await attach(session, subscriber)

    monkeypatch.setattr(world.groups, "attach", slow)
    first = Dialogue(world)
    await first.connect("a", expiry_s=100)
    other = Dialogue(world)
    monkeypatch.setattr(world.groups, "attach", attach)
    await other.connect("b", receive_maximum=1)
    other.client(f"82 ( 0009 00  00 ('{GROUP}') 01 )")
    await other.broker("90 04 0009 00 01  32 0C 0006 'jobs/a' 0001 00 '0'")
    other.client(f"A2 ( 000A 00  00 ('{GROUP}') )")
    await other.broker("B0 *")
    other.client("E0 00")
    await world.settled()
    may_go_on.set()
    got = await first.deliveries()
    world.clock.advance(1.1)  # The one that the other had was a failed attempt.
    got += await first.deliveries()
    assert sorted(packet.payload for packet in got) == [b"%d" % n for n in range(5)]
