"""What TcpConnection asks of the kernel, and how long it waits for a peer."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, contextmanager
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
from websockets.frames import Frame, Opcode

from broker.clients.client import Client
from broker.clients.line_client import LineClient
from broker.config import Config
from broker.message import Monotonic
from broker.mqtt.encode import encode
from broker.mqtt.packets import (
    MQTT_3_1_1,
    MQTT_5,
    Ack,
    Disconnect,
    PacketType,
    Publish,
    Subscribe,
    SubscriptionRequest,
)
from broker.net.entrance import Connections, Entrance
from broker.net.first_bytes import HTTP_GET
from broker.net.tcp import FIRST_BYTE_TIMEOUT_S, TcpConnection
from broker.net.unix import reachable
from broker.net.websocket import WebSocket
from broker.settings.listeners import Listener
from tests.support.clients import NOTHING_TO_TELL, services
from tests.support.clock import FakeClock
from tests.support.dialled import dialled
from tests.support.kernel import Kernel
from tests.support.patience import PATIENCE_S
from tests.support.raw_client import connect_packet
from tests.support.websocket_client import handshake
from tests.support.world import Disk, World, running


@pytest.mark.skipif(not hasattr(socket, "TCP_QUICKACK"), reason="only Linux has the option")
async def test_what_gets_no_answer_is_acknowledged_at_once_by_the_kernel(tmp_path: Path) -> None:
    """Or a client with Nagle's algorithm on waits 40 ms after each PUBACK that it sends."""
    async with dialled(Config(port=0, data_dir=tmp_path)) as (server, reader, writer):
        for packet in (
            connect_packet("client"),
            Subscribe(1, [SubscriptionRequest("topic", 1)]),
            Publish("topic", bytes(100), 1, False, False, 1),
        ):
            writer.write(encode(packet, MQTT_5))
        while not (await reader.read(1000)).endswith(bytes(100)):
            pass
        (connection,) = server._connections
        assert connection._transport is not None
        tcp = connection._transport.get_extra_info("socket")
        # The kernel does so by itself only for who was answered within its 40 ms.
        tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 0)
        seen = server.counters.bytes_in
        writer.write(encode(Ack(PacketType.PUBACK, [1]), MQTT_5))
        async with asyncio.timeout(PATIENCE_S):
            while server.counters.bytes_in == seen:  # noqa: ASYNC110  (it has no event)
                await asyncio.sleep(0)
        assert tcp.getsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK) == 1


async def test_who_says_nothing_is_cut_off(tmp_path: Path) -> None:
    clock = FakeClock()
    config = Config(port=0, data_dir=tmp_path)
    async with dialled(config, clock=clock) as (server, reader, _):
        async with asyncio.timeout(PATIENCE_S):
            while not server._connections:  # noqa: ASYNC110  (it has no event)
                await asyncio.sleep(0)
            clock.advance(FIRST_BYTE_TIMEOUT_S - 1)
            await asyncio.sleep(0)
            assert server._connections
            clock.advance(1)
            assert await reader.read() == b""


# Silence


@pytest.mark.parametrize("first_bytes", [b"\x10", b"G", b"GET / HTTP/1.1\r\n", b""])
async def test_who_connects_is_read_before_the_connect_timeout_cuts_it_off(
    ends: tuple[socket.socket, socket.socket],
    world: World,
    kernel: Kernel,
    connection: TcpConnection,
    first_bytes: bytes,
) -> None:
    """As after a suspension of the process, when the timers are due before anything is read."""
    ours, theirs = ends
    if first_bytes:
        connection.data_received(first_bytes)
    theirs.send(b"more")
    world.clock.advance(1000)
    assert not kernel.aborted
    ours.recv(100)
    world.clock.advance(1)
    assert kernel.aborted


async def test_what_arrived_is_read_before_a_client_counts_as_silent(
    ends: tuple[socket.socket, socket.socket],
    world: World,
    kernel: Kernel,
    connection: TcpConnection,
) -> None:
    """[MQTT-3.1.2-22]"""
    ours, theirs = ends
    connection.data_received(MQTT)
    await world.settled()
    theirs.send(PING)
    world.clock.advance(1000)
    assert not kernel.aborted
    connection.data_received(ours.recv(100))
    world.clock.advance(89)
    assert not kernel.aborted
    world.clock.advance(1)
    assert kernel.aborted


async def test_a_peer_that_does_not_read_is_silent_whatever_it_sends(
    ends: tuple[socket.socket, socket.socket],
    world: World,
    kernel: Kernel,
    connection: TcpConnection,
) -> None:
    """It is not read from, so more of it always waits."""
    _, theirs = ends
    connection.data_received(MQTT)
    await world.settled()
    connection.pause_reading("clogged")
    theirs.send(PING)
    world.clock.advance(90)
    assert kernel.aborted


# What we do wrong while a connection is served

LISTENER = Listener(port=0)
PING = b"\xc0\0"
MQTT = encode(connect_packet("a"), MQTT_5)
MQTT_B = encode(connect_packet("b"), MQTT_5)
MQTT_D = encode(connect_packet("d"), MQTT_5)
MQTT_3 = encode(connect_packet("c", version=MQTT_3_1_1), MQTT_3_1_1)
WEB = HTTP_GET + b"/mqtt HTTP/1.1\r\n"
LINES = b"PUBLISH t x p\n"


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with running(Disk(), NOTHING_TO_TELL) as world:
        yield world


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Of a connection: the broker's, which nobody reads, and the peer's."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


@pytest.fixture
def kernel(ends: tuple[socket.socket, socket.socket]) -> Kernel:
    return Kernel(ends[0])


@pytest.fixture
def connection(world: World, kernel: Kernel) -> TcpConnection:
    return connected(world, kernel)


@contextmanager
def several_kernels(count: int) -> Iterator[list[Kernel]]:
    with ExitStack() as sockets:
        yield [Kernel(sockets.enter_context(socket.socket())) for _ in range(count)]


def connected(
    world: World, kernel: Kernel, connections: Connections | None = None
) -> TcpConnection:
    if connections is None:
        connections = Connections(world.clock, unfinished_bytes_max=1 << 20)
    entrance = Entrance(services(world, NOTHING_TO_TELL), LISTENER)
    connection = TcpConnection(entrance, connections)
    connection.connection_made(kernel)
    return connection


def stop(connection: TcpConnection) -> None:
    connection.shut_down()


def later(connection: TcpConnection) -> None:
    clock = connection._clock
    assert isinstance(clock, FakeClock)
    clock.advance(1000)


@pytest.mark.parametrize(
    ("kind", "first_bytes"), [(Client, MQTT), (WebSocket, WEB), (LineClient, LINES)]
)
@pytest.mark.parametrize(
    ("method", "call"),
    [
        ("receive", lambda connection: connection.data_received(b"x")),
        ("deadline", later),
        ("expire", later),
        ("writable", TcpConnection.pause_writing),
        ("writable", TcpConnection.resume_writing),
        ("lost", lambda connection: connection.connection_lost(None)),
        ("shut_down", stop),
    ],
)
async def test_a_mistake_while_a_client_is_served_cuts_that_client_off(
    kind: type[Client | WebSocket | LineClient],
    first_bytes: bytes,
    method: str,
    call: Callable[[TcpConnection], None],
    connection: TcpConnection,
    kernel: Kernel,
    world: World,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    connection.data_received(first_bytes)
    await world.settled()

    def mistake(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(kind, method, mistake)
    call(connection)
    assert kernel.aborted
    ((level, text, why),) = [(r.levelname, r.getMessage(), r.exc_info) for r in caplog.records]
    assert level == "CRITICAL"
    assert "cut off" in text
    assert why is not None


@pytest.mark.parametrize(
    ("kind", "first_bytes"), [(Client, MQTT), (WebSocket, WEB), (LineClient, LINES)]
)
async def test_a_mistake_before_there_is_a_client_cuts_the_connection_off(
    kind: type[Client | WebSocket | LineClient],
    first_bytes: bytes,
    connection: TcpConnection,
    kernel: Kernel,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def mistake(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(kind, "__init__", mistake)
    connection.data_received(first_bytes)
    assert kernel.aborted
    assert caplog.messages == ["connection from here is cut off"]


async def test_a_mistake_at_the_end_of_a_line_clients_input_cuts_it_off(
    connection: TcpConnection, kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def mistake(*_: object) -> bool:
        raise ZeroDivisionError

    connection.data_received(LINES)
    monkeypatch.setattr(LineClient, "end_of_input", mistake)
    assert not connection.eof_received()
    assert kernel.aborted


@pytest.mark.parametrize(
    ("sent", "why"),
    [
        (b"\x16\x03\x01", "it speaks TLS, and its listener does not"),
        (
            b"POST / HTTP/1.1\r\n\r\nPUBLISH a b c\n",
            "it speaks HTTP without GET, and its listener does not",
        ),
        (b"\x00\xff", "its first byte, 0x00, begins neither MQTT nor HTTP nor text"),
        (b"\x82\x00", "its first byte, 0x82, begins neither MQTT nor HTTP nor text"),
    ],
)
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_who_sends_junk_is_told_to_the_operator(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, sent: bytes, why: str, host: str
) -> None:
    caplog.set_level("INFO")
    async with dialled(Config(host=host, port=0, data_dir=tmp_path)) as (_, reader, writer):
        shown, port = (f"[{host}]" if ":" in host else host), writer.get_extra_info("sockname")[1]
        writer.write(sent)
        assert await reader.read() == b""
    assert f"connection from {shown}:{port} closed: {why}" in caplog.messages


async def test_what_line_clients_do_is_told_to_the_operator(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    config = Config(port=0, data_dir=tmp_path, unix_socket=tmp_path / "s")
    async with dialled(config) as (_, reader, writer):
        writer.write(b"HELLO secret\n")
        assert (await reader.readline()).startswith(b"ERROR unknown command")
    peer = f"line client at {reachable(tmp_path / 's')}"
    assert [text for text in caplog.messages if text.startswith("line client")] == [
        f"{peer}: connected",
        f"{peer}: refused: unknown command: use SUBSCRIBE, UNSUBSCRIBE, PUBLISH, CONFIRM or LOGIN",
        f"{peer}: disconnected",
    ]


async def test_too_many_connections_are_told_to_the_operator(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = Config(port=0, data_dir=tmp_path, connections_max=1)
    async with dialled(config) as (server, first, writer):
        port = writer.get_extra_info("sockname")[1]
        _, second = await asyncio.open_connection(*server.address)
        assert await first.read() == b""  # The stranger that came first makes room.
        second.close()
    assert caplog.messages == [
        f"connection from 127.0.0.1:{port} cut off: there are connections_max already"
    ]


@pytest.mark.parametrize("half_closed", [False, True])
@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize("web", [False, True])
async def test_a_peer_that_is_gone_while_it_waits_for_the_disk_is_no_mistake_of_ours(
    world: World,
    connection: TcpConnection,
    kernel: Kernel,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    half_closed: bool,
    left: bool,
    web: bool,
) -> None:
    def gone(_: bytes) -> None:
        raise RuntimeError("the handler is closed")

    world.disk.may_commit.clear()
    packets = comes(1) + (encode(Disconnect(), MQTT_5) if left else b"")
    connection.data_received(handshake(1) + frame(packets) if web else packets)
    if half_closed:
        connection.eof_received()
    connection.connection_lost(None)
    kernel.abort()
    monkeypatch.setattr(kernel, "write", gone)
    world.disk.may_commit.set()
    await world.settled()
    assert caplog.messages == []
    assert world.sessions.connected_count == 0


async def test_a_peer_that_is_gone_when_our_output_ends_is_no_mistake_of_ours(
    connection: TcpConnection, kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone() -> None:
        raise OSError(errno.ENOTCONN, "not connected")

    monkeypatch.setattr(kernel, "write_eof", gone)
    connection.end_output()
    assert kernel.aborted


# What is not whole

LARGE = 100_000
PUBLISH = b"\x30\xff\xff\x7f\0\1t"
"""Begins one of 2 MiB."""
LINE = b"PUBLISH t "


def frame(data: bytes) -> bytes:
    return Frame(Opcode.BINARY, data).serialize(mask=True)


@pytest.mark.parametrize(
    ("first", "then", "said"),
    [
        pytest.param(MQTT, PUBLISH + bytes(LARGE), b"\xe0*\x97", id="MQTT 5"),
        pytest.param(MQTT_3, PUBLISH + bytes(LARGE), b"", id="MQTT 3.1.1"),
        pytest.param(b"\x10\xff\xff\x7f\0\4MQTT\5", bytes(LARGE), b"", id="before CONNECT"),
        pytest.param(
            handshake(1) + frame(MQTT),
            frame(PUBLISH + bytes(LARGE)),
            b"\x82*\xe0*\x97",
            id="WebSocket",
        ),
        pytest.param(LINES, LINE + b"x" * LARGE, b"ERROR *", id="line"),
        pytest.param(WEB, (b"a: " + b"x" * 5000 + b"\r\n") * 3, b"", id="HTTP request"),
    ],
)
async def test_who_makes_no_progress_makes_room_for_what_others_send(
    world: World,
    first: bytes,
    then: bytes,
    said: bytes,
    caplog: pytest.LogCaptureFixture,
) -> None:
    connections = Connections(world.clock, unfinished_bytes_max=2 * LARGE + 5000)
    with several_kernels(3) as kernels:
        late, honest, newcomer = [connected(world, kernel, connections) for kernel in kernels]
        late.data_received(first)
        for connection in (honest, newcomer):
            connection.data_received(MQTT_B if connection is honest else MQTT_D)
        await world.settled()
        kernels[0].written = b""
        late.data_received(then)
        honest.data_received(PUBLISH + bytes(LARGE - 10_000))
        for _ in range(5):
            honest.data_received(bytes(1000))
        assert [kernel.aborted for kernel in kernels] == [False] * 3
        newcomer.data_received(PUBLISH + bytes(LARGE))
        assert [kernel.aborted for kernel in kernels] == [True, False, False]
        await world.settled()
        if said:
            assert fnmatchcase(kernels[0].written.decode("latin-1"), said.decode("latin-1") + "*")
        else:
            assert kernels[0].written == b""
        assert world.counters.evicted == 1
        assert any(
            "connection from here closed: packets that are not whole" in message
            for message in caplog.messages
        )
        newcomer.connection_lost(None)
        honest.connection_lost(None)
        late.connection_lost(None)
        assert connections.unfinished.size == 0


async def test_what_became_whole_is_not_counted_any_more(world: World, kernel: Kernel) -> None:
    connections = Connections(world.clock, unfinished_bytes_max=2 * LARGE + 5000)
    connection = connected(world, kernel, connections)
    connection.data_received(MQTT)
    await world.settled()
    packet = encode(Publish("t", bytes(LARGE), 0, False, False, 0), MQTT_5)
    for _ in range(3):
        connection.data_received(packet[:-1])
        assert connections.unfinished.size == len(packet) - 1
        connection.data_received(packet[-1:])
        assert connections.unfinished.size == 0


async def test_who_waits_for_the_disk_is_not_late(world: World) -> None:
    connections = Connections(world.clock, unfinished_bytes_max=2 * LARGE + 5000)
    with several_kernels(3) as kernels:
        held, late, newcomer = [connected(world, kernel, connections) for kernel in kernels]
        for connection, first in ((held, MQTT), (late, MQTT_3), (newcomer, MQTT_B)):
            connection.data_received(first)
        await world.settled()
        held.data_received(PUBLISH + bytes(LARGE))
        held.pause_reading("log")
        late.data_received(PUBLISH + bytes(LARGE))
        newcomer.data_received(PUBLISH + bytes(LARGE))
        assert [kernel.aborted for kernel in kernels] == [False, True, False]


FLOOD = encode(Publish("t", b"", 0, False, False, 0), MQTT_5) * 20_000
SHARED = encode(Subscribe(1, [SubscriptionRequest("$share/g/t", 1)]), MQTT_5)


def comes(number: int) -> bytes:
    return encode(connect_packet(f"c{number}", durable=True), MQTT_5)


@pytest.mark.parametrize(
    ("first", "then"),
    [
        pytest.param(None, lambda n: comes(n) + FLOOD, id="CONNECT"),
        pytest.param(comes, lambda _: SHARED + FLOOD, id="SUBSCRIBE"),
        pytest.param(lambda _: handshake(1), lambda n: frame(comes(n) + FLOOD), id="WebSocket"),
        pytest.param(None, lambda n: b"SUBSCRIBE t c%d\n" % n + LINES * 10_000, id="line"),
    ],
)
async def test_what_waits_for_a_stalled_disk_is_bounded(
    world: World, first: Callable[[int], bytes] | None, then: Callable[[int], bytes]
) -> None:
    connections = Connections(world.clock, unfinished_bytes_max=1_000_000)
    with several_kernels(8) as kernels:
        served = [connected(world, kernel, connections) for kernel in kernels]
        for n, connection in enumerate(served):
            if first is not None:
                connection.data_received(first(n))
        await world.settled()
        world.disk.may_commit.clear()
        for n, connection in enumerate(served):
            connection.data_received(then(n))
            for _ in range(20):
                await asyncio.sleep(0)
            assert connections.unfinished.size < 1_000_000
        assert 0 < world.counters.evicted < 8
        kept = [c.client.kept_bytes + c.arrived.size for c in served if c.client is not None]
        assert sum(kept) < connections.unfinished.size + 8 * 4096
        assert connections.unfinished.size > 500_000
        world.disk.may_commit.set()
        await world.settled()
        assert connections.unfinished.size == 0


async def test_what_waits_for_a_peer_that_does_not_read_is_counted(
    world: World, connection: TcpConnection
) -> None:
    connection.data_received(MQTT)
    await world.settled()
    connection.pause_reading("clogged")
    connection.data_received(FLOOD)
    assert connection._connections.unfinished.size == len(FLOOD)
    connection.resume_reading("clogged")
    assert connection._connections.unfinished.size == 0


# A flood


async def test_a_flood_is_worked_on_in_parts_and_a_ping_does_not_wait(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    flood = encode(Publish("t", b"", 0, False, False, 0), MQTT_5) * 40_000
    receive = Client.receive

    def slowly(client: Client, data: bytes, now: Monotonic) -> int:
        world.clock.advance(len(data) * 1e-6)
        return receive(client, data, now)

    monkeypatch.setattr(Client, "receive", slowly)
    connections = Connections(world.clock, unfinished_bytes_max=1 << 20)
    with several_kernels(9) as kernels:
        served = [connected(world, kernel, connections) for kernel in kernels]
        for n, connection in enumerate(served):
            connection.data_received(encode(connect_packet(f"c{n}"), MQTT_5))
        await world.settled()
        *flooding, pinging = served
        kernels[-1].written = b""
        began = world.clock.monotonic()
        for connection in flooding:
            connection.data_received(flood)
        pinging.data_received(PING)
        assert kernels[-1].written == b"\xd0\0"
        assert world.clock.monotonic() - began < 0.05
        while any(connection.arrived.size for connection in flooding):
            began = world.clock.monotonic()
            await asyncio.sleep(0)
            assert world.clock.monotonic() - began < 0.05
        await world.settled()
        assert world.counters.packets.received == 9 + 8 * 40_000 + 1


async def test_what_had_arrived_of_a_publisher_that_is_held_waits_too(
    world: World, connection: TcpConnection
) -> None:
    connection.data_received(MQTT)
    await world.settled()
    flood = encode(Publish("t", bytes(100), 0, False, False, 0), MQTT_5) * 1000
    connection.pause_reading("log")
    connection.data_received(flood)
    await world.settled()
    assert world.counters.packets.received == 1
    assert not connection._is_silent()
    connection.resume_reading("log")
    await world.settled()
    assert world.counters.packets.received == 1001


async def test_what_had_arrived_of_a_connection_that_is_cut_off_is_dropped(
    world: World, connection: TcpConnection
) -> None:
    connection.data_received(MQTT)
    await world.settled()
    connection.pause_reading("log")
    connection.data_received(PING * 1000)
    connection.abort()
    connection.connection_lost(None)
    connection.resume_reading("log")
    await world.settled()
    assert world.counters.packets.received == 1
