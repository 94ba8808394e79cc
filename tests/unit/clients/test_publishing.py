"""Publishing: acknowledged when it is on the disk, and what the acknowledgement says."""

from __future__ import annotations

import asyncio

import pytest

from broker.clients.held_back import TOO_FAST
from broker.clients.publishing import NOT_KEPT
from broker.clock import US
from broker.documents import ReceivedQos2Document
from broker.errors import StoreUnavailable
from broker.log.losses import NOT_LOGGED
from broker.log.outage import DISK_LOW
from broker.message import Message, Offset
from broker.mqtt.packets import MQTT_3_1_1, MQTT_5
from broker.security.quotas import Quota
from tests.support.clients import Dialogue
from tests.support.world import Subscriber, World, cursor, placed, subscription


@pytest.fixture
async def dialogue(world: World) -> Dialogue:
    """An MQTT 5 client whose session lasts, and another that is subscribed to `t`."""
    await subscribe(world, "t")
    dialogue = Dialogue(world)
    await dialogue.connect(expiry_s=100)
    return dialogue


async def subscribe(world: World, topic_filter: str) -> None:
    subscriber = Subscriber(world)
    await subscriber.open(topic_filter, expiry_s=0)
    world.delivery.subscribe(placed(subscriber), subscription(topic_filter))


async def stored(world: World) -> list[Message]:
    return (await world.disk.read(Offset(1), world.disk.high_watermark)).messages


async def turns() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


# On the disk, then acknowledged


async def test_nothing_is_acknowledged_before_it_is_stored(
    world: World, dialogue: Dialogue
) -> None:
    """P1, [MQTT-4.3.2-4, MQTT-4.3.3-8]"""
    world.disk.may_commit.clear()
    dialogue.client("32 06 0001 't' 0001 00  34 06 0001 't' 0002 00  32 06 0001 't' 0003 00")
    await turns()
    dialogue.written("")
    world.disk.may_commit.set()
    await dialogue.broker("40 02 0001 40 02 0003 50 02 0002")


async def test_a_message_is_stored_as_it_came(world: World, dialogue: Dialogue) -> None:
    now_us = world.clock.wall_us()
    dialogue.client("33 (0001 't' 0001 0A 02 0000001E 03 0002 't/' 'one')  34 06 0001 't' 0002 00")
    dialogue.client("30 07 0001 't' 00 'two'")
    await world.settled()
    first, second, third = await stored(world)
    assert first == Message(
        "t", b"one", 1, True, "a", now_us, now_us + 30 * US, b"\x03\x00\x02t/", Offset(1)
    )
    assert second == Message("t", b"", 2, False, "a", now_us, None, b"", Offset(2))
    assert third == Message("t", b"two", 0, False, "a", now_us, None, b"", Offset(3))
    assert [first.size, second.size, third.size] == [8, 0, 3]


async def test_nobody_waits_for_the_disk_because_of_qos_0(world: World, dialogue: Dialogue) -> None:
    """P9"""
    dialogue.client("30 04 0001 't' 00")
    await world.settled()
    dialogue.client("30 04 0001 't' 00  32 06 0001 't' 0001 00")
    await world.settled()
    durable = [durable for payloads, _, durable in world.disk.commits if payloads]
    assert durable == [False, True]


async def test_what_the_log_could_not_take_is_not_acknowledged(
    world: World, dialogue: Dialogue
) -> None:
    """P6"""
    world.disk.broken = StoreUnavailable("lost")
    dialogue.client("32 06 0001 't' 0001 00  34 06 0001 't' 0002 00  62 02 0009")
    dialogue.client("32 0B 0006 '$SYS/x' 0003 00")
    await turns()
    assert world.log.failure is not None
    dialogue.written("")


async def test_who_has_left_is_not_acknowledged(world: World, dialogue: Dialogue) -> None:
    dialogue.client("32 06 0001 't' 0001 00  34 06 0001 't' 0002 00  E0 00")
    await dialogue.broker("")
    assert len(await stored(world)) == 2


# QoS 2


async def test_a_message_of_qos_2_that_comes_again_is_stored_once(
    world: World, dialogue: Dialogue
) -> None:
    """[MQTT-4.3.3-10]"""
    for dup in "04", "3C", "3C":
        dialogue.client(f"{'34' if dup == '04' else dup} 07 0001 't' 0001 00 'x'")
        await dialogue.broker("50 02 0001")
    dialogue.client("62 02 0001")
    await dialogue.broker("70 02 0001")
    dialogue.client("34 07 0001 't' 0001 00 'y'")
    await dialogue.broker("50 02 0001")
    assert [message.payload for message in await stored(world)] == [b"x", b"y"]


async def test_the_identifiers_that_were_received_outlive_a_crash(
    world: World, dialogue: Dialogue
) -> None:
    """P3: or what comes again after it would be stored again."""
    dialogue.client("34 06 0001 't' 0101 00  34 06 0001 't' 0002 00")
    await dialogue.broker("50 02 0101 50 02 0002")
    kept = await world.disk.get(ReceivedQos2Document, ("a",))
    assert kept is not None
    assert kept.packet_ids == b"\x00\x02\x01\x01"


async def test_a_message_that_comes_again_is_acknowledged_when_the_first_is_stored(
    world: World, dialogue: Dialogue
) -> None:
    """P1"""
    world.disk.may_commit.clear()
    dialogue.client("34 06 0001 't' 0001 00")
    await turns()
    dialogue.client("3C 06 0001 't' 0001 00")
    await turns()
    dialogue.written("")
    world.disk.may_commit.set()
    await dialogue.broker("50 02 0001 50 02 0001")


async def test_pubcomp_leaves_when_it_is_committed_that_the_identifier_is_free(
    world: World, dialogue: Dialogue
) -> None:
    """[MQTT-4.3.3-11] Of an unknown one too: what released it may not be committed yet."""
    dialogue.client("34 06 0001 't' 0001 00")
    await dialogue.broker("50 02 0001")
    world.disk.may_commit.clear()
    dialogue.client("62 02 0001  62 02 0009")
    await turns()
    dialogue.written("")
    world.disk.may_commit.set()
    await dialogue.broker("70 02 0001 70 03 0009 92")


async def test_a_session_that_does_not_last_waits_for_no_commit(world: World) -> None:
    dialogue = Dialogue(world)
    await dialogue.connect("b")
    dialogue.client("34 06 0001 't' 0001 00")
    await dialogue.broker("50 03 0001 10")
    world.disk.may_commit.clear()
    dialogue.client("62 02 0001  62 02 0009")
    dialogue.written("70 02 0001 70 03 0009 92")
    assert await world.disk.scan(ReceivedQos2Document) == []


# No space


async def test_a_client_of_mqtt_5_hears_that_there_is_no_space(
    world: World, dialogue: Dialogue
) -> None:
    """And may send it again: no identifier is in use because of it. (P5)"""
    dialogue.client("34 07 0001 't' 0001 00 'a'")
    await dialogue.broker("50 02 0001")
    world.disk.full = True
    dialogue.client(
        "32 06 0001 't' 0005 00  34 07 0001 't' 0002 00 'b'  3C 07 0001 't' 0001 00 'a'"
    )
    dialogue.client("30 04 0001 't' 00")
    await turns()
    dialogue.written("40 03 0005 97 50 03 0002 97 50 02 0001")
    world.disk.full = False
    world.clock.advance(1)
    dialogue.client("34 07 0001 't' 0002 00 'b'  32 07 0001 't' 0005 00 'c'")
    await dialogue.broker("40 02 0005 50 02 0002")
    assert sorted([m.payload for m in await stored(world)]) == [b"a", b"b", b"c"]


async def test_qos_0_that_came_with_what_found_no_space_is_counted(
    world: World, dialogue: Dialogue, caplog: pytest.LogCaptureFixture
) -> None:
    """P5"""
    caplog.set_level("INFO")
    world.disk.full = True
    dialogue.client("32 06 0001 't' 0001 00  30 04 0001 't' 00  30 04 0001 't' 00")
    await turns()
    dialogue.written("40 03 0001 97")
    assert world.counters.dropped == {NOT_LOGGED: 2}
    assert "client 'a': 3 messages are refused: no space" in caplog.messages


async def test_one_message_that_is_refused_is_told_as_one(
    world: World, dialogue: Dialogue, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    world.disk.full = True
    dialogue.client("32 06 0001 't' 0001 00")
    await turns()
    dialogue.written("40 03 0001 97")
    assert "client 'a': 1 message is refused: no space" in caplog.messages


async def test_a_client_of_3_1_1_waits_for_space(world: World) -> None:
    """It cannot be told."""
    await subscribe(world, "t")
    dialogue = Dialogue(world)
    await dialogue.connect(version=MQTT_3_1_1)
    world.disk.full = True
    dialogue.client("32 06 0001 't' 0001 'x'")
    await turns()
    dialogue.written("")
    world.disk.full = False
    world.clock.advance(1)
    await dialogue.broker("40 02 0001")


# What the acknowledgement says


async def test_who_asks_for_a_receipt_is_told_the_offset(world: World, dialogue: Dialogue) -> None:
    ask = "26 0007 'receipt' 0004 'true'"
    other = "26 0007 'receipt' 0004 'nope'"
    dialogue.client(f"32 (0001 't' 0001 10 {ask})  32 (0001 't' 0002 10 {other})")
    dialogue.client(f"34 (0001 't' 0003 10 {ask})  30 (0001 't' 10 {ask})  32 06 0001 't' 0004 00")
    receipt = "26 0006 'offset' 0001"
    await dialogue.broker(
        f"40 10 0001 00 0C {receipt} '1' 40 02 0002 40 02 0004 50 10 0003 00 0C {receipt} '3'"
    )


async def test_who_publishes_what_nobody_is_subscribed_to_is_told_so(
    world: World, dialogue: Dialogue
) -> None:
    """[section 3.4.2.1]"""
    dialogue.client(
        "32 06 0001 't' 0001 00  32 06 0001 'u' 0002 00  32 06 0001 'u' 0003 00"
        "32 06 0001 't' 0004 00  34 06 0001 'u' 0005 00  34 06 0001 't' 0006 00"
        "30 04 0001 'u' 00"
    )
    await dialogue.broker(
        "40 02 0001 40 03 0002 10 40 03 0003 10 40 02 0004 50 03 0005 10 50 02 0006"
    )


async def test_a_receipt_of_what_nobody_gets_says_both(world: World, dialogue: Dialogue) -> None:
    dialogue.client("32 (0001 'u' 0001 10 26 0007 'receipt' 0004 'true')")
    await dialogue.broker("40 10 0001 10 0C 26 0006 'offset' 0001 '1'")


async def test_3_1_1_has_no_words_for_that(world: World) -> None:
    dialogue = Dialogue(world)
    await dialogue.connect(version=MQTT_3_1_1)
    dialogue.client("32 05 0001 'u' 0001  34 05 0001 'u' 0002")
    await dialogue.broker("40 02 0001 50 02 0002")


# What is the broker's to publish


async def test_what_is_published_to_a_reserved_topic_is_refused_after_what_came_before(
    world: World, dialogue: Dialogue, caplog: pytest.LogCaptureFixture
) -> None:
    """[MQTT-4.7.2-1] P5: counted"""
    caplog.set_level("INFO")
    world.disk.may_commit.clear()
    dialogue.client("32 06 0001 't' 0001 00")
    await turns()
    dialogue.client("30 09 0006 '$SYS/x' 00")
    dialogue.client("32 0B 0006 '$SYS/x' 0002 00  34 0B 0006 '$SYS/x' 0003 00")
    await turns()
    dialogue.written("")
    world.disk.may_commit.set()
    await dialogue.broker("40 02 0001 40 .. 0002 90 * 50 .. 0003 90 *")
    assert world.counters.dropped == {"published to $SYS": 3}
    assert len(await stored(world)) == 1
    told = [text.split(":")[0] for text in caplog.messages]
    assert told == ["client 'a'"] * 3


async def test_3_1_1_is_answered_as_if_it_were_not_refused(world: World) -> None:
    """[MQTT3-3.3.5-2]"""
    dialogue = Dialogue(world)
    await dialogue.connect(version=MQTT_3_1_1)
    dialogue.client("32 0A 0006 '$SYS/x' 0001  34 0A 0006 '$SYS/x' 0002")
    await dialogue.broker("40 02 0001 50 02 0002")
    assert await stored(world) == []


@pytest.mark.parametrize(
    "publish", ["(0002 't' 07 {} {} 'x')", "(0001 't' {} 05 08 0002 'r' 1F 'x')"]
)
async def test_a_control_character_in_a_topic_is_refused_and_counted(
    world: World, dialogue: Dialogue, publish: str
) -> None:
    """P5. The connection is kept."""
    none = "00" if publish.count("{}") == 2 else ""
    for first, packet_id in (("30", ""), ("32", "0002"), ("34", "0003")):
        dialogue.client(first + publish.format(packet_id, none))
    dialogue.client("32 06 0001 't' 0004 00")
    await dialogue.broker("40 .. 0002 90 * 50 .. 0003 90 * 40 02 0004")
    assert world.counters.dropped == {"control character in a topic": 3}
    assert [message.payload for message in await stored(world)] == [b""]


async def test_a_control_character_in_a_property_is_refused_and_counted(
    world: World, dialogue: Dialogue
) -> None:
    """P5. The connection is kept."""
    for first, packet_id in (("30", ""), ("32", "0002"), ("34", "0003")):
        dialogue.client(f"{first} (0001 't' {packet_id} 07 26 0001 'k' 0001 0A 'x')")
    dialogue.client("32 06 0001 't' 0004 00")
    await dialogue.broker("40 .. 0002 99 * 50 .. 0003 99 * 40 02 0004")
    assert world.counters.dropped == {"control character in a property": 3}
    assert [message.payload for message in await stored(world)] == [b""]


async def test_3_1_1_is_acknowledged_and_its_control_character_dropped(world: World) -> None:
    """[MQTT3-3.3.5-2]"""
    dialogue = Dialogue(world)
    await dialogue.connect(version=MQTT_3_1_1)
    dialogue.client("30 04 0002 't' 07  32 06 0002 't' 07 0001  34 06 0002 't' 07 0002")
    await dialogue.broker("40 02 0001 50 02 0002")
    dialogue.client("62 02 0002")
    await dialogue.broker("70 02 0002")
    assert world.counters.dropped == {"control character in a topic": 3}
    assert await stored(world) == []


# A disk that is nearly full

NEARLY = "no room"


async def test_mqtt_5_is_told_in_words_that_there_is_no_room(
    world: World, dialogue: Dialogue
) -> None:
    """QoS 0 is delivered, not logged, and counted."""
    world.log.outage.room(NEARLY)
    dialogue.client("32 06 0001 't' 0001 00  34 06 0001 't' 0002 00  30 05 0001 't' 00 'x'")
    reason = "0A 1F 0007 'no room'"
    await dialogue.broker(f"40 0E 0001 97 {reason}  50 0E 0002 97 {reason}")
    await world.settled()
    assert await stored(world) == []
    assert world.counters.dropped[DISK_LOW] == 2
    assert world.counters.dropped[NOT_LOGGED] == 1
    assert dialogue.transport.reading
    world.log.outage.room("")
    dialogue.client("34 06 0001 't' 0002 00")
    await dialogue.broker("50 02 0002")


async def test_a_qos_2_message_that_was_stored_is_acknowledged_again_without_room(
    world: World, dialogue: Dialogue
) -> None:
    dialogue.client("34 06 0001 't' 0002 00")
    await dialogue.broker("50 02 0002")
    world.log.outage.room(NEARLY)
    dialogue.client("3C 06 0001 't' 0002 00")
    await dialogue.broker("50 02 0002")


async def test_mqtt_3_waits_and_is_not_read_from_until_there_is_room(world: World) -> None:
    await subscribe(world, "t")
    dialogue = Dialogue(world)
    await dialogue.connect(version=MQTT_3_1_1)
    world.log.outage.room(NEARLY)
    dialogue.client("32 06 0001 't' 0001 '1'  34 06 0001 't' 0002 '2'  32 06 0001 't' 0003 '3'")
    await world.settled()
    dialogue.written("")
    assert not dialogue.transport.reading
    assert await stored(world) == []
    world.log.outage.room("")
    await dialogue.broker("40 02 0001 40 02 0003 50 02 0002")
    assert [m.payload for m in await stored(world)] == [b"1", b"2", b"3"]
    assert dialogue.transport.reading


async def test_who_left_while_it_waited_for_room_publishes_nothing(world: World) -> None:
    dialogue = Dialogue(world)
    await dialogue.connect(version=MQTT_3_1_1)
    world.log.outage.room(NEARLY)
    dialogue.client("32 06 0001 't' 0001 '1'")
    await world.settled()
    dialogue.peer.lost()
    world.log.outage.room("")
    await world.settled()
    assert await stored(world) == []


async def test_subscribers_get_and_acknowledge_what_there_is_without_room(world: World) -> None:
    subscriber = Subscriber(world)
    await subscriber.open()
    subscriber.subscribe(subscription("t"))
    await world.publish(Message("t", b"1", 1, False, "p", 1))
    world.log.outage.room(NEARLY)
    await subscriber.acknowledge()
    assert await cursor(world) == 1


# The user's pace


async def at_a_pace(world: World, version: int, quota: Quota) -> Dialogue:
    await world.quotas.put("user", "anna", quota)
    dialogue = Dialogue(world)
    await dialogue.connect(version=version, expiry_s=100 if version == MQTT_5 else None)
    for session in world.sessions.in_memory.values():
        session.tally.belongs_to("anna")
    return dialogue


@pytest.mark.parametrize("version", [MQTT_3_1_1, MQTT_5])
async def test_who_publishes_faster_than_its_user_may_is_not_read_from_for_a_while(
    world: World, version: int
) -> None:
    dialogue = await at_a_pace(world, version, Quota(publish_per_s=10))
    publish = "32 06 0001 't' 0001 00" if version == MQTT_5 else "32 05 0001 't' 0001"
    dialogue.client(publish * 10)
    assert dialogue.transport.reading, "a second's worth may come at once"
    dialogue.client(publish * 5)
    assert dialogue.transport.not_read_because == {"quota"}
    await dialogue.broker(("40 03 0001 10 " if version == MQTT_5 else "40 02 0001 ") * 15)
    world.clock.advance(0.4)
    await world.settled()
    assert not dialogue.transport.reading
    world.clock.advance(0.2)
    await world.settled()
    assert dialogue.transport.reading


async def test_a_quota_that_is_taken_away_slows_nobody_any_more(world: World) -> None:
    dialogue = await at_a_pace(world, MQTT_5, Quota(publish_bytes_per_s=10))
    await world.quotas.remove("user", "anna")
    dialogue.client("32 06 0001 't' 0001 00" * 20)
    assert dialogue.transport.reading


async def test_who_shares_a_user_that_is_far_ahead_is_refused_where_it_can_be_told(
    world: World,
) -> None:
    dialogue = await at_a_pace(world, MQTT_5, Quota(publish_per_s=1))
    pace = world.quotas.pace_of("anna")
    assert pace is not None
    pace.take(100, 0, world.clock.monotonic())
    dialogue.client("32 06 0001 't' 0001 00  34 06 0001 't' 0002 00  30 04 0001 't' 00")
    await dialogue.broker("40 * 0001 97 *  50 * 0002 97 *")
    assert await stored(world) == []
    assert world.counters.dropped[TOO_FAST] == 3
    old = Dialogue(world)
    await old.connect("b", version=MQTT_3_1_1)
    world.sessions.in_memory["b"].tally.belongs_to("anna")
    old.client("32 05 0001 't' 0001  30 03 0001 't'")
    await old.broker("40 02 0001")
    assert len(await stored(world)) == 1, "QoS 1 waited only"
    assert world.counters.dropped[TOO_FAST] == 4


# What is delayed, or has a key: the rest is in test_asking.py

LATER = "( 000C '$delayed/5/t' 0001 00 'x' )"


@pytest.mark.parametrize(("first_byte", "ack"), [("32", "40 02 0001"), ("34", "50 02 0001")])
async def test_a_delayed_message_is_acknowledged_as_any_other(
    world: World, dialogue: Dialogue, first_byte: str, ack: str
) -> None:
    dialogue.client(f"{first_byte} {LATER}")
    await dialogue.broker(ack)
    world.disk.broken = StoreUnavailable("lost")
    dialogue.client(f"{first_byte} {LATER.replace('0001', '0002')}")
    await turns()
    dialogue.written("")


async def test_a_delayed_message_of_qos_2_that_comes_again_is_kept_once(
    world: World, dialogue: Dialogue
) -> None:
    """[MQTT-4.3.3-10] Its identifier is stored with it, and one of QoS 1 is not."""
    dialogue.client(f"34 {LATER}  3C {LATER}  32 {LATER.replace('0001', '0002')}")
    await dialogue.broker("50 02 0001 50 02 0001 40 02 0002")
    assert len(world.asking.delayed) == 2
    received = await world.disk.get(ReceivedQos2Document, ("a",))
    assert received == ReceivedQos2Document("a", b"\x00\x01")
    dialogue.client("62 02 0001  62 02 0002")
    await dialogue.broker("70 02 0001 70 03 0002 92")


async def test_a_delayed_message_of_qos_2_that_found_no_space_may_be_sent_again(
    world: World, dialogue: Dialogue
) -> None:
    world.disk.full = True
    dialogue.client(f"34 {LATER}")
    await turns()
    dialogue.written("50 03 0001 97")
    world.disk.full = False
    dialogue.client(f"3C {LATER}")
    await dialogue.broker("50 02 0001")
    assert len(world.asking.delayed) == 1


async def test_who_asks_for_a_receipt_of_a_delayed_message_has_none_yet(
    world: World, dialogue: Dialogue
) -> None:
    dialogue.client("32 ( 000C '$delayed/5/t' 0001 10 26 0007 'receipt' 0004 'true' 'x' )")
    await dialogue.broker("40 02 0001")


async def test_delayed_messages_of_qos_0_hold_nobody_and_are_counted_if_they_are_not_kept(
    world: World, dialogue: Dialogue
) -> None:
    held: list[object] = []
    world.log.throttle = lambda publisher: held.append(publisher)  # type: ignore[method-assign]
    world.disk.full = True
    dialogue.client("30 ( 000C '$delayed/5/t' 00 'x' )")
    await turns()
    assert world.counters.dropped[NOT_KEPT] == 1
    assert held == []
    world.disk.full = False
    dialogue.client(f"32 {LATER}")
    await dialogue.broker("40 02 0001")
    assert len(held) == 1
