"""Leaving: what a DISCONNECT says counts for the session, and for the will."""

from __future__ import annotations

from dataclasses import replace

import pytest

from broker.clients.leaving import Leaving
from broker.documents import SessionDocument, WillDocument
from broker.mqtt.packets import Disconnect
from broker.mqtt.reasons import ReasonCode
from tests.support.clients import NOTHING_TO_TELL, services
from tests.support.world import Subscriber, World, payloads, subscription

WILL = WillDocument("a", "will", b"gone", 1, False, b"", None, 0)


async def leave(world: World, said: Disconnect | None, *, expiry_s: int = 100) -> Leaving:
    client = Subscriber(world)
    await client.open("a", will=WILL, expiry_s=expiry_s)
    assert client.session is not None
    leaving = Leaving(services(world, replace(NOTHING_TO_TELL, session_expiry_max_s=500)))
    if said is not None:
        leaving.said(said, client.session)
    leaving.let_go(client.session, client)
    await world.log.flushed()
    return leaving


@pytest.mark.parametrize(
    ("said", "why", "wills"),
    [
        (None, "the connection was lost", [b"gone"]),
        (Disconnect(), "it sent DISCONNECT", []),
        (
            Disconnect(ReasonCode.DISCONNECT_WITH_WILL),
            "it sent DISCONNECT with Reason Code 0x04",
            [b"gone"],
        ),
        (
            Disconnect(ReasonCode.UNSPECIFIED_ERROR),
            "it sent DISCONNECT with Reason Code 0x80",
            [b"gone"],
        ),
    ],
)
async def test_the_will_goes_out_unless_it_is_withdrawn(
    world: World, said: Disconnect | None, why: str, wills: list[bytes]
) -> None:
    """[MQTT-3.14.4-3]"""
    heir = Subscriber(world)
    await heir.open("heir")
    heir.subscribe(subscription("will", client_id="heir"))
    leaving = await leave(world, said)
    await world.wills.publish_due()
    await world.settled()
    assert leaving.why == why
    assert payloads(heir.got) == wills
    assert await world.disk.get(WillDocument, ("a",)) is None


@pytest.mark.parametrize(
    ("expiry_s", "said_s", "stored_s"),
    [(100, None, 100), (100, 7, 7), (100, 501, 500), (0, 7, None)],
)
async def test_the_session_lasts_as_long_as_was_said_at_last(
    world: World, expiry_s: int, said_s: int | None, stored_s: int | None
) -> None:
    """Within what the broker allows, and only if it was to last at all. [MQTT-3.14.2-2]"""
    await leave(world, Disconnect(session_expiry_s=said_s), expiry_s=expiry_s)
    session = await world.disk.get(SessionDocument, ("a",))
    assert (None if session is None else session.session_expiry_s) == stored_s


async def test_before_there_is_a_session_only_the_reason_is_kept(world: World) -> None:
    leaving = Leaving(services(world, NOTHING_TO_TELL))
    leaving.said(Disconnect(session_expiry_s=7), None)
    assert leaving.why == "it sent DISCONNECT"


async def test_whatever_fails_the_rest_of_it_is_left(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise RuntimeError("a mistake")

    monkeypatch.setattr(world.groups, "detach", fails)
    with pytest.raises(RuntimeError, match="a mistake"):
        await leave(world, None)
    assert "a" not in world.sessions.owners
