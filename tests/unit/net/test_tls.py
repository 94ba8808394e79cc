"""TLS below a connection: handshakes, what is refused and what the operator is told of it."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.clients.faces import NOT_PAUSED
from broker.clock import SystemClock
from broker.config import Config
from broker.mqtt.encode import encode
from broker.mqtt.packets import MQTT_3_1_1, MQTT_5, Connack, Publish
from broker.mqtt.properties import Property
from broker.mqtt.reasons import ReasonCode
from broker.net.entrance import Connections, Entrance
from broker.net.tcp import FIRST_BYTE_TIMEOUT_S, TcpConnection
from broker.net.tls import RECORD_BYTES_MAX, TlsConnection, TlsFailed, TlsStream
from broker.security.tls import context_of
from broker.server.server import Server
from broker.settings.listeners import Listener
from tests.support.certificates import NOW, Files, Network
from tests.support.clients import NOTHING_TO_TELL, services
from tests.support.clock import FakeClock
from tests.support.dialled import dialled
from tests.support.kernel import Kernel
from tests.support.raw_client import connect_packet
from tests.support.tls_client import TlsClient
from tests.support.turns import LongestTurn, again_if_long, short
from tests.support.world import Disk, World, running

CONNECT = encode(connect_packet("a"), MQTT_5)
CONNACK = encode(
    Connack(
        False,
        ReasonCode.IMPLEMENTATION_SPECIFIC_ERROR,
        {Property.REASON_STRING: "this port speaks TLS only"},
    ),
    MQTT_5,
)
PING = b"\xc0\0"


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Network:
    return Network(tmp_path_factory.mktemp("network"))


def streams(
    network: Network, shown: Files | None = None, **of_listener: Any
) -> tuple[TlsClient, TlsStream]:
    context = context_of(network.listener(**of_listener))
    assert context is not None
    return TlsClient(network.client_context(shown)), TlsStream(context)


def established(network: Network, **of_listener: Any) -> tuple[TlsClient, TlsStream]:
    client, stream = streams(network, **of_listener)
    shake_hands(client, stream)
    return client, stream


def shake_hands(client: TlsClient, stream: TlsStream) -> None:
    done = client.shake_hands()
    while not (done and stream.established):
        assert stream.receive(client.sent()) == b""
        done = client.shake_hands(stream.data_to_send())


# Without a socket


def test_what_is_said_arrives_whole_in_both_directions(network: Network) -> None:
    client, stream = established(network)
    large = bytes(range(256)) * 400
    assert stream.receive(client.says(large)) == large
    stream.send(large)
    stream.send(b"x")
    assert client.hears(stream.data_to_send()) == large + b"x"


def test_what_comes_byte_by_byte_is_kept_and_counted_until_it_is_whole(network: Network) -> None:
    client, stream = streams(network)
    client.shake_hands()
    hello = client.sent()
    for position in range(len(hello) - 1):
        assert stream.receive(hello[position : position + 1]) == b""
        assert stream.kept_bytes == position + 1
    stream.receive(hello[-1:])
    client.shake_hands(stream.data_to_send())
    stream.receive(client.sent())
    assert stream.established
    assert stream.kept_bytes == 0
    record = client.says(b"message")
    assert stream.receive(record[:-1]) == b""
    assert stream.kept_bytes == RECORD_BYTES_MAX
    assert stream.receive(record[-1:]) == b"message"
    assert stream.kept_bytes == 0


def test_the_end_of_the_peers_output_is_no_end_of_ours(network: Network) -> None:
    client, stream = established(network)
    assert stream.receive(client.says(b"last words") + client.ends()) == b"last words"
    assert stream.ended
    assert stream.receive(b"and more") == b""
    stream.send(b"answer")
    assert client.hears(stream.data_to_send()) == b"answer"


def test_after_our_end_nothing_is_sent(network: Network) -> None:
    client, stream = established(network)
    stream.close()
    stream.close()
    assert client.hears(stream.data_to_send()) == b""
    stream.send(b"too late")
    assert stream.data_to_send() == b""
    assert stream.receive(client.ends()) == b""
    assert stream.ended


def test_before_a_handshake_there_is_nothing_to_end(network: Network) -> None:
    _, stream = streams(network)
    stream.close()
    assert stream.data_to_send() == b""


def test_a_renegotiation_is_refused(network: Network) -> None:
    """Each would cost as much as a handshake, without counting as one."""
    context = context_of(network.listener())
    assert context is not None
    assert context.options & ssl.OP_NO_RENEGOTIATION


@pytest.mark.parametrize(
    ("protocols", "offered", "chosen"),
    [
        (("mqtt", "websocket", "lines"), ["http/1.1", "mqtt"], "mqtt"),
        (("websocket",), ["mqtt", "http/1.1"], "http/1.1"),
        (("mqtt",), ["h2"], None),
        (("lines",), ["mqtt"], None),
    ],
)
def test_what_is_spoken_may_be_named_before_the_first_byte(
    network: Network, protocols: tuple[str, ...], offered: list[str], chosen: str | None
) -> None:
    context = context_of(network.listener(protocols=protocols))
    assert context is not None
    ours = network.client_context()
    ours.set_alpn_protocols(offered)
    client, stream = TlsClient(ours), TlsStream(context)
    shake_hands(client, stream)
    assert (stream.alpn, client.tls.selected_alpn_protocol()) == (chosen, chosen)


@pytest.mark.parametrize("asked", ["optional", "required"])
def test_a_client_is_the_user_whom_its_certificate_names(network: Network, asked: str) -> None:
    shown = network.client("kitchen")
    client, stream = streams(
        network, shown, tls_client_ca=network.ca, tls_client_certificates=asked
    )
    shake_hands(client, stream)
    assert stream.certificate_user("cn") == "kitchen"


def test_who_shows_no_certificate_is_nobody(network: Network) -> None:
    asked: dict[str, Any] = {"tls_client_ca": network.ca, "tls_client_certificates": "optional"}
    client, stream = streams(network, **asked)
    shake_hands(client, stream)
    assert stream.certificate_user("cn") is None


@pytest.mark.parametrize("why", ["none", "revoked", "expired", "of another CA", "a server's"])
def test_a_certificate_that_does_not_count_is_refused(
    network: Network, tmp_path: Path, why: str
) -> None:
    shown: Files | None = network.client("kitchen")
    assert shown is not None
    asked: dict[str, Any] = {"tls_client_ca": network.ca, "tls_client_certificates": "required"}
    asked["tls_crl"] = network.revocations(*([shown] if why == "revoked" else []))
    said = {
        "none": "it shows no client certificate",
        "revoked": "its certificate: certificate revoked",
        "expired": "its certificate: certificate has expired",
        "of another CA": "its certificate: unable to get local issuer certificate",
        "a server's": "its certificate: unsuitable certificate purpose",
    }
    if why == "none":
        shown = None
    elif why == "expired":
        shown = network.client("late", made=NOW - timedelta(days=60))
    elif why == "of another CA":
        shown = Network(tmp_path).client("kitchen")
    elif why == "a server's":
        shown = network.server
    client, stream = streams(network, shown, **asked)
    with pytest.raises(TlsFailed) as failed:
        shake_hands(client, stream)
    assert str(failed.value) == said[why]
    assert stream.data_to_send()  # An alert: the client is told, too.


@given(data=st.data(), established=st.booleans())
def test_what_is_damaged_on_its_way_is_refused_and_nothing_else(
    network: Network, data: st.DataObject, established: bool
) -> None:
    client, stream = streams(network)
    if established:
        shake_hands(client, stream)
        sent = client.says(b"a message" * 100)
    else:
        client.shake_hands()
        sent = client.sent()
    damaged = bytearray(sent)
    for _ in range(data.draw(st.integers(1, 5))):
        position = data.draw(st.integers(0, len(damaged) - 1))
        damaged[position] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(damaged)))
    try:
        heard = stream.receive(bytes(damaged[:cut])) + stream.receive(bytes(damaged[cut:]))
    except TlsFailed:
        return
    assert heard in (b"", b"a message" * 100)


# With one


@asynccontextmanager
async def served(
    network: Network, directory: Path, clock: FakeClock | None = None, **more: Any
) -> AsyncIterator[tuple[Server, asyncio.StreamReader, asyncio.StreamWriter]]:
    """A broker with a listener that speaks TLS, and a connection to it that does not yet."""
    config = Config(data_dir=directory, listeners=(network.listener(**more),))
    async with asyncio.timeout(20), dialled(config, clock=clock) as all_three:
        yield all_three


async def test_mqtt_lines_and_websockets_are_spoken_on_one_port(
    network: Network, tmp_path: Path
) -> None:
    async with served(network, tmp_path) as (server, _, plain):
        plain.close()
        for first, answer in (
            (CONNECT, b"\x20"),
            (b"CONFIRM\n", b"OK\n"),
            (b"GET /mqtt HTTP/1.1\r\n\r\n", b"HTTP/1.1 426 "),
        ):
            reader, writer = await asyncio.open_connection(
                *server.address, ssl=network.client_context(), server_hostname="localhost"
            )
            writer.write(first)
            assert (await reader.readexactly(len(answer))) == answer
            writer.close()


@pytest.mark.parametrize("alpn", ["mqtt", "http/1.1"])
async def test_who_has_named_a_protocol_speaks_no_other(
    network: Network, tmp_path: Path, alpn: str
) -> None:
    """Or a page could have a browser, which names http/1.1, say lines to us."""
    async with served(network, tmp_path) as (server, _, plain):
        plain.close()
        context = network.client_context()
        context.set_alpn_protocols([alpn])
        reader, writer = await asyncio.open_connection(
            *server.address, ssl=context, server_hostname="localhost"
        )
        writer.write(b"PUBLISH a b c\n")
        assert await reader.read() == b""
        writer.close()
        assert server.counters.messages_in == 0


@pytest.mark.parametrize(
    ("sent", "why", "answer"),
    [
        (CONNECT, "it speaks MQTT without TLS", CONNACK),
        (encode(connect_packet("a", version=MQTT_3_1_1), MQTT_3_1_1), "it speaks MQTT w", b""),
        (b"GET / HTTP/1.1\r\n", "it speaks HTTP without TLS", b"HTTP/1.1 400 Bad Request\r\n"),
        (b"PUBLISH t x p\n", "it speaks text w", b"ERROR this port speaks TLS only\n"),
        (b"\x00\x01", "it speaks something that begins with 0x00 without TLS", b""),
        (b"\x16\x03\x01\0\x05\x01\0\0\x01\0", "length too short", b"\x15\x03"),
    ],
)
async def test_what_is_no_tls_is_told_to_the_operator_and_in_plain_to_the_peer(
    network: Network,
    tmp_path: Path,
    sent: bytes,
    why: str,
    answer: bytes,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    async with served(network, tmp_path) as (server, reader, writer):
        writer.write(sent)
        answered = await reader.read()
        assert answered.startswith(answer)
        assert bool(answered) == bool(answer)
        assert server.counters.protocol_errors == 1
    (said,) = [text for text in caplog.messages if text.startswith("connection from")]
    assert f"closed: {why}" in said


async def test_a_handshake_has_to_end_in_time_and_the_first_byte_comes_after(
    network: Network, tmp_path: Path
) -> None:
    clock = FakeClock()
    async with served(network, tmp_path, clock) as (server, reader, writer):
        client = TlsClient(network.client_context())
        client.shake_hands()
        hello = client.sent()
        writer.write(hello[:100])
        while not server.counters.bytes_in:  # noqa: ASYNC110  (it has no event)
            await asyncio.sleep(0)
        clock.advance(9.9)
        writer.write(hello[100:])
        done = False
        while not done:
            done = client.shake_hands(await reader.read(10_000))
        writer.write(client.sent())
        (connection,) = server._connections
        assert isinstance(connection, TlsConnection)
        while not connection._tls.established:  # noqa: ASYNC110  (it has no event)
            await asyncio.sleep(0)
        clock.advance(FIRST_BYTE_TIMEOUT_S - 1)
        await asyncio.sleep(0)
        assert server._connections
        clock.advance(1)
        ended = await reader.read()
        assert client.hears(ended) == b""


async def test_who_does_not_end_its_handshake_is_cut_off(network: Network, tmp_path: Path) -> None:
    clock = FakeClock()
    async with served(network, tmp_path, clock) as (server, reader, writer):
        client = TlsClient(network.client_context())
        client.shake_hands()
        hello = client.sent()
        for second in range(10):
            assert not reader.at_eof()
            writer.write(hello[second : second + 1])
            while server.counters.bytes_in < second + 1:  # noqa: ASYNC110
                await asyncio.sleep(0)
            clock.advance(1)
        assert await reader.read() == b""


async def test_a_line_client_that_has_ended_its_side_is_still_answered(
    network: Network, tmp_path: Path
) -> None:
    async with served(network, tmp_path) as (_, reader, writer):
        client = TlsClient(network.client_context())
        done = client.shake_hands()
        while not done:
            writer.write(client.sent())
            done = client.shake_hands(await reader.read(10_000))
        writer.write(client.sent() + client.says(b"CONFIRM\nPUBLISH t x p\n") + client.ends())
        heard = b""
        while part := await reader.read(1000):
            heard += client.hears(part)
        assert heard == b"OK\nOK\n"


async def test_the_client_hears_who_its_peer_is(network: Network, tmp_path: Path) -> None:
    asked: dict[str, Any] = {"tls_client_ca": network.ca, "tls_client_certificates": "required"}
    async with served(network, tmp_path, **asked) as (server, _, plain):
        plain.close()
        context = network.client_context(network.client("kitchen"))
        reader, writer = await asyncio.open_connection(
            *server.address, ssl=context, server_hostname="localhost"
        )
        writer.write(CONNECT)
        assert (await reader.readexactly(1)) == b"\x20"
        users = {connection.peer.certificate_user for connection in server._connections}
        assert "kitchen" in users
        writer.close()


async def test_large_messages_in_many_records_arrive(network: Network, tmp_path: Path) -> None:
    async with served(network, tmp_path) as (server, _, plain):
        plain.close()
        reader, writer = await asyncio.open_connection(
            *server.address, ssl=network.client_context(), server_hostname="localhost"
        )
        packet = encode(Publish("t", bytes(1_500_000), 1, False, False, 1), MQTT_5)
        writer.write(CONNECT + packet)
        assert (await reader.readexactly(1)) == b"\x20"
        while not server.counters.messages_in:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        assert server.counters.payload_bytes_in == 1_500_000
        writer.close()


async def test_what_is_kept_of_a_handshake_counts_as_unfinished(
    network: Network, world: World
) -> None:
    """Or 20,000 connections could keep 64 KiB each."""
    connections = Connections(world.clock, unfinished_bytes_max=10_000)
    with ExitStack() as sockets:
        late, newcomer = (
            entered(world, network, connections, Kernel(sockets.enter_context(socket.socket())))
            for _ in range(2)
        )
        # A ClientHello of 64 KiB that is never whole, in records of 4 KiB.
        record = b"\x16\x03\x01\x10\x00"
        begun = record + b"\x01\x00\xff\xff\x03\x03" + bytes(4090) + record + bytes(4000)
        late.data_received(begun)
        assert connections.unfinished.size == len(begun)
        newcomer.data_received(begun)
        assert kernel_of(late).aborted
        assert not kernel_of(newcomer).aborted
        assert world.counters.evicted == 1


def entered(
    world: World, network: Network, connections: Connections, kernel: Kernel
) -> TlsConnection:
    listener = network.listener()
    context = context_of(listener)
    assert context is not None
    entrance = Entrance(services(world, NOTHING_TO_TELL), listener, context)
    connection = TlsConnection(entrance, connections, context)
    connection.connection_made(kernel)
    return connection


class Talkative(TlsStream):
    """TLS that answers whatever comes, as it does to who asks for new keys all the time."""

    def receive(self, data: bytes) -> bytes:
        return b""

    @property
    def has_to_send(self) -> bool:
        return True

    def data_to_send(self) -> bytes:
        return b"new keys"


async def test_who_has_tls_answer_and_does_not_read_is_not_read_from(
    world: World, network: Network
) -> None:
    with socket.socket() as its_socket:
        kernel = Kernel(its_socket)
        connections = Connections(world.clock, unfinished_bytes_max=1 << 30)
        connection = entered(world, network, connections, kernel)
        context = context_of(network.listener())
        assert context is not None
        connection._tls = Talkative(context)
        connection._tls.established = True
        connection.data_received(b"\x17")
        assert kernel.written == b"new keys"
        assert connection.reading_paused_by == NOT_PAUSED
        connection.pause_writing()
        kernel.get_write_buffer_size = lambda: 1 << 30  # type: ignore[method-assign]
        connection.data_received(b"\x17")
        assert connection.reading_paused_by == {"clogged"}
        connection.connection_lost(None)


def kernel_of(connection: TlsConnection) -> Kernel:
    assert isinstance(connection._transport, Kernel)
    return connection._transport


@again_if_long
@pytest.mark.long
async def test_a_thousand_handshakes_at_once_hold_up_nobody(
    network: Network, tmp_path: Path
) -> None:
    """All ClientHellos come in one turn, and so does each answer. A bystander's ping does not wait
    for them."""
    async with running(Disk(), NOTHING_TO_TELL) as world:
        clock = SystemClock()
        connections = Connections(clock, unfinished_bytes_max=1 << 30)
        entrance_of = services(world, NOTHING_TO_TELL)
        everybody = replace(entrance_of, clock=clock)
        context = context_of(network.listener())
        assert context is not None
        entrance = Entrance(everybody, network.listener(), context)
        trusted = network.client_context()
        with ExitStack() as sockets:
            bystander_kernel = Kernel(sockets.enter_context(socket.socket()))
            bystander = TcpConnection(Entrance(everybody, Listener(port=0)), connections)
            bystander.connection_made(bystander_kernel)
            bystander.data_received(CONNECT)
            await world.settled()
            shared = sockets.enter_context(socket.socket())
            dialled = []
            for _ in range(1000):
                connection = TlsConnection(entrance, connections, context)
                connection.connection_made(Kernel(shared))
                client = TlsClient(trusted)
                client.shake_hands()
                dialled.append((connection, client, client.sent()))
            async with LongestTurn() as longest:
                for connection, _, hello in dialled:
                    connection.data_received(hello)
                bystander_kernel.written = b""
                bystander.data_received(PING)
                assert bystander_kernel.written == b"\xd0\0"
                while connections.turns._waiting:  # noqa: ASYNC110  (it has no event)
                    await asyncio.sleep(0)
            for connection, client, _ in dialled:
                assert client.shake_hands(kernel_of(connection).written)
            async with LongestTurn() as answering:
                for connection, client, _ in dialled:
                    connection.data_received(client.sent())
                while connections.turns._waiting:  # noqa: ASYNC110  (it has no event)
                    await asyncio.sleep(0)
            assert all(each._tls.established for each, _, _ in dialled)
            for connection, _, _ in dialled:
                connection.connection_lost(None)
    short(50, longest.ms, answering.ms)
