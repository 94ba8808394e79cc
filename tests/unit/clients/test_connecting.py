"""Connecting: what a CONNECT asks for is granted, or refused with a reason."""

from __future__ import annotations

from dataclasses import replace

import pytest

from broker.clients.connecting import refusal
from broker.config import Config
from broker.documents import SessionDocument, WillDocument
from broker.errors import QuotaExceeded, StoreConflict, StoreError, StoreFull, StoreUnavailable
from broker.mqtt.encode import encode
from broker.mqtt.packets import MQTT_3_1_1, MQTT_5, Connect, Will
from broker.store.shared.follower import nobody_listens
from tests.support.clients import NOTHING_TO_TELL, Dialogue
from tests.support.two_brokers import both_settled, store_of, two_brokers
from tests.support.world import Disk, World, running

DAY_S = 86_400


def connect(world: World, packet: Connect, config: Config = NOTHING_TO_TELL) -> Dialogue:
    dialogue = Dialogue(world, config)
    dialogue.peer.receive(encode(packet, packet.version), world.clock.monotonic())
    return dialogue


async def stored_expiry_s(world: World, client_id: str = "a") -> int | None:
    """How long the session outlives its connection; None: it does not."""
    document = await world.disk.get(SessionDocument, (client_id,))
    return None if document is None else document.session_expiry_s


async def test_a_client_that_asks_for_nothing_is_told_nothing(world: World) -> None:
    dialogue = connect(world, Connect(MQTT_5, "a", False, 60))
    await dialogue.broker("20 03 00 00 00")
    assert world.counters.connects == 1


# The session


async def test_a_session_that_lasts_is_present_when_its_client_comes_back(world: World) -> None:
    """[MQTT-3.2.2-3] And not for a client that wants a new one. [MQTT-3.1.2-4]"""
    lasting = Connect(MQTT_5, "a", False, 60, session_expiry_s=100)
    for packet, present in (
        (lasting, "00"),
        (lasting, "01"),
        (replace(lasting, clean_start=True), "00"),
        (lasting, "01"),
    ):
        dialogue = connect(world, packet)
        await dialogue.broker(f"20 03 {present} 00 00")
        dialogue.peer.lost()


async def test_a_client_of_3_1_1_has_its_session_back(world: World) -> None:
    """[MQTT3-3.2.2-2]"""
    for present in ("00", "01"):
        dialogue = connect(world, Connect(MQTT_3_1_1, "a", False, 60))
        await dialogue.broker(f"20 02 {present} 00")
        dialogue.peer.lost()


@pytest.mark.parametrize(
    ("packet", "stored_s", "told"),
    [
        (Connect(MQTT_5, "a", False, 60), None, "20 03 00 00 00"),
        (Connect(MQTT_5, "a", False, 60, session_expiry_s=0), None, "20 03 00 00 00"),
        (Connect(MQTT_5, "a", True, 60, session_expiry_s=9), 9, "20 03 00 00 00"),
        (Connect(MQTT_5, "a", False, 60, session_expiry_s=100), 100, "20 03 00 00 00"),
        (Connect(MQTT_5, "a", False, 60, session_expiry_s=101), 100, "20 08 00 00 05 11 00000064"),
        (Connect(MQTT_3_1_1, "a", False, 60), 7, "20 02 00 00"),
        (Connect(MQTT_3_1_1, "a", True, 60), None, "20 02 00 00"),
    ],
)
async def test_the_session_lasts_as_long_as_was_asked_for_and_is_allowed(
    packet: Connect, stored_s: int | None, told: str, world: World
) -> None:
    """[MQTT-3.1.2-23, MQTT-3.2.2-21] 3.1.1 can only ask for one that lasts, or that does not."""
    config = replace(NOTHING_TO_TELL, session_expiry_max_s=100, session_expiry_default_s=7)
    dialogue = connect(world, packet, config)
    await dialogue.broker(told)
    assert await stored_expiry_s(world) == stored_s


async def test_a_client_without_an_identifier_is_given_one_of_its_own(world: World) -> None:
    """[MQTT-3.1.3-6, MQTT-3.2.2-16]"""
    given = set()
    for _ in range(2):
        dialogue = connect(world, Connect(MQTT_5, "", False, 60, session_expiry_s=9))
        await world.settled()
        head, _, number = dialogue.transport.written.partition(b"auto-")
        assert (head.hex(" "), len(number)) == ("20 2b 00 00 28 12 00 25", 32)
        given.add("auto-" + number.decode())
    assert len(given) == 2
    assert {await stored_expiry_s(world, client_id) for client_id in given} == {9}


async def test_the_receive_maximum_of_the_client_is_kept_to(world: World) -> None:
    """[MQTT-3.3.4-9]"""
    dialogue = connect(world, Connect(MQTT_5, "a", False, 60, receive_maximum=1))
    await dialogue.broker("20 *")
    await dialogue.subscribe("t")
    dialogue.client("32 06 0001 't' 0001 00  32 06 0001 't' 0002 00")
    await dialogue.broker("40 02 0001 40 02 0002  32 06 0001 't' 0001 00")


# What else is asked for


@pytest.mark.parametrize(
    ("asks", "information", "told"),
    [
        (True, "rs", "20 08 00 00 05 1A 0002 'rs'"),
        (False, "rs", "20 03 00 00 00"),
        (True, "", "20 03 00 00 00"),
    ],
)
async def test_response_information_is_for_who_asks(
    asks: bool, information: str, told: str, world: World
) -> None:
    """[MQTT-3.1.2-28]"""
    config = replace(NOTHING_TO_TELL, response_information=information)
    packet = Connect(MQTT_5, "a", False, 60, request_response_information=asks)
    await connect(world, packet, config).broker(told)


@pytest.mark.parametrize(
    ("asked_for_s", "most_s", "told"),
    [
        (60, 60, "20 03 00 00 00"),
        (61, 60, "20 06 00 00 03 13 003C"),
        (0, 60, "20 06 00 00 03 13 003C"),
        (1, 60, "20 03 00 00 00"),
        (0, 0, "20 03 00 00 00"),
        (65_535, 0, "20 03 00 00 00"),
    ],
)
async def test_who_asks_for_a_long_keep_alive_is_told_a_shorter_one(
    asked_for_s: int, most_s: int, told: str, world: World
) -> None:
    """[MQTT-3.2.2-21]"""
    config = replace(NOTHING_TO_TELL, keep_alive_max_s=most_s)
    packet = Connect(MQTT_5, "a", False, asked_for_s)
    await connect(world, packet, config).broker(told)


async def test_who_cannot_be_told_another_keep_alive_keeps_its_own(world: World) -> None:
    config = replace(NOTHING_TO_TELL, keep_alive_max_s=60)
    dialogue = connect(world, Connect(MQTT_3_1_1, "a", True, 0), config)
    await dialogue.broker("20 02 00 00")
    assert dialogue.peer.deadline() is None


# The will


async def test_a_will_is_stored_as_it_came_before_the_client_is_accepted(world: World) -> None:
    """[MQTT-3.1.2-8] Or a crash of the broker would lose it."""
    will = Will("w", b"gone", 2, True, b"\x26\x00\x01k\x00\x01v", 30, 7)
    packet = Connect(MQTT_5, "a", False, 60, will=will, session_expiry_s=9)
    world.disk.may_commit.clear()
    dialogue = connect(world, packet)
    dialogue.written("")
    world.disk.may_commit.set()
    await dialogue.broker("20 03 00 00 00")
    assert await world.disk.scan(WillDocument) == [
        WillDocument("a", "w", b"gone", 2, True, b"\x26\x00\x01k\x00\x01v", 30, 7, "anonymous")
    ]


async def test_a_client_without_a_will_has_none(world: World) -> None:
    await connect(world, Connect(MQTT_5, "a", False, 60, session_expiry_s=9)).broker("20 *")
    assert await world.disk.scan(WillDocument) == []


# Refused


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (QuotaExceeded("too many"), 0x97),
        (StoreFull("no space"), 0x97),
        (StoreUnavailable("busy"), 0x88),
        (StoreConflict("revision"), 0x88),
    ],
)
def test_a_refusal_says_whether_the_broker_is_full_or_only_busy(
    error: QuotaExceeded | StoreError, code: int
) -> None:
    assert refusal(error) == code


@pytest.mark.parametrize(
    ("version", "answer"),
    [(MQTT_5, "20 .. 00 97 * 'keeps 1 session already'"), (MQTT_3_1_1, "20 02 00 03")],
)
async def test_who_would_have_one_session_too_many_is_refused(
    version: int, answer: str, caplog: pytest.LogCaptureFixture
) -> None:
    config = replace(NOTHING_TO_TELL, sessions_max=1)
    async with running(Disk(), config) as world:
        await connect(world, Connect(version, "a", False, 60, session_expiry_s=9)).broker("20 *")
        dialogue = connect(world, Connect(version, "b", False, 60, session_expiry_s=9))
        await dialogue.broker(answer)
        assert dialogue.transport.closed.is_set()
        assert world.counters.refused_connects == 1
        assert caplog.messages == [
            "client 'b' at here: refused: the broker keeps 1 session already"
        ]


# Several brokers on one log


async def test_who_comes_where_it_is_not_known_that_its_session_has_gone_is_let_in() -> None:
    async with two_brokers() as (a, b):
        lasting = Connect(MQTT_5, "a", False, 60, session_expiry_s=100)
        connect(a, lasting)
        await both_settled(a, b)
        store_of(a).changed_elsewhere = nobody_listens
        elsewhere = connect(b, lasting)
        await both_settled(a, b)
        assert "a" in a.sessions.kept
        back = connect(a, lasting)
        await both_settled(a, b)
        await back.broker("20 03 01 00 00")
        assert elsewhere.transport.closed.is_set()
