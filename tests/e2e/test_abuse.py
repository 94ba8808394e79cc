"""Abuse of connections: each is bounded in memory and time, and a healthy client notices nothing.

The healthy ones are `Bystanders`, who exchange messages beside it, and where it matters a newcomer
who connects in the middle of it. What is wrong with packets is in `test_bad_input.py`.
"""

from __future__ import annotations

import contextlib
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest

from broker.mqtt.encode import encode
from broker.mqtt.packets import (
    MQTT_3_1_1,
    MQTT_5,
    Ack,
    Connack,
    PacketType,
    Pingreq,
    Pingresp,
    Publish,
    Subscribe,
    SubscriptionRequest,
)
from broker.mqtt.reasons import ReasonCode
from tests.support.broker_process import WAIT_TIMEOUT_S, BrokerProcess, wait_until
from tests.support.bystanders import Bystanders
from tests.support.raw_client import RawClient, connect_packet, publish_many
from tests.support.websocket_client import WebSocketClient, handshake, one_frame

MIB = 1024 * 1024
NOTICED_S = 5.0
"""An exchange that takes longer than this was noticed. (Much, as other tests run beside it.)"""
GROWTH_BYTES_MAX = 40 * MIB
WRITING_BYTES_MAX = 10 * MIB
"""Of a flood, what waits for the disk or is kept because it is new."""


@contextlib.contextmanager
def abused(directory: Path, **settings: object) -> Iterator[tuple[BrokerProcess, Bystanders]]:
    with BrokerProcess(directory, settings) as broker:
        bystanders = Bystanders(broker.port, "bystander")
        with contextlib.closing(bystanders):
            yield broker, bystanders
            not_noticed(bystanders)
        assert broker.stop() == 0
    assert broker.complaints() == []


def not_noticed(bystanders: Bystanders) -> None:
    start = time.monotonic()
    bystanders.exchange()
    assert time.monotonic() - start < NOTICED_S


@contextlib.contextmanager
def running(abuse: Callable[[], None]) -> Iterator[threading.Thread]:
    """In a thread; ended, when the block is, by what the block did to its sockets."""
    thread = threading.Thread(target=abuse)
    thread.start()
    yield thread
    thread.join(10)
    assert not thread.is_alive()


def is_open(connection: socket.socket) -> bool:
    """Whether the broker has not closed it."""
    connection.setblocking(False)
    try:
        return connection.recv(1) != b""
    except BlockingIOError:
        return True
    except ConnectionError:
        return False


# Too many


@pytest.mark.parametrize(
    "first",
    [
        pytest.param(b"", id="silence"),
        pytest.param(b"\x10\x20\0\4MQ", id="half a CONNECT"),
        pytest.param(b"GET / HTTP/1.1\r\n", id="half an HTTP request"),
        pytest.param(handshake(1), id="WebSocket without CONNECT"),
    ],
)
def test_strangers_do_not_keep_anybody_out(tmp_path: Path, first: bytes) -> None:
    """The oldest of those who do not say who they are makes room."""
    with abused(tmp_path, connections_max=20) as (broker, bystanders), ExitStack() as stack:
        strangers = []
        for number in range(200):
            stranger = socket.create_connection(("127.0.0.1", broker.port), 5)
            strangers.append(stack.enter_context(stranger))
            with contextlib.suppress(ConnectionError):
                stranger.sendall(first)
            if number % 20 == 0:
                with RawClient(broker.port) as newcomer:
                    assert newcomer.connect(connect_packet("newcomer")).reason_code == 0
                not_noticed(bystanders)
        wait_until(lambda: sum(map(is_open, strangers)) <= 18)
        assert is_open(strangers[-1])


def test_clients_over_the_maximum_are_cut_off_and_come_in_when_there_is_room(
    tmp_path: Path,
) -> None:
    with abused(tmp_path, connections_max=20) as (broker, bystanders):
        with ExitStack() as stack:
            clients = [stack.enter_context(RawClient(broker.port)) for _ in range(18)]
            for number, client in enumerate(clients):
                client.connect(connect_packet(f"client{number}"))
            for _ in range(50):
                with RawClient(broker.port) as late:
                    assert late.closed()
            for client in clients:
                client.send(Pingreq())
                client.expect(Pingresp)
            not_noticed(bystanders)

        def comes_in() -> bool:
            with RawClient(broker.port) as late:
                late.send(connect_packet("late"))
                return isinstance(late.receive(), Connack)

        wait_until(comes_in)


def test_a_flood_of_connects(tmp_path: Path) -> None:
    """Those who come as fast as they can, hold what they get and say nothing."""
    with abused(tmp_path, connections_max=100) as (broker, bystanders):
        before = broker.resident_bytes()
        over = threading.Event()

        def flood() -> None:
            held: list[socket.socket] = []
            while not over.is_set():
                held.append(socket.create_connection(("127.0.0.1", broker.port), 5))
                if len(held) > 200:
                    held.pop(0).close()
            for connection in held:
                connection.close()

        with running(flood):
            until = time.monotonic() + 1.0
            for number in count():
                not_noticed(bystanders)
                with RawClient(broker.port) as newcomer:
                    assert newcomer.connect(connect_packet(f"newcomer{number}")).reason_code == 0
                if time.monotonic() > until:
                    break
            over.set()
        assert broker.resident_bytes() - before < GROWTH_BYTES_MAX


# Too slow


def test_bytes_that_trickle_in_do_not_count_as_life(tmp_path: Path) -> None:
    """Neither before CONNECT nor after it, where only a whole packet keeps alive. (A part of a
    PUBLISH does for a while: `tests/unit/mqtt/test_keep_alive.py`.) At 10 ms a byte none of what
    they send is whole before they should be gone for long."""
    with abused(tmp_path, connect_timeout_s=1.0) as (broker, bystanders), ExitStack() as stack:
        packet = encode(connect_packet("c" * 2000), MQTT_5)
        start = time.monotonic()
        connected = stack.enter_context(RawClient(broker.port))
        connected.connect(replace(connect_packet("connected"), keep_alive_s=1))
        slow: list[tuple[RawClient, bytes]] = [
            (connected, encode(Subscribe(1, [SubscriptionRequest("t" * 2000, 0)]), MQTT_5)),
            (stack.enter_context(RawClient(broker.port)), packet),
            (
                stack.enter_context(RawClient(broker.port)),
                handshake(broker.port)[:-4] + b"c" * 2000,
            ),
        ]
        for at in count():
            for client, data in list(slow):
                try:
                    client.socket.sendall(data[at : at + 1])
                except ConnectionError:
                    slow.remove((client, data))
            if not slow:
                break
            not_noticed(bystanders)
            time.sleep(0.01)
            assert time.monotonic() - start < 15
        assert time.monotonic() - start >= 1.5


# Too much


@pytest.mark.parametrize("qos", [0, 1])
def test_subscribers_that_never_read_while_publishers_flood(tmp_path: Path, qos: int) -> None:
    """What they cost is their buffers, which is bounded, however much they do not read: 20 MiB
    each. Ten of them have an outbox of 4 MiB and a write buffer of 1 MiB."""
    payloads = [bytes(10_000)] * 1000

    def flood() -> None:
        for number in range(2):
            publish_many(broker.port, "flood", payloads, client_id=f"flood{number}")

    with abused(tmp_path) as (broker, bystanders), ExitStack() as stack:
        flood()  # What publishing alone costs: batches that are being written, SQLite's cache.
        before = broker.resident_bytes()
        for number in range(5):
            stuck: RawClient = stack.enter_context(RawClient(broker.port))
            stuck.connect(connect_packet(f"stuck{number}"))
            stuck.subscribe("flood", qos)
            stuck = stack.enter_context(
                WebSocketClient(broker.port, one_frame, max_queue=1, close_timeout=0)
            )
            stuck.connect(connect_packet(f"stuck-websocket{number}"))
            stuck.subscribe("flood", qos)
        with running(flood) as thread:
            while thread.is_alive():
                not_noticed(bystanders)
        assert broker.resident_bytes() - before < 10 * 5 * MIB + WRITING_BYTES_MAX


def test_packets_that_are_never_whole_do_not_keep_out_an_upload_that_is_slow(
    tmp_path: Path,
) -> None:
    """Connections that keep as much of a packet as they may cost 16 MiB here, however many."""
    publish = encode(Publish("upload", bytes(MIB), 1, False, False, 1), MQTT_5)
    with abused(tmp_path, unfinished_bytes_max=16 * MIB) as (broker, bystanders):
        before = broker.resident_bytes()
        with ExitStack() as stack:
            upload = stack.enter_context(RawClient(broker.port))
            upload.connect(connect_packet("upload"))
            for at in range(0, len(publish), 8192):
                upload.socket.sendall(publish[at : at + 8192])
                attacker = stack.enter_context(RawClient(broker.port))
                attacker.connect(connect_packet(f"attacker{at}"))
                attacker.socket.sendall(publish[:-1])
                if at % 20 == 0:
                    not_noticed(bystanders)
            assert upload.receive() == Ack(
                PacketType.PUBACK, [1], ReasonCode.NO_MATCHING_SUBSCRIBERS
            )
            assert broker.resident_bytes() - before < GROWTH_BYTES_MAX


SMALL_BUFFERS = {"write_buffer_bytes_max": 32 * 1024, "packet_bytes_max": 32 * 1024}
UNKNOWN_COMMAND = b"ERROR unknown command: use SUBSCRIBE, UNSUBSCRIBE, PUBLISH, CONFIRM or LOGIN\n"


@contextlib.contextmanager
def greedy(first: bytes) -> Iterator[tuple[BrokerProcess, Bystanders, socket.socket]]:
    """A client that has said `first`, and then sends what it can. Over the Unix socket, as there
    the kernel keeps little; over TCP it takes megabytes before anybody notices."""
    with tempfile.TemporaryDirectory(prefix="pubsub-") as directory:
        path = str(Path(directory) / "mqtt.sock")
        with (
            abused(Path(directory), unix_socket=path, **SMALL_BUFFERS) as (broker, bystanders),
            socket.socket(socket.AF_UNIX) as client,
        ):
            client.settimeout(WAIT_TIMEOUT_S)
            client.connect(path)
            client.sendall(first)
            assert client.recv(4096)
            yield broker, bystanders, client


def send_as_much_as_it_takes(client: socket.socket, data: bytes, bystanders: Bystanders) -> int:
    """`data` again and again, until the broker does not read for half a second; how many bytes."""
    sent = 0
    client.settimeout(0.5)
    with contextlib.suppress(TimeoutError):
        while sent < 8 * MIB:
            sent += client.send(data[sent % len(data) :])
            not_noticed(bystanders)
    assert sent < 8 * MIB
    client.settimeout(WAIT_TIMEOUT_S)
    return sent


@pytest.mark.parametrize(
    ("first", "question", "answer"),
    [
        pytest.param(encode(connect_packet("greedy"), MQTT_5), b"\xc0\0", b"\xd0\0", id="PINGREQ"),
        pytest.param(b"CONFIRM\n", b"?\n", UNKNOWN_COMMAND, id="line"),
    ],
)
def test_who_asks_and_never_reads_the_answers_is_not_read_from(
    first: bytes, question: bytes, answer: bytes
) -> None:
    """It can send no more, costs no more memory, and gets answers as soon as it reads."""
    with greedy(first) as (broker, bystanders, client):
        before = broker.resident_bytes()
        sent = send_as_much_as_it_takes(client, question * 10_000, bystanders)
        assert broker.resident_bytes() - before < GROWTH_BYTES_MAX
        not_noticed(bystanders)
        answers = answer * (sent // len(question))
        received = bytearray()
        while len(received) < len(answers):
            received += client.recv(MIB)
        assert received == answers


def test_publishers_that_do_not_read_their_acknowledgements() -> None:
    """The same by what is answered later, when it is committed."""
    connect = encode(connect_packet("greedy", version=MQTT_3_1_1), MQTT_3_1_1)
    publish = encode(Publish("topic", b"", 1, False, False, 1), MQTT_3_1_1)
    with greedy(connect) as (_, bystanders, client):
        send_as_much_as_it_takes(client, publish * 1000, bystanders)
        assert client.recv(4).hex() == "40020001"
