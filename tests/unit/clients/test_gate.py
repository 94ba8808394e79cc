"""The gate: who may connect, with which answer, and whose sessions are whose."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

import pytest

from broker.clients.faces import Peer
from broker.config import Config
from broker.documents import SessionDocument
from broker.errors import UserRemoved
from broker.mqtt.encode import encode
from broker.mqtt.packets import MQTT_3_1_1, MQTT_5, Connect, Disconnect, Publish
from broker.registry.access.flapping import FREE, PAUSE_S, WAIT_MAX_S
from broker.security import passwords
from broker.security.quotas import Quota
from tests.support.clients import NOTHING_TO_TELL, Dialogue
from tests.support.lines import Lines
from tests.support.passwords import user
from tests.support.patience import PATIENCE_S
from tests.support.world import World

OPEN = replace(NOTHING_TO_TELL, allow_anonymous=True)
ACCEPTED = {MQTT_3_1_1: "20 02 00 00", MQTT_5: "20 03 00 00 00"}


def connecting(
    world: World,
    name: str | None = None,
    password: bytes | None = None,
    *,
    client_id: str = "a",
    version: int = MQTT_5,
    config: Config = NOTHING_TO_TELL,
    clean_start: bool = False,
) -> Dialogue:
    dialogue = Dialogue(world, config)
    packet = Connect(version, client_id, clean_start, 60, username=name, password=password)
    if version == MQTT_5:
        packet.session_expiry_s = 100
    dialogue.peer.receive(encode(packet, version), world.clock.monotonic())
    return dialogue


async def answer(world: World, dialogue: Dialogue) -> bytes:
    """What the broker has written when all is done."""
    await seen(world, lambda: bool(dialogue.transport.written) or dialogue.peer.closed)
    written, dialogue.transport.written = dialogue.transport.written, b""
    return written


async def seen(world: World, come: Callable[[], bool]) -> None:
    """It has come, and all is done."""
    async with asyncio.timeout(PATIENCE_S):
        while not come():  # noqa: ASYNC110  It comes from a thread.
            await asyncio.sleep(0.001)
    await world.settled()


def code(written: bytes) -> tuple[int, int]:
    """Packet type and Reason Code."""
    return written[0] >> 4, written[2 if written[0] >> 4 == 14 else 3]


async def connected(world: World, name: str, *, client_id: str = "a") -> Dialogue:
    dialogue = connecting(world, name, b"secret", client_id=client_id)
    assert code(await answer(world, dialogue)) == (2, 0)
    return dialogue


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The hashes that were compared."""
    made: list[str] = []
    real = passwords.fits

    def counted(password: bytes, kept: str) -> bool:
        made.append(kept)
        return real(password, kept)

    monkeypatch.setattr(passwords, "fits", counted)
    return made


@pytest.fixture
async def users(world: World) -> None:
    await world.users.put(user("anna"), user("bob"))


@pytest.mark.parametrize(
    ("name", "password", "codes"),
    [
        ("anna", b"secret", {MQTT_3_1_1: 0, MQTT_5: 0}),
        ("anna", b"Secret", {MQTT_3_1_1: 4, MQTT_5: 0x86}),
        ("anna", None, {MQTT_3_1_1: 4, MQTT_5: 0x86}),
        ("nobody", b"secret", {MQTT_3_1_1: 4, MQTT_5: 0x86}),
        (None, None, {MQTT_3_1_1: 5, MQTT_5: 0x87}),
    ],
)
@pytest.mark.parametrize("version", [MQTT_3_1_1, MQTT_5])
@pytest.mark.usefixtures("users")
async def test_the_password_opens(
    world: World, version: int, name: str | None, password: bytes | None, codes: dict[int, int]
) -> None:
    dialogue = connecting(world, name, password, version=version)
    assert code(await answer(world, dialogue)) == (2, codes[version])
    assert dialogue.peer.closed == bool(codes[version])
    assert world.users.is_connected("anna") == (not codes[version])


async def test_without_users_whatever_is_given_comes_in(world: World) -> None:
    for name, password in ((None, None), ("anna", b"x")):
        assert code(await answer(world, connecting(world, name, password))) == (2, 0)


@pytest.mark.usefixtures("users")
async def test_waiting_for_our_hash_is_no_silence_of_the_client(world: World) -> None:
    dialogue = connecting(world, "anna", b"secret")
    await asyncio.sleep(0)
    assert dialogue.peer.deadline() is None
    world.clock.advance(1000)
    dialogue.peer.expire(world.clock.monotonic())
    assert code(await answer(world, dialogue)) == (2, 0)
    assert dialogue.peer.deadline() is not None


@pytest.mark.parametrize("rest", [b"", encode(Publish("t", b"x", 1, False, False, 1), MQTT_5)])
@pytest.mark.usefixtures("users")
async def test_who_has_left_while_it_waits_costs_no_hash(
    world: World, made: list[str], rest: bytes
) -> None:
    """But who has sent all that it had to say, and ended its side, is heard."""
    dialogue = Dialogue(world)
    dialogue.transport.left = True
    packet = Connect(MQTT_5, "a", True, 60, username="anna", password=b"secret")
    dialogue.peer.receive(encode(packet, MQTT_5) + rest, world.clock.monotonic())
    await answer(world, dialogue)
    assert len(made) == bool(rest)
    assert dialogue.peer.closed == (not rest)


@pytest.mark.parametrize("gone", [True, False])
@pytest.mark.usefixtures("users")
async def test_a_line_client_is_heard_also_when_it_has_ended_its_side(
    world: World, made: list[str], gone: bool
) -> None:
    lines = Lines(world)
    lines.transport.left, lines.transport.gone = True, gone
    lines.says("LOGIN anna secret")
    await seen(world, lambda: lines.transport.written != b"")
    assert len(made) == (not gone)


@pytest.mark.usefixtures("users")
async def test_a_stranger_cannot_make_a_client_wait(world: World) -> None:
    for _ in range(FREE + 1):
        world.quotas.flapping.wait_s("mallory", "a", world.clock.monotonic())
    await answer(world, connecting(world, "anna", b"wrong"))
    assert code(await answer(world, connecting(world, "anna", b"secret"))) == (2, 0)


@pytest.mark.usefixtures("users")
async def test_who_connects_over_and_over_waits_and_may_be_sent_away_meanwhile(
    world: World,
) -> None:
    for _ in range(FREE):
        world.quotas.flapping.wait_s("anna", "a", world.clock.monotonic())
    first = connecting(world, "anna", b"secret")
    await seen(world, lambda: world.users.is_connected("anna"))
    assert first.transport.written == b""
    world.clock.advance(PAUSE_S)
    assert code(await answer(world, first)) == (2, 0)
    second = connecting(world, "anna", b"secret")
    await world.settled()
    assert second.transport.written == b""
    await world.users.remove("anna")
    world.clock.advance(WAIT_MAX_S)
    await answer(world, second)
    assert second.peer.closed
    assert not world.users.is_connected("anna")


@pytest.mark.usefixtures("users")
async def test_who_leaves_with_disconnect_does_not_wait(world: World) -> None:
    for _ in range(2 * FREE):
        dialogue = await connected(world, "anna")
        dialogue.peer.receive(encode(Disconnect(), MQTT_5), world.clock.monotonic())


# Changes


async def test_with_the_first_user_who_has_not_said_who_it_is_must_go(world: World) -> None:
    strict, lax = connecting(world), connecting(world, client_id="b", config=OPEN)
    for dialogue in (strict, lax):
        await answer(world, dialogue)
    await world.users.put(user("anna"))
    assert code(await answer(world, strict)) == (14, 0x87)
    assert not lax.peer.closed
    await world.users.put(user("bob"))
    assert not lax.peer.closed


@pytest.mark.usefixtures("users")
async def test_a_removed_user_is_disconnected_and_no_other(world: World) -> None:
    anna, bob = await connected(world, "anna"), await connected(world, "bob", client_id="b")
    await world.users.remove("anna")
    assert code(await answer(world, anna)) == (14, 0x98)
    assert not bob.peer.closed


@pytest.mark.usefixtures("users")
async def test_another_password_ends_what_came_in_with_the_old_one(world: World) -> None:
    anna, bob = await connected(world, "anna"), await connected(world, "bob", client_id="b")
    await world.users.put(replace(user("anna"), roles="other"))
    assert not anna.peer.closed
    await world.users.put(replace(user("anna"), password=passwords.hashed(b"new")))
    assert code(await answer(world, anna)) == (14, 0x87)
    assert not bob.peer.closed


# Whose session it is


@pytest.mark.parametrize("clean_start", [False, True])
@pytest.mark.parametrize(("version", "refusal"), [(MQTT_3_1_1, 5), (MQTT_5, 0x87)])
@pytest.mark.usefixtures("users")
async def test_another_users_client_identifier_is_refused_and_the_owner_stays(
    world: World, version: int, refusal: int, clean_start: bool
) -> None:
    owner = await connected(world, "anna")
    thief = connecting(world, "bob", b"secret", version=version, clean_start=clean_start)
    assert code(await answer(world, thief)) == (2, refusal)
    assert not owner.peer.closed
    again = connecting(world, "anna", b"secret")
    assert code(await answer(world, again)) == (2, 0)
    assert owner.peer.closed


@pytest.mark.parametrize("clean_start", [False, True])
@pytest.mark.usefixtures("users")
async def test_also_while_the_owner_is_away(world: World, clean_start: bool) -> None:
    owner = await connected(world, "anna")
    owner.peer.lost()
    await world.settled()
    thief = connecting(world, "bob", b"secret", clean_start=clean_start)
    assert code(await answer(world, thief)) == (2, 0x87)
    back = connecting(world, "anna", b"secret")
    assert (await answer(world, back))[2:4] == b"\x01\x00"  # Session Present


async def test_what_was_made_without_users_is_whose_who_comes_first(world: World) -> None:
    before = connecting(world)
    await answer(world, before)
    await world.users.put(user("anna"), user("bob"))
    await answer(world, before)
    await world.settled()
    first = await connected(world, "anna")
    document = await world.disk.get(SessionDocument, ("a",))
    assert document is not None
    assert document.user == "anna"
    thief = connecting(world, "bob", b"secret")
    assert code(await answer(world, thief)) == (2, 0x87)
    assert not first.peer.closed


# The line protocol


async def lines_get(world: World, lines: Lines) -> list[str]:
    async with asyncio.timeout(60):
        while not lines.transport.written:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
    return await lines.gets()


LOG_IN = "ERROR log in first: LOGIN <user> <password>"


@pytest.mark.usefixtures("users")
async def test_a_line_peer_logs_in_first(world: World) -> None:
    lines = Lines(world)
    lines.says("PUBLISH t 1 p", "SUBSCRIBE t sub1")
    assert await lines.gets() == [LOG_IN] * 2
    lines.says("LOGIN anna wrong", "PUBLISH t 1 p")
    assert await lines_get(world, lines) == ["ERROR wrong user name or password", LOG_IN]
    lines.says("LOGIN anna secret", "PUBLISH t 1 p", "SUBSCRIBE t sub1")
    assert await lines_get(world, lines) == ["OK"] * 3
    assert lines.transport.deadlines_moved == 1
    lines.says("LOGIN bob secret")
    assert await lines.gets() == ["ERROR LOGIN comes before the first subscriber"]
    document = await world.disk.get(SessionDocument, ("sub1",))
    assert document is not None
    assert document.user == "anna"
    other = Lines(world)
    other.says("LOGIN bob secret", "SUBSCRIBE t sub1")
    assert await lines_get(world, other) == ["OK", "ERROR that name is another user's"]
    await world.users.remove("anna")
    assert await lines.gets() == ["ERROR the user was removed"]


@pytest.mark.usefixtures("users")
async def test_a_line_peer_may_be_anonymous_where_that_is_allowed(world: World) -> None:
    await world.users.put(user("anonymous", ""))
    lines = Lines(world, OPEN)
    lines.says("PUBLISH t 1 p")
    assert await lines.gets() == ["OK"]


@pytest.mark.usefixtures("users")
async def test_who_is_removed_while_its_command_begins_leaves_without_trouble(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    lines = Lines(world, peer=Peer("here", certificate_user="anna"))
    lines.says("SUBSCRIBE t sub1")
    lines.client.dismiss(UserRemoved("the user was removed"))
    assert await lines_get(world, lines) == ["ERROR the user was removed"]
    assert lines.transport.closed.is_set()
    assert "cut off" not in caplog.text
    assert world.sessions.connected_count == 0


# Quotas


async def test_a_user_that_has_its_connections_gets_no_other_but_may_take_one_over(
    world: World,
) -> None:
    await world.users.put(user("anna"), user("bob"))
    await world.quotas.put("user", "anna", Quota(connections=1))
    first = await connected(world, "anna", client_id="a")
    refused = connecting(world, "anna", b"secret", client_id="b")
    assert code(await answer(world, refused)) == (2, 0x97)
    assert world.users.guests("anna").keys() == {first.peer}
    await connected(world, "bob", client_id="c")
    again = await connected(world, "anna", client_id="a")
    assert first.peer.closed
    assert world.users.guests("anna").keys() == {again.peer}


async def test_a_line_client_is_told_that_its_user_has_its_connections(world: World) -> None:
    await world.users.put(user("anna"))
    await world.quotas.put("user", "anna", Quota(connections=1))
    await connected(world, "anna")
    lines = Lines(world)
    lines.says("LOGIN anna secret")
    said = await lines_get(world, lines)
    assert said == ["ERROR anna may have 1 connections, and has 1"]


async def test_sessions_and_the_size_of_packets_are_the_users(world: World) -> None:
    await world.users.put(user("anna"))
    await world.quotas.put("user", "anna", Quota(sessions=1, packet_bytes=256))
    written = await answer(world, connecting(world, "anna", b"secret", client_id="a"))
    assert code(written) == (2, 0)
    assert bytes.fromhex("27 00000100") in written, "Maximum Packet Size"
    other = connecting(world, "anna", b"secret", client_id="b")
    assert code(await answer(world, other)) == (2, 0x97)
    old = connecting(world, "anna", b"secret", client_id="a", version=MQTT_3_1_1)
    assert code(await answer(world, old)) == (2, 0)
    old.client("30 FD 01 0001 't' " + "00" * 250)
    assert not old.peer.closed
    old.client("30 FE 01 0001 't' " + "00" * 251)
    assert old.peer.closed


@pytest.mark.usefixtures("users")
async def test_lines_are_held_to_the_quota_of_their_user(world: World) -> None:
    quota = Quota(publish_per_s=10, packet_bytes=256, subscriptions=1)
    await world.quotas.put("user", "anna", quota)
    lines = Lines(world)
    lines.says("LOGIN anna secret")
    await seen(world, lambda: lines.transport.written != b"")
    assert lines.written() == ["OK"]
    lines.says("SUBSCRIBE a sub1")
    lines.says("SUBSCRIBE b sub1")
    assert await lines.gets() == ["OK", "ERROR the subscriber has 1 subscription already"]
    lines.says(f"PUBLISH t {'x' * 256} p")
    assert "ERROR" in (await lines.gets())[0]
    lines.says(*["PUBLISH t x p"] * 10)
    assert lines.transport.reading, "a second's worth may come at once"
    lines.says(*["PUBLISH t x p"] * 5)
    assert lines.transport.not_read_because == {"quota"}
    assert await lines.gets() == ["OK"] * 15
    world.clock.advance(0.6)
    await world.settled()
    assert lines.transport.reading
