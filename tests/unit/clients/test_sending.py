"""Sending: messages go out as far as window, socket and commits permit, and are acknowledged."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence

import pytest

from broker.clients.sending import Output
from broker.clock import US
from broker.config import Config
from broker.documents import CursorDocument
from broker.documents.queues import DeadLetterDocument, GroupDocument, RetryDocument
from broker.errors import StoreUnavailable
from broker.log.log_time import NOTE_AHEAD_S
from broker.log.outage import FULL_RETRY_S
from broker.message import Monotonic, Offset
from broker.mqtt.connection import Connection
from broker.mqtt.encode import encode
from broker.mqtt.packets import MQTT_3_1_1, MQTT_5, Ack, Connect, PacketType, Suback
from broker.store import Read
from tests.support.clients import NOTHING_TO_TELL, Dialogue, Transport
from tests.support.clock import FakeClock
from tests.support.groups import GROUP
from tests.support.messages import message, numbered
from tests.support.wire import LIMITS
from tests.support.world import Disk, World, running

NOW = Monotonic(0.0)
YEAR_S = 365 * 86_400


@pytest.fixture
async def dialogue(world: World) -> Dialogue:
    """A client of MQTT 5 whose session lasts, subscribed to `t` at QoS 2."""
    dialogue = Dialogue(world)
    await dialogue.connect(expiry_s=100, receive_maximum=4)
    await dialogue.subscribe("t", 2)
    return dialogue


async def turns() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def cursor(world: World, client_id: str = "a") -> Offset | None:
    await world.settled()
    document = await world.disk.get(CursorDocument, (client_id,))
    return None if document is None else document.offset


# Output


def output(
    world: World, transport: Transport, ends: list[str], *, packet_bytes_max: int = 1000
) -> Output:
    """Of a connection whose client has said that it takes packets of this size."""
    connection = Connection(now=NOW, limits=LIMITS)
    connect = Connect(MQTT_5, "a", True, 60, packet_bytes_max=packet_bytes_max)
    connection.receive_data(encode(connect, MQTT_5), NOW)
    return Output(
        connection,
        transport,
        world.log,
        lambda: ends.append("end"),
        lambda error: ends.append(type(error).__name__),
    )


async def test_a_mistake_while_it_is_written_is_told(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def mistake(_: bytes) -> None:
        raise ZeroDivisionError

    transport, ends = Transport(), list[str]()
    monkeypatch.setattr(transport, "write", mistake)
    output(world, transport, ends).send(Ack(PacketType.PUBACK, [1]))
    await turns()
    assert ends == ["ZeroDivisionError"]


async def test_what_is_sent_in_one_turn_is_written_at_once(world: World) -> None:
    transport = Transport()
    out = output(world, transport, [])
    out.send(Ack(PacketType.PUBACK, [1]))
    out.send(Ack(PacketType.PUBACK, [2]), Ack(PacketType.PUBREC, [3]))
    assert transport.writes == []
    await turns()
    assert transport.writes == [b"\x40\x02\x00\x01\x40\x02\x00\x02\x50\x02\x00\x03"]
    out.send(Ack(PacketType.PUBACK, [4]))
    await turns()
    assert transport.writes[1:] == [b"\x40\x02\x00\x04"]


async def test_nothing_leaves_after_the_client_has_left(world: World) -> None:
    transport = Transport()
    out = output(world, transport, [])
    out.closed = True
    out.send(Ack(PacketType.PUBACK, [1]))
    await turns()
    out.flush()
    assert transport.writes == []


async def test_nothing_is_written_to_a_socket_that_is_gone(world: World) -> None:
    transport = Transport()
    out = output(world, transport, [])
    out.lost = True
    out.send(Ack(PacketType.PUBACK, [1]))
    out.flush()
    assert transport.writes == []


async def test_a_packet_that_the_client_cannot_take_ends_the_connection(world: World) -> None:
    """[MQTT-3.1.2-24]"""
    ends: list[str] = []
    transport = Transport()
    out = output(world, transport, ends, packet_bytes_max=4)
    out.send(Ack(PacketType.PUBACK, [1]))
    out.flush()
    assert ends == []
    out.send(Suback(2, [1] * 3))
    out.flush()
    assert (transport.written, ends) == (b"\x40\x02\x00\x01", ["end"])
    out.closed = True
    out.flush()
    assert ends == ["end"]


# PUBLISH


async def test_messages_go_out_and_are_counted(world: World, dialogue: Dialogue) -> None:
    await world.publish(message("one", qos=0), message("two"), message("three", qos=2))
    await dialogue.broker(
        "30 07 0001 't' 00 'one' 32 09 0001 't' 0001 00 'two'34 0B 0001 't' 0002 00 'three'"
    )
    assert (world.counters.messages_out, world.counters.payload_bytes_out) == (3, 11)


async def test_no_more_is_in_flight_than_the_client_permits(
    world: World, dialogue: Dialogue
) -> None:
    """[MQTT-3.3.4-9]"""
    await world.publish(*numbered(6))
    await dialogue.broker("*" + " ".join(f"32 07 0001 't' {n:04X} 00 '{n}'" for n in range(1, 5)))
    dialogue.client("40 02 0002")
    await dialogue.broker("32 07 0001 't' 0005 00 '5'")
    assert await cursor(world) == 0
    dialogue.client("40 02 0001")
    await dialogue.broker("32 07 0001 't' 0006 00 '6'")
    assert await cursor(world) == 2


async def test_a_full_socket_gets_nothing_until_it_has_room(
    world: World, dialogue: Dialogue
) -> None:
    dialogue.peer.writable(yes=False)
    await world.publish(*numbered(2))
    dialogue.written("")
    dialogue.peer.writable(yes=True)
    dialogue.written("32 07 0001 't' 0001 00 '1' 32 07 0001 't' 0002 00 '2'")


async def test_a_socket_that_is_full_meanwhile_gets_no_more(
    world: World, dialogue: Dialogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P7"""
    monkeypatch.setattr("broker.delivery.sender.TAKE_BYTES_MAX", 1)

    def fill(data: bytes) -> None:
        dialogue.peer.writable(yes=False)
        Transport.write(dialogue.transport, data)

    monkeypatch.setattr(dialogue.transport, "write", fill)
    await world.publish(*numbered(2))
    dialogue.written("32 07 0001 't' 0001 00 '1'")


async def test_what_waits_beyond_the_outbox_comes_from_the_log() -> None:
    """Whoever reads for the client hears that there is room again."""
    config = Config(outbox_messages_max=2)
    async with running(Disk(), config) as world:
        dialogue = Dialogue(world)
        await dialogue.connect(expiry_s=100)
        await dialogue.subscribe("t")
        dialogue.peer.writable(yes=False)
        for n in range(1, 7):
            await world.publish(*numbered(1, first=n))
        dialogue.peer.writable(yes=True)
        await dialogue.broker("*" + " ".join(f"32 07 0001 't' .. .. 00 '{n}'" for n in range(1, 7)))


async def test_the_message_expiry_interval_counts_down(world: World, dialogue: Dialogue) -> None:
    """[MQTT-3.3.2-6] Also while the socket is full."""
    dialogue.peer.writable(yes=False)
    now_us = world.clock.wall_us()
    await world.publish(message(at=now_us, expires_at_us=now_us + 30 * US))
    world.clock.advance(10)
    dialogue.peer.writable(yes=True)
    await dialogue.broker("32 0B 0001 't' 0001 05 02 00000014")


@pytest.mark.parametrize("retain", [False, True])
@pytest.mark.parametrize("qos", [0, 1, 2])
@pytest.mark.parametrize("jump_s", [-40 * YEAR_S, -3600, -1, 3600, YEAR_S])
async def test_a_jump_of_the_wall_clock_neither_ages_a_message_nor_makes_it_younger(
    world: World, dialogue: Dialogue, jump_s: int, qos: int, retain: bool
) -> None:
    """[MQTT-3.3.2-5, MQTT-3.3.2-6] Between the PUBLISH and its delivery, and before it."""
    dialogue.peer.writable(yes=False)
    world.clock.set_wall(1_000_000_000 + jump_s)
    await expiring(world, 60, qos=qos, retain=retain)
    world.clock.set_wall(1_000_000_000)
    world.clock.advance(10)
    dialogue.peer.writable(yes=True)
    assert [p.message_expiry_s for p in await dialogue.deliveries()] == [50]
    if retain:
        dialogue.client("82 ( 0009 00  00 ('t') 01 )")
        assert [p.message_expiry_s for p in await dialogue.deliveries()] == [50]


@pytest.mark.parametrize("jump_s", [-40 * YEAR_S, 0, YEAR_S])
async def test_an_interval_of_0_stays_0_whatever_the_wall_clock_has(
    world: World, dialogue: Dialogue, jump_s: int
) -> None:
    world.clock.set_wall(1_000_000_000 + jump_s)
    await expiring(world, 0, qos=1, retain=True)
    assert [p.message_expiry_s for p in await dialogue.deliveries()] == [0]
    dialogue.client("82 ( 0009 00  00 ('t') 01 )")
    assert await dialogue.deliveries() == []


@pytest.mark.parametrize(
    ("down_s", "left_s"),
    [(0, 60), (10, 50), (57, 3), (60, None), (YEAR_S, None), (-3600, 60), (-40 * YEAR_S, 60)],
)
async def test_a_message_ages_over_a_restart_by_what_the_wall_clock_says_but_never_back(
    down_s: int, left_s: int | None
) -> None:
    """[MQTT-3.3.2-5, MQTT-3.3.2-6]"""
    disk, clock = Disk(), FakeClock()
    async with running(disk, NOTHING_TO_TELL, clock) as world:
        absent = Dialogue(world)
        await absent.connect(expiry_s=100)
        await absent.subscribe("t")
        absent.peer.lost()
        await expiring(world, 60, qos=1)
    clock = FakeClock(wall_s=1_000_000_000 + down_s)
    async with running(disk, NOTHING_TO_TELL, clock) as world:
        back = Dialogue(world)
        connect = Connect(MQTT_5, "a", False, 60, session_expiry_s=100)
        back.peer.receive(encode(connect, MQTT_5), clock.monotonic())
        delivered = [p.message_expiry_s for p in await back.deliveries()]
        assert world.counters.dropped["expired"] == (left_s is None)
        assert delivered == ([] if left_s is None else [pytest.approx(left_s, abs=NOTE_AHEAD_S)])
        assert max([s or 0 for s in delivered], default=0) <= 60


async def expiring(world: World, expiry_s: int, *, qos: int, retain: bool = False) -> None:
    publisher = Dialogue(world)
    await publisher.connect("publisher")
    first, packet_id = 0x30 | qos << 1 | retain, "0001" if qos else ""
    publisher.client(f"{first:02X} (0001 't' {packet_id} 05 02 {expiry_s:08X} 'soon')")
    await world.settled()


async def test_a_message_too_large_for_the_client_is_given_up(world: World) -> None:
    """[MQTT-3.1.2-24, MQTT-3.1.2-25] P5: counted"""
    dialogue = Dialogue(world)
    await dialogue.connect(expiry_s=100, packet_bytes_max=11, receive_maximum=2)
    await dialogue.subscribe("t")
    await world.publish(message("large"), message("fit"), message("fits"), message("1"))
    await dialogue.broker("32 09 0001 't' 0002 00 'fit' 32 07 0001 't' 0004 00 '1'")
    assert world.counters.dropped == {"packet too large for the client": 2}
    assert (world.counters.messages_out, world.counters.payload_bytes_out) == (2, 4)
    dialogue.client("40 02 0002 40 02 0004")
    assert await cursor(world) == 4


async def test_who_has_left_is_sent_nothing(world: World, dialogue: Dialogue) -> None:
    dialogue.peer.shut_down()
    dialogue.written("E0 .. 8B *")
    dialogue.peer.wake()
    await world.publish(*numbered(1))
    await dialogue.broker("")


# QoS 2: committed first


async def test_a_message_of_qos_2_leaves_when_its_identifier_is_committed(
    world: World, dialogue: Dialogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """[MQTT-4.3.3] And what follows waits with it: order is kept. [MQTT-4.6.0-6]"""
    monkeypatch.setattr("broker.delivery.sender.TAKE_BYTES_MAX", 1)
    dialogue.peer.writable(yes=False)
    await world.publish(message("1", qos=2), message("2"), message("3", qos=2))
    world.disk.may_commit.clear()
    dialogue.peer.writable(yes=True)
    await turns()
    dialogue.written("")
    world.disk.may_commit.set()
    await dialogue.broker(
        "34 07 0001 't' 0001 00 '1' 32 07 0001 't' 0002 00 '2' 34 07 0001 't' 0003 00 '3'"
    )
    await world.publish(message("4"))
    await dialogue.broker("32 07 0001 't' 0004 00 '4'")


async def test_a_session_that_does_not_last_holds_nothing(world: World) -> None:
    dialogue = Dialogue(world)
    await dialogue.connect()
    await dialogue.subscribe("t", 2)
    dialogue.peer.writable(yes=False)
    await world.publish(message("1", qos=2))
    world.disk.may_commit.clear()
    dialogue.peer.writable(yes=True)
    dialogue.written("34 07 0001 't' 0001 00 '1'")
    dialogue.client("50 02 0001")
    dialogue.written("62 02 0001")


@pytest.mark.parametrize("full", [False, True])
async def test_what_waits_behind_a_held_message_stays_in_the_log_and_then_comes_in_order(
    full: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P7: one QoS 2 message on a slow or full disk had the whole backlog in memory."""
    monkeypatch.setattr("broker.clients.sending.HELD_BYTES_MAX", 5_000)
    monkeypatch.setattr("broker.delivery.sender.TAKE_BYTES_MAX", 1_000)
    monkeypatch.setattr("broker.delivery.readers.READ_MESSAGES_MAX", 100)
    monkeypatch.setattr("broker.delivery.recent.RECENT_MESSAGES_MAX", 10)
    async with running(Disk(), Config(outbox_messages_max=100)) as world:
        dialogue = Dialogue(world)
        await dialogue.connect(expiry_s=100)
        await dialogue.subscribe("t", 2)
        dialogue.peer.writable(yes=False)
        backlog = [message(f"<{n:04}>", qos=0) for n in range(3000)]
        await world.publish(message("first", qos=2), *backlog[:90])
        await world.publish(*backlog[90:])
        session = dialogue.peer._session
        assert session is not None
        world.disk.may_commit.clear()
        world.disk.full = full
        dialogue.peer.writable(yes=True)
        for _ in range(50):
            await turns()
        assert session.position.through - len(session.outbox) <= 40, "were taken"
        assert len(session.outbox) <= 200
        dialogue.written("")
        world.disk.may_commit.set()
        await turns()
        world.disk.full = False
        world.clock.advance(FULL_RETRY_S)
        await world.settled()
        for _ in range(50):
            await turns()
        places = [dialogue.transport.written.find(m.payload) for m in backlog]
    assert places == sorted(places)
    assert places[0] > 0


@pytest.mark.parametrize("leaves", [False, True])
async def test_what_is_held_is_never_sent_where_it_cannot_be_committed_or_nobody_is_there(
    leaves: bool, world: World, dialogue: Dialogue
) -> None:
    """P6"""
    dialogue.peer.writable(yes=False)
    await world.publish(message("1", qos=2))
    world.disk.may_commit.clear()
    dialogue.peer.writable(yes=True)
    await turns()
    if leaves:
        dialogue.client("E0 00")
    else:
        world.disk.broken = StoreUnavailable("lost")
    world.disk.may_commit.set()
    await turns()
    dialogue.written("")


async def test_nothing_is_taken_for_a_connection_whose_disconnect_has_come(world: World) -> None:
    """P5: what waits, and what is handed on before its turn, is there for the next connection."""
    first, again = Dialogue(world), Dialogue(world)
    await first.connect(expiry_s=100, receive_maximum=1)
    await first.subscribe("#", 1)
    await world.publish(message("1"), message("2", qos=0), message("3"))
    first.written("32 07 0001't' 0001 00'1' 30 05 0001't' 00'2'")
    await world.publish(message("4", qos=0))
    first.client("40 02 0001  30 ( 0001'u' 00 'own' )  E0 00")
    first.written("")
    again.client("10 ( 0004'MQTT'05 00 003C 05 1100000064 0001'a' )")
    got = [packet.payload for packet in await again.deliveries()]
    assert got == [b"3", b"4", b"own"]


async def test_qos_0_that_is_held_when_the_client_leaves_is_counted(
    world: World, dialogue: Dialogue
) -> None:
    """P5: it waits for its turn behind QoS 2, and is not sent again."""
    dialogue.peer.writable(yes=False)
    await world.publish(message("1", qos=2), message("2", qos=0), message("3", qos=0))
    world.disk.may_commit.clear()
    dialogue.peer.writable(yes=True)
    await turns()
    dialogue.peer.lost()
    world.disk.may_commit.set()
    await dialogue.broker("")
    assert world.counters.dropped == {"client left before it was sent": 2}


# Acknowledgements


async def test_pubrel_leaves_when_the_pubrec_is_committed(world: World, dialogue: Dialogue) -> None:
    """[MQTT-4.3.3-4] Or a crash would send the message again."""
    await world.publish(message("1", qos=2))
    await dialogue.broker("34 *")
    world.disk.may_commit.clear()
    dialogue.client("50 02 0001")
    await turns()
    dialogue.written("")
    world.disk.may_commit.set()
    await dialogue.broker("62 02 0001")
    assert await cursor(world) == 0
    dialogue.client("70 02 0001")
    assert await cursor(world) == 1


async def test_pubrec_of_an_unknown_identifier_is_answered_with_a_reason(
    world: World, dialogue: Dialogue
) -> None:
    """[section 3.6.2.1] In one run with known ones, and when it comes again."""
    await world.publish(message("1", qos=2), message("2", qos=2))
    await dialogue.broker("34 * 34 *")
    dialogue.client("50 02 0009  50 02 0001  50 02 0008  50 02 0002")
    await dialogue.broker("62 03 0009 92 62 03 0008 92 62 02 0001 62 02 0002")
    dialogue.client("50 02 0001")
    await dialogue.broker("62 02 0001")


async def test_what_the_client_refuses_is_over_and_counted(
    world: World, dialogue: Dialogue
) -> None:
    """P5, [MQTT-4.4.0-2]"""
    await world.publish(message("1"), message("2", qos=2), message("3"), message("4"))
    await dialogue.broker("*'4'")
    dialogue.client("40 03 0001 80  50 03 0002 97  40 03 0003 10")
    assert await cursor(world) == 3
    assert world.counters.dropped == {"refused by the client": 2}
    dialogue.written("")


@pytest.mark.parametrize("made_by_command", [False, True])
async def test_what_a_member_of_a_group_refuses_at_qos_2_is_a_dead_letter(
    world: World, made_by_command: bool
) -> None:
    """[MQTT-4.8.2-6] It goes to nobody else."""
    if made_by_command:
        world.groups.created[GROUP] = GroupDocument(GROUP, 5, 1000, 1000, 60_000, 1)
    dialogue = Dialogue(world)
    await dialogue.connect(expiry_s=100, receive_maximum=4)
    await dialogue.subscribe(GROUP, 2)
    await world.publish(*[message(str(n), "jobs/a", qos=2) for n in (1, 2, 3)])
    await dialogue.broker("*'3'")
    dialogue.client("50 02 0002")
    await dialogue.broker("62 02 0002")
    dialogue.client("50 09 0001 83 05 1F 0002 'no'")
    await world.settled()
    [letter] = await world.disk.scan(DeadLetterDocument)
    assert (letter.offset, letter.attempts, letter.worker) == (1, 1, "a")
    assert letter.reason == "no"
    assert await world.disk.scan(RetryDocument) == []


async def test_what_a_member_of_a_group_refuses_at_qos_1_is_tried_again(world: World) -> None:
    world.groups.created[GROUP] = GroupDocument(GROUP, 5, 1000, 1000, 60_000, 1)
    dialogue = Dialogue(world)
    await dialogue.connect(expiry_s=100)
    await dialogue.subscribe(GROUP, 1)
    await world.publish(message("1", "jobs/a"))
    await dialogue.broker("*'1'")
    dialogue.client("40 03 0001 80")
    await world.settled()
    [retry] = await world.disk.scan(RetryDocument)
    assert (retry.offset, retry.attempts) == (1, 1)


async def test_unsuback_comes_after_what_was_routed_before_it(
    world: World, dialogue: Dialogue
) -> None:
    """That waits for the socket, and then for the commit of its Packet Identifiers."""
    dialogue.peer.writable(yes=False)
    await world.publish(message("1", qos=2), message("2", qos=2))
    dialogue.client("A2 06 0007 00 0001 't'")
    await world.settled()
    dialogue.written("")
    world.disk.may_commit.clear()
    dialogue.peer.writable(yes=True)
    await turns()
    dialogue.written("")
    world.disk.may_commit.set()
    await dialogue.broker("34 07 0001 't' 0001 00 '1' 34 07 0001 't' 0002 00 '2' B0 04 0007 00 00")


async def test_an_acknowledged_message_makes_room_for_the_next(
    world: World, dialogue: Dialogue
) -> None:
    await world.publish(*[message(str(n), qos=2) for n in range(1, 6)])
    await dialogue.broker("* 34 07 0001 't' 0004 00 '4'")
    dialogue.client("50 02 0001")
    await dialogue.broker("62 02 0001")
    dialogue.client("70 02 0001")
    await dialogue.broker("34 07 0001 't' 0005 00 '5'")
    dialogue.client("50 03 0002 80")
    await world.publish(message("6"))
    await dialogue.broker("32 07 0001 't' 0006 00 '6'")


# Continued


async def test_a_new_connection_continues_what_was_unfinished(
    world: World, dialogue: Dialogue
) -> None:
    """[MQTT-4.4.0-1] Under the same identifiers: PUBREL first, then PUBLISH with DUP = 1."""
    await world.publish(message("one"), message("two", qos=2), message("three", qos=2))
    await dialogue.broker("*")
    dialogue.client("50 02 0003")
    await dialogue.broker("62 02 0003")
    dialogue.peer.lost()
    again = Dialogue(world)
    world.counters.messages_out = world.counters.payload_bytes_out = 0
    again.client("10 13 0004 'MQTT' 05 00 003C 05 11 00000064 0001 'a'")
    await again.broker(
        "20 03 01 00 00  62 02 0003  3A 09 0001 't' 0001 00 'one' 3C 09 0001 't' 0002 00 'two'"
    )
    counters = world.counters
    assert (counters.redeliveries, counters.messages_out, counters.payload_bytes_out) == (2, 2, 6)
    again.client("40 02 0001  50 02 0002  70 02 0003")
    await again.broker("62 02 0002")
    again.client("70 02 0002")
    assert await cursor(world) == 3


async def test_who_permits_less_than_before_is_sent_it_again_bit_by_bit(
    world: World, dialogue: Dialogue
) -> None:
    """[MQTT-3.3.4-9] And what is new after that."""
    await world.publish(*numbered(3))
    await dialogue.broker("*")
    dialogue.peer.lost()
    await world.publish(*numbered(1, first=4))
    again = Dialogue(world)
    await again.connect(expiry_s=100, receive_maximum=1)
    for n in (1, 2, 3):
        await again.broker("*" if n == 1 else f"3A 07 0001 't' {n:04X} 00 '{n}'")
        again.client(f"40 02 {n:04X}")
    await again.broker("32 07 0001 't' 0004 00 '4'")
    assert world.counters.redeliveries == 3


async def left_by(world: World, dialogue: Dialogue, count: int, qos: int) -> Sequence[int]:
    """The Packet Identifiers, which are the payloads too, of what the client was sent and has not
    acknowledged before its connection was lost."""
    dialogue.peer.lost()
    earlier = Dialogue(world)
    await earlier.connect(expiry_s=100)
    await world.publish(*numbered(count, qos=qos))
    await earlier.broker("*")
    earlier.peer.lost()
    await world.settled()
    return range(1, count + 1)


def again(numbers: Iterable[int], qos: int, *, version: int = MQTT_5) -> str:
    """PUBLISH packets with DUP that bring these."""
    head, properties = f"{0x38 | qos << 1:02X}", "00" if version == MQTT_5 else ""
    length = "07" if properties else "06"
    return " ".join(f"{head} {length} 0001 't' {n:04X} {properties} '{n}'" for n in numbers)


def acks(first: int, numbers: Iterable[int]) -> str:
    return " ".join(f"{first:02X} 02 {n:04X}" for n in numbers)


@pytest.mark.parametrize("receive_maximum", [1, 2])
@pytest.mark.parametrize("qos", [1, 2])
async def test_what_is_finished_while_it_waits_to_be_sent_again_is_not_sent_again(
    qos: int, receive_maximum: int, world: World, dialogue: Dialogue
) -> None:
    """[MQTT-4.3.3-1, MQTT-3.3.4-9] And it makes no room beside what was sent again."""
    sent = await left_by(world, dialogue, 8, qos)
    back = Dialogue(world)
    await back.connect(expiry_s=100, receive_maximum=receive_maximum)
    late = sent[receive_maximum:7]
    if qos == 1:
        back.client(acks(0x40, late))
        await back.broker("")
    else:
        back.client(acks(0x50, late))
        await back.broker(acks(0x62, late))
        back.client(acks(0x70, late))
        await back.broker("")
    back.client("40 02 0001" if qos == 1 else "50 03 0001 80")
    await back.broker(again([8], qos))
    assert world.counters.redeliveries == receive_maximum + 1


async def test_what_is_released_while_it_waits_to_be_sent_again_takes_room(
    world: World, dialogue: Dialogue
) -> None:
    """[MQTT-3.3.4-9] PUBREC without its PUBCOMP leaves the message unacknowledged."""
    await left_by(world, dialogue, 3, 2)
    back = Dialogue(world)
    await back.connect(expiry_s=100, receive_maximum=1)
    back.client(acks(0x50, [2]))
    await back.broker(acks(0x62, [2]))
    back.client("50 03 0001 80")
    await back.broker("")
    back.client(acks(0x70, [2]))
    await back.broker(again([3], 2))


@pytest.mark.parametrize("version", [4, 5])
@pytest.mark.parametrize("qos", [1, 2])
async def test_what_is_acknowledged_while_it_is_read_is_not_sent_again(
    qos: int, version: int, world: World, dialogue: Dialogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = await left_by(world, dialogue, 4, qos)
    may_fetch, fetch = asyncio.Event(), world.disk.fetch

    async def held_up(offsets: Sequence[Offset], *, bytes_max: int) -> Read:
        await may_fetch.wait()
        return await fetch(offsets, bytes_max=bytes_max)

    monkeypatch.setattr(world.disk, "fetch", held_up)
    back = Dialogue(world)
    await back.connect(version=version, expiry_s=100 if version == 5 else None)
    back.client(acks(0x40 if qos == 1 else 0x50, sent[1:]))
    await back.broker("" if qos == 1 else acks(0x62, sent[1:]))
    may_fetch.set()
    await back.broker(again([1], qos, version=version))


@pytest.mark.parametrize("version", [4, 5])
@pytest.mark.parametrize(
    ("qos", "wrong"), [(1, "50 02 0001"), (1, "70 02 0001"), (2, "40 02 0001"), (2, "70 02 0001")]
)
async def test_an_acknowledgement_of_the_wrong_type_ends_the_connection_and_frees_nothing(
    world: World, qos: int, wrong: str, version: int
) -> None:
    """[MQTT-4.13.1-1, MQTT3-4.8.0-1]"""
    properties = "05 1100000064" if version == 5 else ""
    connect = f"10 ( 0004'MQTT' {version:02X} 00 003C {properties} 0001'c' )"
    first, again = Dialogue(world), Dialogue(world)
    first.client(connect)
    await world.settled()
    first.client(f"82 ( 0009 {'00' if version == 5 else ''} 0001't' {qos:02X} )")
    await world.publish(message("1", qos=2), message("2", qos=2))
    await first.broker("*")
    first.client(wrong)
    await first.broker("E0 *" if version == 5 else "")
    assert first.transport.closed.is_set()
    again.client(connect)
    got = [packet.payload for packet in await again.deliveries(version=version)]
    assert got == [b"1", b"2"]


async def test_an_acknowledgement_of_the_wrong_type_ends_it_before_all_is_sent_again(
    world: World, dialogue: Dialogue
) -> None:
    await left_by(world, dialogue, 2, 2)
    back = Dialogue(world)
    await back.connect(expiry_s=100, receive_maximum=1)
    back.client("70 02 0002")
    await back.broker("E0 *")
    assert back.transport.closed.is_set()


async def test_a_full_socket_is_sent_nothing_again(world: World, dialogue: Dialogue) -> None:
    await world.publish(*numbered(2))
    await dialogue.broker("*")
    dialogue.peer.lost()
    again = Dialogue(world)
    again.peer.writable(yes=False)
    await again.connect(expiry_s=100)
    assert not any(world.disk.fetched)
    again.peer.writable(yes=True)
    await again.broker("3A 07 0001 't' 0001 00 '1' 3A 07 0001 't' 0002 00 '2'")


async def test_who_leaves_while_it_is_sent_again_gets_no_more_of_it(
    world: World, dialogue: Dialogue
) -> None:
    await world.publish(*numbered(2))
    await dialogue.broker("*")
    dialogue.peer.lost()
    again = Dialogue(world)
    again.peer.writable(yes=False)
    await again.connect(expiry_s=100)
    again.peer.writable(yes=True)
    again.peer.lost()
    await again.broker("")
    assert not any(world.disk.fetched)


# Shared Subscriptions


@pytest.mark.parametrize(("qos", "acknowledged"), [(1, True), (0, True), (1, False)])
async def test_a_member_tells_its_group_what_was_acknowledged(
    qos: int, acknowledged: bool, world: World
) -> None:
    """QoS 0 when it is sent. [MQTT-4.8.2-5]"""
    dialogue = Dialogue(world)
    await dialogue.connect(expiry_s=100)
    await dialogue.subscribe(GROUP, qos)
    await world.publish(message("1", "jobs/a"))
    await dialogue.broker("*'1'")
    if qos and acknowledged:
        dialogue.client("40 02 0001")
    assert await cursor(world, GROUP) == int(acknowledged)


async def test_a_member_with_room_again_gets_its_share(world: World) -> None:
    dialogue = Dialogue(world)
    await dialogue.connect(receive_maximum=1)
    await dialogue.subscribe(GROUP)
    await world.publish(*numbered(2, "jobs/a"))
    await dialogue.broker("32 0C 0006 'jobs/a' 0001 00 '1'")
    dialogue.client("40 02 0001")
    await dialogue.broker("32 0C 0006 'jobs/a' 0002 00 '2'")


@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_a_member_that_does_not_read_has_nothing_waiting_for_it(
    qos: int, world: World
) -> None:
    """Others get what its full socket does not take."""
    one, two = Dialogue(world), Dialogue(world)
    for dialogue, client_id in ((one, "one"), (two, "two")):
        await dialogue.connect(client_id)
        await dialogue.subscribe(GROUP, qos)
    one.peer.writable(yes=False)
    await world.publish(*numbered(9, "jobs/a", qos=qos))
    assert (await one.deliveries(), len(await two.deliveries())) == ([], 9)
    two.peer.writable(yes=False)
    await world.publish(*numbered(1, "jobs/a", first=10, qos=qos))
    one.peer.writable(yes=True)
    assert [publish.payload for publish in await one.deliveries()] == [b"10"]


@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_a_message_too_large_for_one_member_goes_to_another(qos: int, world: World) -> None:
    """[MQTT-3.1.2-24] P5: a dead letter where no member takes it."""
    small, large = Dialogue(world), Dialogue(world)
    await small.connect("small", packet_bytes_max=20)
    await small.subscribe(GROUP, qos)
    await large.connect("large", packet_bytes_max=30)
    await large.subscribe(GROUP, qos)
    sizes = [15, 15, 15, 30, 1, 1]
    await world.publish(*[message(b"x" * size, "jobs/a", qos=qos) for size in sizes])
    got = [[len(p.payload) for p in await each.deliveries()] for each in (small, large)]
    assert got == [[1], [15, 15, 15, 1]]
    assert (world.counters.dropped, world.counters.groups.dead_letters) == ({}, 1)
    moved = await cursor(world, GROUP)
    assert moved is not None
    assert moved >= 6


@pytest.mark.parametrize("topic_filter", ["jobs/a", GROUP])
async def test_who_is_lost_while_the_log_is_asked_for_it_is_sent_nothing(
    topic_filter: str, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P5: QoS 0 waits for it, or for another member, instead of going to a socket that is gone."""
    dialogue = Dialogue(world)
    await dialogue.connect(expiry_s=100)
    await dialogue.subscribe(topic_filter, 0)
    may_look, look_up = asyncio.Event(), world.disk.nth_last

    async def held_up(filters: Sequence[str], count: int) -> Offset:
        await may_look.wait()
        return await look_up(filters, count)

    monkeypatch.setattr(world.disk, "nth_last", held_up)
    dialogue.client("82 ( 0008 00 00 ('$replay/-3/u') 00 )")
    await world.settled()
    dialogue.peer.lost()
    await world.publish(message("1", "jobs/a", qos=0))
    may_look.set()
    await dialogue.broker("")
    back = Dialogue(world)
    back.client("10 13 0004 'MQTT' 05 00 003C 05 11 00000064 0001 'a'")
    assert [publish.payload for publish in await back.deliveries()] == [b"1"]


# What is missing


@pytest.fixture
def from_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever comes back reads the log: nothing is remembered of it."""
    monkeypatch.setattr("broker.delivery.recent.RECENT_MESSAGES_MAX", 0)


async def miss(world: World, *, log_start: int, version: int = MQTT_5, qos: int = 1) -> None:
    """A client that is subscribed to `t` is away while three messages come, and those below the new
    log start are removed."""
    dialogue = Dialogue(world)
    await dialogue.connect(version=version, expiry_s=100)
    properties = "00" if version == MQTT_5 else ""
    dialogue.client(f"82 ( 0009 {properties} 0001 't' 0{qos} ) E0 00")
    await world.publish(*numbered(3, qos=qos))
    await world.disk.trim(Offset(log_start))


@pytest.mark.usefixtures("from_the_log")
@pytest.mark.parametrize("packet_bytes_max", [9, 19])
async def test_a_gap_that_makes_a_message_too_large_is_left_out_and_counted(
    world: World, packet_bytes_max: int
) -> None:
    """P5. The message goes."""
    await miss(world, log_start=3)
    dialogue = Dialogue(world)
    dialogue.peer.writable(yes=False)
    await dialogue.connect(expiry_s=100, packet_bytes_max=packet_bytes_max)
    dialogue.peer.writable(yes=True)
    await dialogue.broker("32 07 0001 't' 0001 00 '3'")
    assert world.counters.left_out.gap_notes == 1
    assert +world.counters.dropped == {"removed by retention": 2}
    dialogue.client("40 02 0001")
    assert await cursor(world) == 3


@pytest.mark.usefixtures("from_the_log")
async def test_a_gap_that_just_fits_is_told(world: World) -> None:
    await miss(world, log_start=3)
    dialogue = Dialogue(world)
    dialogue.peer.writable(yes=False)
    await dialogue.connect(expiry_s=100, packet_bytes_max=20)
    dialogue.peer.writable(yes=True)
    await dialogue.broker("32 12 0001 't' 0001 0B 26 0003 'gap' 0003 '1-2' '3'")
    assert world.counters.left_out.gap_notes == 0


@pytest.mark.usefixtures("from_the_log")
async def test_who_cannot_be_told_what_is_missing_passes_it(world: World) -> None:
    """3.1.1 has no words for it. Or it would be read and counted at each connect."""
    await miss(world, log_start=4, version=MQTT_3_1_1)
    dialogue = Dialogue(world)
    await dialogue.connect(version=MQTT_3_1_1)
    dialogue.client("E0 00")
    assert await cursor(world) == 3
    assert world.counters.dropped["removed by retention"] == 3


@pytest.mark.usefixtures("from_the_log")
async def test_who_can_be_told_stays_before_what_is_missing_until_it_is(world: World) -> None:
    await miss(world, log_start=4)
    for _ in range(2):
        dialogue = Dialogue(world)
        await dialogue.connect(expiry_s=100)
        dialogue.client("E0 00")
        assert await cursor(world) == 0
    assert +world.counters.dropped == {"removed by retention": 3}
    dialogue = Dialogue(world)
    await dialogue.connect(expiry_s=100)
    await world.publish(message("4"))
    await dialogue.broker("32 12 0001 't' 0001 0B 26 0003 'gap' 0003 '1-3' '4'")


@pytest.mark.usefixtures("from_the_log")
@pytest.mark.parametrize("qos", [1, 2])
async def test_a_message_that_is_sent_again_tells_of_the_same_gap(world: World, qos: int) -> None:
    await miss(world, log_start=3, qos=qos)
    for duplicate in (0, 8, 8):
        dialogue = Dialogue(world)
        dialogue.peer.writable(yes=False)
        await dialogue.connect(expiry_s=100)
        dialogue.peer.writable(yes=True)
        await world.settled()
        first = f"3{2 * qos + duplicate:X}"
        await dialogue.broker(f"{first} 12 0001 't' 0001 0B 26 0003 'gap' 0003 '1-2' '3'")
        dialogue.client("E0 00")
        assert await cursor(world) == 0
    assert +world.counters.dropped == {"removed by retention": 2}
    dialogue = Dialogue(world)
    await dialogue.connect(expiry_s=100)
    dialogue.client("40 02 0001" if qos == 1 else "50 02 0001")
    assert await cursor(world) == (3 if qos == 1 else 2)


@pytest.mark.usefixtures("from_the_log")
@pytest.mark.parametrize("qos", [1, 2])
@pytest.mark.parametrize("clean", [True, False])
async def test_a_gap_that_was_told_and_not_acknowledged_is_told_by_the_next_run_too(
    qos: int, clean: bool
) -> None:
    """P5. After a stop, and after a crash; and not once it is acknowledged."""
    disk = Disk()
    async with running(disk) as world:
        await miss(world, log_start=3, qos=qos)
        dialogue = Dialogue(world)
        dialogue.peer.writable(yes=False)
        await dialogue.connect(expiry_s=100)
        dialogue.peer.writable(yes=True)
        await world.settled()
        await dialogue.broker("*'3'")
        if clean:
            dialogue.client("E0 00")
        await world.settled()
    async with running(disk) as world:
        dialogue = Dialogue(world)
        dialogue.peer.writable(yes=False)
        await dialogue.connect(expiry_s=100)
        dialogue.peer.writable(yes=True)
        await dialogue.broker("* 12 0001 't' 0001 0B 26 0003 'gap' 0003 '1-2' '3'")
        dialogue.client("40 02 0001" if qos == 1 else "50 02 0001")
        await world.settled()
        dialogue.client("E0 00")
        await world.settled()
    async with running(disk) as world:
        dialogue = Dialogue(world)
        await dialogue.connect(expiry_s=100)
        await world.publish(message("4"))
        await world.settled()
        assert b"gap" not in dialogue.transport.written
