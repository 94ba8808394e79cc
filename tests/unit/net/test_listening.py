from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from broker.config import Config
from broker.errors import ConfigError
from broker.net.entrance import Connections
from broker.net.listening import DOUBTED_EVERY_S, Listening
from broker.settings.listeners import Listener
from tests.support.certificates import Network
from tests.support.clients import services
from tests.support.world import World

HERE = Listener(port=0)


@pytest.fixture
async def listening(world: World) -> AsyncIterator[Listening]:
    connections = Connections(world.clock, unfinished_bytes_max=1)
    listening = Listening(services(world, Config()), connections)
    yield listening
    listening.stop()
    for _ in range(5):
        await asyncio.sleep(0)
    for connection in list(connections):
        connection.abort()
    await asyncio.sleep(0)


async def test_a_port_that_is_taken_is_told_with_what_to_do(listening: Listening) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(ConfigError) as raised:
            await listening.start([Listener(port=port)])
    assert (raised.value.key, raised.value.value) == ("port", port)
    assert "choose another with --port" in raised.value.remedy


async def test_an_address_that_is_not_ours_is_told(listening: Listening) -> None:
    with pytest.raises(ConfigError) as raised:
        await listening.start([Listener(host="192.0.2.1", port=0)])
    assert raised.value.key == "host"


@pytest.mark.parametrize("host", ["nohost.invalid", "999.1.1.1", "a" * 64 + ".invalid"])
async def test_a_name_that_does_not_resolve_is_told(listening: Listening, host: str) -> None:
    with pytest.raises(ConfigError) as raised:
        await listening.start([Listener(host=host, port=0)])
    assert (raised.value.key, raised.value.value) == ("host", host)
    assert raised.value.remedy.startswith("does not resolve (")


async def test_all_are_listened_on_and_the_first_that_has_a_port_is_told(
    listening: Listening, tmp_path: Path
) -> None:
    path = tmp_path / "s.sock"
    await listening.start([Listener(unix_socket=path)])
    assert listening.address == (str(path), 0)
    await listening.start([HERE, HERE])
    host, port = listening.address
    assert host == "127.0.0.1"
    servers = [server for _, server in listening._open]
    assert [len(server.sockets) for server in servers] == [1, 1, 1]
    _, writer = await asyncio.open_connection(host, port)
    writer.close()


async def test_the_address_is_told_before_the_start_and_after_a_stop_too(
    listening: Listening, tmp_path: Path
) -> None:
    """An operator asks for the status of a broker that reads certificates, or stops."""
    path = tmp_path / "s.sock"
    assert listening.address == ("", 0)
    await listening.start([HERE, Listener(unix_socket=path)])
    before = listening.address
    listening._open[0][1].close()  # As a reload does with one that is in the way.
    assert listening.address == before
    listening.stop()
    assert listening.address == before
    listening.stop()
    assert listening.address == before


async def test_if_one_cannot_be_listened_on_none_is(listening: Listening, tmp_path: Path) -> None:
    path = tmp_path / "s.sock"
    with pytest.raises(ConfigError):
        await listening.start([Listener(unix_socket=path), Listener(host="192.0.2.1", port=0)])
    assert not path.exists()


async def test_a_unix_socket_that_a_broker_left_is_replaced(
    listening: Listening, tmp_path: Path
) -> None:
    path = tmp_path / "s.sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    await listening.start([Listener(unix_socket=path)])
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))


async def test_a_unix_socket_that_is_listened_on_is_left_alone(
    listening: Listening, tmp_path: Path
) -> None:
    path = tmp_path / "s.sock"
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        other.listen()
        with pytest.raises(ConfigError, match="is in use"):
            await listening.start([Listener(unix_socket=path)])


async def test_a_file_that_is_no_socket_is_left_alone(listening: Listening, tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("mine")
    with pytest.raises(ConfigError, match="is no socket"):
        await listening.start([Listener(unix_socket=path)])
    assert path.read_text() == "mine"


async def test_a_certificate_that_expires_meanwhile_is_told_once_a_day_and_in_the_status(
    world: World, listening: Listening, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    network = Network(tmp_path)
    network.renewed(30)
    world.clock.set_wall(int(time.time()) - int(DOUBTED_EVERY_S / 2))
    file = str(network.server.certificate)
    await listening.start([HERE, replace(network.listener(), port=0)])
    assert len(str(listening.status()["listeners"]).split(",")) == 2
    assert listening.status()["certificates"] == {}
    telling = asyncio.create_task(listening.doubt_forever())
    await asyncio.sleep(0)
    said = []
    for _ in range(31):
        world.clock.advance(DOUBTED_EVERY_S)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        said.append(caplog.messages[-1] if caplog.messages else "")
        caplog.clear()
    telling.cancel()
    assert said.count("") == 16
    assert said[-15] == f"clients will soon not connect any more: {file}: expires in 13 days"
    assert said[-1] == f"careful clients will not connect: {file}: certificate has expired"
    assert listening.status()["certificates"] == {file: "certificate has expired"}
