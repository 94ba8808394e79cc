"""Who is in by which listener, and who makes room."""

from __future__ import annotations

import socket
from contextlib import ExitStack

import pytest

from broker.clients.faces import Peer
from broker.config import Config
from broker.mqtt.encode import encode
from broker.mqtt.packets import MQTT_5
from broker.net.entrance import Connections, Entrance, peer_at
from broker.net.tcp import TcpConnection
from broker.settings.listeners import Listener
from tests.support.clients import services
from tests.support.kernel import Kernel
from tests.support.raw_client import connect_packet
from tests.support.world import World


@pytest.mark.parametrize(
    ("address", "peer"),
    [
        (("192.0.2.1", 5), Peer("192.0.2.1:5", "192.0.2.1")),
        (("2001:db8::1", 5, 0, 0), Peer("[2001:db8::1]:5", "2001:db8::1")),
        ("/run/s.sock", Peer("/run/s.sock")),
        ("", Peer("")),
    ],
)
def test_a_peer_is_told_by_its_address(address: object, peer: Peer) -> None:
    assert peer_at(address) == peer


async def test_a_full_listener_has_its_own_oldest_stranger_go(world: World) -> None:
    connections = Connections(world.clock, unfinished_bytes_max=1)
    everything = services(world, Config(connections_max=100))
    small = Entrance(everything, Listener(port=0, connections_max=2))
    large = Entrance(everything, Listener(port=0))

    def enter(entrance: Entrance) -> tuple[TcpConnection, Kernel]:
        connection = TcpConnection(entrance, connections)
        kernel = Kernel(sockets.enter_context(socket.socket()))
        connection.connection_made(kernel)
        return connection, kernel

    with ExitStack() as sockets:
        _, elsewhere = enter(large)
        identified, first = enter(small)
        identified.data_received(encode(connect_packet("a"), MQTT_5))
        await world.settled()
        stranger, second = enter(small)
        newcomer, third = enter(small)
        assert [each.aborted for each in (elsewhere, first, second, third)] == [0, 0, 1, 0]
        stranger.connection_lost(None)
        assert (small.count, large.count, len(connections)) == (2, 1, 3)
        newcomer.data_received(encode(connect_packet("b"), MQTT_5))
        await world.settled()
        _, fourth = enter(small)
        assert fourth.aborted
        assert not elsewhere.aborted
        identified.connection_lost(None)
        assert small.count == 1
        assert not enter(small)[1].aborted
