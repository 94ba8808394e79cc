"""Two brokers on one log: one of them ends, and its clients go on at the other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from broker.config import Config
from broker.documents import WillDeadlineDocument
from broker.errors import CommandRefused, StoreFenced, StoreUnavailable
from broker.mqtt.packets import MQTT_3_1_1, MQTT_5, Connect, Disconnect, Will
from broker.mqtt.properties import Property
from broker.server.server import Server
from broker.store.shared.memory_log import MemoryLog
from tests.support.patience import PATIENCE_S
from tests.support.raw_client import RawClient, connect_packet
from tests.support.stores import read_all
from tests.support.two_servers import sharing

WILL = Will("will", b"gone", 1, False, b"", None, 0)


@pytest.fixture
def configs(tmp_path: Path) -> list[Config]:
    """The letter of the standard: a stop publishes wills."""
    return [
        Config(
            port=0,
            data_dir=tmp_path / name,
            advertise=f"{name}.example.org:1883",
            will_restart_grace_s=0,
            connections_max=100,
        )
        for name in "ab"
    ]


@pytest.fixture
async def servers(configs: list[Config]) -> AsyncIterator[list[Server]]:
    async with sharing(MemoryLog(), *configs) as servers:
        yield servers


async def connected(server: Server, packet: Connect) -> RawClient:
    def connect() -> RawClient:
        client = RawClient(server.address[1], packet.version)
        client.connect(packet)
        return client

    return await asyncio.to_thread(connect)


def with_will(client_id: str, *, durable: bool) -> Connect:
    expiry_s = 3600 if durable else None
    return Connect(
        MQTT_5,
        client_id,
        False,
        60,
        will=replace(WILL, payload=client_id.encode()),
        session_expiry_s=expiry_s,
    )


async def logged(server: Server) -> list[tuple[str, bytes]]:
    return [(message.topic, message.payload) for message in await read_all(server._log.store)]


@pytest.mark.parametrize(("for_good", "code"), [(False, 0x9C), (True, 0x9D)])
async def test_clients_are_told_where_to_go_on_and_their_wills_stay(
    servers: list[Server], for_good: bool, code: int
) -> None:
    a, b = servers
    clients = [
        await connected(a, with_will(name, durable=durable))
        for name, durable in (("x", True), ("y", False))
    ]
    old = await connected(a, connect_packet("z", version=MQTT_3_1_1))
    a.drain(for_good=for_good)
    for client in clients:
        told = await asyncio.to_thread(client.expect, Disconnect)
        assert (told.reason_code, told.server_reference) == (code, "b.example.org:1883")
    assert await asyncio.to_thread(old.closed)
    moved = [
        await connected(b, with_will(name, durable=durable))
        for name, durable in (("x", True), ("y", False))
    ]
    async with asyncio.timeout(PATIENCE_S):
        await a.wait_stopped()
    await a.stop()
    assert await logged(b) == []
    stored = await b._log.store.scan(WillDeadlineDocument)
    assert [(will.client_id, will.due_at_us) for will in stored] == [("x", None), ("y", None)]
    for client in (*clients, *moved, old):
        client.socket.close()


async def test_one_that_comes_nowhere_leaves_its_will(servers: list[Server]) -> None:
    """Later than a stop here would have it: it was told to go on elsewhere."""
    a, b = servers
    client = await connected(a, with_will("x", durable=True))
    a.drain(for_good=False)
    async with asyncio.timeout(PATIENCE_S):
        await a.wait_stopped()
    await a.stop()
    async with asyncio.timeout(PATIENCE_S):
        while not b._services.wills.has("x"):  # noqa: ASYNC110  Within its next heartbeat.
            await asyncio.sleep(0.01)
    (will,) = await b._log.store.scan(WillDeadlineDocument)
    assert will.due_at_us is not None
    left_s = b._log.time.monotonic_at(will.due_at_us) - b._services.clock.monotonic()
    assert 20 < left_s <= 30
    assert await logged(b) == []
    client.socket.close()


async def test_all_are_told_of_many(servers: list[Server], monkeypatch: pytest.MonkeyPatch) -> None:
    a, _ = servers
    monkeypatch.setattr("broker.net.moving.MOVED_AT_ONCE_MAX", 3)
    monkeypatch.setattr("broker.registry.wills.MOVED_AT_ONCE_MAX", 3)
    clients = [await connected(a, with_will(f"x{n}", durable=True)) for n in range(10)]
    a.drain(for_good=False)
    for client in clients:
        assert (await asyncio.to_thread(client.expect, Disconnect)).reason_code == 0x9C
        client.socket.close()


async def test_a_log_that_takes_nothing_holds_up_a_drain_no_longer_than_a_stop(
    configs: list[Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And who could not be told before is told in the end."""
    configs = [replace(config, drain_timeout_s=2) for config in configs]
    monkeypatch.setattr("broker.net.moving.MOVED_AT_ONCE_MAX", 1)
    async with sharing(MemoryLog(), *configs) as (a, _):
        clients = [await connected(a, connect_packet(f"x{number}")) for number in range(2)]
        loop = asyncio.get_running_loop()
        began = loop.time()
        with monkeypatch.context() as patch:
            patch.setattr(a._log, "flushed", lambda: asyncio.Event().wait())
            a.drain(for_good=True)
            async with asyncio.timeout(PATIENCE_S):
                await a.wait_stopped()
                with pytest.raises(StoreUnavailable, match="in 2 s the log did not take"):
                    await a.stop()
        assert loop.time() - began < 2 * 2
        for client in clients:
            assert (await asyncio.to_thread(client.expect, Disconnect)).reason_code == 0x9D
            client.socket.close()


async def test_who_is_alone_does_not_drain(configs: list[Config]) -> None:
    async with sharing(MemoryLog(), configs[0]) as (alone,):
        with pytest.raises(CommandRefused, match="no other broker"):
            alone.drain(for_good=False)


async def test_one_that_was_taken_for_dead_refers_its_clients(servers: list[Server]) -> None:
    a, b = servers
    client = await connected(a, connect_packet("x"))
    assert b._opened.shared is not None
    assert a._opened.shared is not None
    async with asyncio.timeout(PATIENCE_S):
        while not await b._opened.shared.declare_dead(a._opened.shared.broker_id):
            pass
        await a.wait_stopped()
    with pytest.raises(StoreFenced):
        await a.stop()
    told = await asyncio.to_thread(client.expect, Disconnect)
    assert (told.reason_code, told.server_reference) == (0x9C, "b.example.org:1883")
    client.socket.close()


async def test_one_without_room_refers_to_one_that_has_some(configs: list[Config]) -> None:
    small = [
        Config(
            port=0,
            data_dir=config.data_dir,
            advertise=config.advertise,
            connections_max=most,
            sessions_max=sessions,
        )
        for config, most, sessions in zip(configs, (3, 100), (1, 9), strict=True)
    ]
    async with sharing(MemoryLog(), *small) as (a, _):
        first = await connected(a, connect_packet("x", durable=True))

        def refused(packet: Connect) -> tuple[int, object]:
            with RawClient(a.address[1], packet.version) as client:
                connack = client.connect(packet)
                return connack.reason_code, connack.properties.get(Property.SERVER_REFERENCE)

        other = "b.example.org:1883"
        durable = connect_packet("y", durable=True)
        assert await asyncio.to_thread(refused, durable) == (0x9C, other), "a second session"
        second = await connected(a, connect_packet("y"))
        assert await asyncio.to_thread(refused, connect_packet("z")) == (0x9C, other)
        again = await connected(a, connect_packet("x", durable=True))
        assert await asyncio.to_thread(first.expect, Disconnect) is not None
        old = await connected(a, connect_packet("o", version=MQTT_3_1_1))
        for client in (first, second, again, old):
            client.socket.close()
