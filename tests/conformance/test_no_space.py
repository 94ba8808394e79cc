"""A PUBLISH that the broker has no space for is refused to MQTT 5 and may be sent again."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import closing
from pathlib import Path

import pytest

from broker.config import DATABASE, Config
from broker.documents import Operation, Place
from broker.errors import StoreFull
from broker.message import Message
from broker.mqtt.encode import encode
from broker.mqtt.packets import MQTT_5
from broker.server.server import Server
from broker.store.sqlite.store import SqliteStore
from tests.support.raw_client import connect_packet
from tests.support.wire import script_bytes


class FillingStore(SqliteStore):
    full = False

    async def append(
        self,
        batch: Sequence[Message],
        state: Sequence[Operation] = (),
        *,
        durable: bool = True,
        places: Sequence[Place] = (),
    ) -> None:
        if FillingStore.full:
            raise StoreFull("no space")
        await super().append(batch, state, durable=durable, places=places)


@pytest.fixture
async def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Server]:
    monkeypatch.setattr("broker.server.open_store.SqliteStore", FillingStore)
    monkeypatch.setattr("broker.log.log.FULL_RETRY_S", 0.01)
    server = Server(Config(port=0, data_dir=tmp_path))
    await server.start()
    yield server
    await server.stop()


async def test_what_finds_no_space_is_refused_and_may_be_sent_again(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """[MQTT-3.4.2-1, MQTT-3.5.2-1, MQTT-4.3.3-9]"""
    reader, writer = await asyncio.open_connection(*server.address)

    async def exchange(script: str, answer: str) -> None:
        writer.write(script_bytes(script))
        wanted = script_bytes(answer)
        async with asyncio.timeout(5):
            assert await reader.readexactly(len(wanted)) == wanted

    writer.write(encode(connect_packet("a", durable=True), MQTT_5))
    async with asyncio.timeout(5):
        _, length = await reader.readexactly(2)
        await reader.readexactly(length)
    one, two = "32 07 0001 't' 0001 00 'x'", "34 07 0001 't' 0002 00 'y'"
    with monkeypatch.context() as full:
        full.setattr(FillingStore, "full", True)
        await exchange(f"{one} {two}", "40 03 0001 97  50 03 0002 97")
        await exchange(two, "50 03 0002 97")
    await exchange(f"{one} {two}", "40 03 0001 10  50 03 0002 10")  # Nobody is subscribed.
    await exchange(two, "50 02 0002")
    writer.close()
    await writer.wait_closed()
    with closing(sqlite3.connect(tmp_path / DATABASE)) as database:
        payloads = database.execute("SELECT payload FROM history ORDER BY offset").fetchall()
    assert payloads == [(b"x",), (b"y",)]
