from __future__ import annotations

import socket
from pathlib import Path

import pytest

from broker.clients.services import Services
from broker.config import Config
from broker.errors import ConfigError
from broker.net.listening import listen, listen_unix
from broker.net.tcp import Connections
from tests.support.clients import services
from tests.support.world import World


@pytest.fixture
def given(world: World) -> tuple[Services, Connections]:
    return services(world, Config()), Connections(world.clock, unfinished_bytes_max=1)


async def test_a_port_that_is_taken_is_told_with_what_to_do(
    given: tuple[Services, Connections],
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(ConfigError) as raised:
            await listen(*given, Config(port=port))
    assert (raised.value.key, raised.value.value) == ("port", port)
    assert "choose another with --port" in raised.value.remedy


async def test_an_address_that_is_not_ours_is_told(given: tuple[Services, Connections]) -> None:
    with pytest.raises(ConfigError) as raised:
        await listen(*given, Config(host="192.0.2.1", port=0, allow_anonymous=True))
    assert raised.value.key == "host"


async def test_a_unix_socket_that_a_broker_left_is_replaced(
    given: tuple[Services, Connections], tmp_path: Path
) -> None:
    path = tmp_path / "s.sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    server = await listen_unix(*given, path)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
    server.close()


async def test_a_unix_socket_that_is_listened_on_is_left_alone(
    given: tuple[Services, Connections], tmp_path: Path
) -> None:
    path = tmp_path / "s.sock"
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        other.listen()
        with pytest.raises(ConfigError, match="is in use"):
            await listen_unix(*given, path)


async def test_a_file_that_is_no_socket_is_left_alone(
    given: tuple[Services, Connections], tmp_path: Path
) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("mine")
    with pytest.raises(ConfigError, match="is no socket"):
        await listen_unix(*given, path)
    assert path.read_text() == "mine"
