"""Clients with a list of brokers go on at another one when theirs is killed: nothing is lost."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import replace
from itertools import cycle
from queue import Queue
from time import monotonic
from typing import IO, Any

import aiomqtt
import pytest
from _pytest.mark import ParameterSet
from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from tests.support.broker_process import ROOT, BrokerProcess, wait_until
from tests.support.nodes import Nodes, Pair, client_of, running_nodes
from tests.support.patience import PATIENCE_S
from tests.support.peers.mqttjs import NEEDS_MQTTJS, MqttJsPeer, Node
from tests.support.peers.paho import connect_properties
from tests.support.peers.peer import Options
from tests.support.raw_client import connect_packet

TOPIC = "t"
HALF = 100
OPTIONS = Options("x", clean=False, expiry_s=3600)

Receive = Callable[[], bytes]
"""The next payload that the client got."""
Following = Callable[[Sequence[int]], AbstractContextManager[Receive]]
"""From a list of ports to a client of these, which subscribes durably to TOPIC."""


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    """The same for all: none is killed here."""
    with running_nodes(tmp_path_factory.mktemp("nodes")) as nodes:
        yield nodes


@contextmanager
def paho(ports: Sequence[int], version: int) -> Iterator[Receive]:
    """It connects again by itself, to whatever `connect_async` has said last."""
    protocol = MQTTProtocolVersion(version)
    clean_session = False if version == 4 else None
    client = Client(
        CallbackAPIVersion.VERSION2, "x", protocol=protocol, clean_session=clean_session
    )
    client.reconnect_delay_set(1, 2)
    following = cycle(ports)
    got: Queue[bytes] = Queue()

    def next_of_the_list(*_: Any) -> None:
        if version == 4:
            client.connect_async("127.0.0.1", next(following))
        else:
            properties = connect_properties(OPTIONS)
            client.connect_async(
                "127.0.0.1", next(following), clean_start=False, properties=properties
            )

    def on_connect(client: Client, *_: Any) -> None:
        client.subscribe(TOPIC, 1)

    def on_message(client: Client, userdata: Any, message: MQTTMessage) -> None:
        got.put(bytes(message.payload))

    client.on_connect = on_connect
    client.on_message = on_message
    client.on_disconnect = client.on_connect_fail = next_of_the_list
    next_of_the_list()
    client.loop_start()
    try:
        yield lambda: got.get(timeout=PATIENCE_S)
    finally:
        client.on_disconnect = client.on_connect_fail = None
        client.disconnect()
        client.loop_stop()


def paho_311(ports: Sequence[int]) -> AbstractContextManager[Receive]:
    return paho(ports, 4)


def paho_5(ports: Sequence[int]) -> AbstractContextManager[Receive]:
    return paho(ports, 5)


@contextmanager
def aiomqtt_5(ports: Sequence[int]) -> Iterator[Receive]:
    """The loop that its documentation shows for connecting again."""
    got: Queue[bytes] = Queue()

    async def follow() -> None:
        for port in cycle(ports):
            client = aiomqtt.Client(
                "127.0.0.1",
                port,
                identifier="x",
                protocol=aiomqtt.ProtocolVersion.V5,
                clean_start=False,
                properties=connect_properties(OPTIONS),
            )
            try:
                async with client:
                    await client.subscribe(TOPIC, 1)
                    async for message in client.messages:
                        assert isinstance(message.payload, bytes)
                        got.put(message.payload)
            except aiomqtt.MqttError:
                await asyncio.sleep(1)

    async def until_cancelled() -> None:
        with suppress(asyncio.CancelledError):
            await following

    loop = asyncio.new_event_loop()
    following = loop.create_task(follow())
    thread = threading.Thread(target=loop.run_until_complete, args=[until_cancelled()])
    thread.start()
    try:
        yield lambda: got.get(timeout=PATIENCE_S)
    finally:
        loop.call_soon_threadsafe(following.cancel)
        thread.join(PATIENCE_S)
        loop.close()


def with_list(ports: Sequence[int]) -> type[MqttJsPeer]:
    """MQTT.js with its own list, `servers`, in a process of its own."""
    servers = [{"host": "127.0.0.1", "port": port, "protocol": "mqtt"} for port in ports]

    class Listed(MqttJsPeer):
        node = Node()
        over = {"servers": servers, "reconnectPeriod": 1000}  # noqa: RUF012

    return Listed


@contextmanager
def mqttjs(ports: Sequence[int]) -> Iterator[Receive]:
    """Its own list, `servers`."""
    listed = with_list(ports)
    try:
        peer = listed(ports[0], 5, OPTIONS)
        peer.subscribe(TOPIC, 1)
        yield lambda: peer.inbox.get(timeout=PATIENCE_S).payload
    finally:
        listed.node.stop()


@contextmanager
def mosquitto_sub(ports: Sequence[int]) -> Iterator[Receive]:
    """One broker after the other, as in a unit file: each for 10 s at most, as it would go on with
    the one that it was connected to for ever."""
    sub = "mosquitto_sub -c -i x -q 1 -t t -W 10 -p"
    script = f"while :; do for port in {' '.join(map(str, ports))}; do {sub} $port; done; done"
    with lines_of(["bash", "-c", script]) as receive:
        yield receive


@contextmanager
def pubsub_sub_of_one(ports: Sequence[int]) -> Iterator[Receive]:
    """It goes where the broker says, and has no list."""
    command = [sys.executable, "-m", "cli.main", "sub", TOPIC, "--id", "x", "-p", str(ports[0])]
    with lines_of(command) as receive:
        yield receive


@contextmanager
def pubsub_sub(ports: Sequence[int]) -> Iterator[Receive]:
    hosts = ",".join(f"127.0.0.1:{port}" for port in ports)
    command = [sys.executable, "-m", "cli.main", "sub", TOPIC, "--id", "x", "-h", hosts]
    with lines_of(command) as receive:
        yield receive


@contextmanager
def lines_of(command: Sequence[str]) -> Iterator[Receive]:
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # To end all that it has started with it.
    )
    assert process.stdout is not None
    lines: Queue[bytes] = Queue()

    def read(stdout: IO[bytes]) -> None:
        for line in stdout:
            lines.put(line.rstrip())

    reader = threading.Thread(target=read, args=[process.stdout])
    reader.start()
    try:
        yield lambda: lines.get(timeout=PATIENCE_S)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        reader.join(PATIENCE_S)
        process.stdout.close()


def client(following: Following, *marks: pytest.MarkDecorator) -> ParameterSet:
    return pytest.param(following, marks=marks, id=following.__name__)


NEEDS_MOSQUITTO = pytest.mark.skipif(
    shutil.which("mosquitto_sub") is None,
    reason="needs mosquitto_sub (Debian: mosquitto-clients)",
)
CLIENTS = [
    client(paho_311),
    client(paho_5),
    client(aiomqtt_5),
    client(mqttjs, *NEEDS_MQTTJS),
    client(mosquitto_sub, NEEDS_MOSQUITTO),
    client(pubsub_sub),
]

DRAINED = [client(paho_5), client(mqttjs, *NEEDS_MQTTJS), client(pubsub_sub_of_one)]


@pytest.mark.parametrize("following", CLIENTS)
def test_a_client_with_a_list_of_brokers_goes_on_at_another(
    brokers: Pair, following: Following
) -> None:
    goes_on(brokers, following, BrokerProcess.kill)


def drain(broker: BrokerProcess) -> None:
    command = [sys.executable, "-m", "cli.main", "broker", "stop", "--drain"]
    subprocess.run([*command, "--data-dir", broker.data_dir], cwd=ROOT, check=True)


@pytest.mark.parametrize("following", DRAINED)
def test_a_client_goes_on_at_another_when_its_broker_is_drained(
    brokers: Pair, following: Following
) -> None:
    goes_on(brokers, following, drain)
    said = brokers[0].stderr.read_text()
    assert "1 client is told to go on at another broker" in said


def goes_on(brokers: Pair, following: Following, end: Callable[[BrokerProcess], None]) -> None:
    """And nothing is lost."""
    a, b = brokers
    payloads = [b"%d" % number for number in range(2 * HALF)]
    with following([a.port, b.port]) as receive, client_of(b) as publisher:
        subscribed = "SELECT 1 FROM subscriptions WHERE client_id = 'x'"
        wait_until(lambda: bool(b.query(subscribed)), timeout_s=PATIENCE_S)
        publisher.connect(connect_packet("p"))
        publisher.publish_all(TOPIC, payloads[:HALF])
        got = [receive()]
        ended_at = monotonic()
        end(a)
        publisher.publish_all(TOPIC, payloads[HALF:])
        while got[-1] != payloads[-1]:
            got.append(receive())
        print(f"all is here {monotonic() - ended_at:.1f} s after its broker was to end")
    # What it had acknowledged in the last moments may come again. (P4)
    assert [*dict.fromkeys(got)] == payloads


def test_a_command_that_publishes_goes_on_at_another(brokers: Pair) -> None:
    a, b = brokers
    payloads = [b"%d" % number for number in range(2 * HALF)]
    hosts = f"127.0.0.1:{a.port},127.0.0.1:{b.port}"
    command = [sys.executable, "-m", "cli.main", "pub", TOPIC, "-l", "-q", "1", "-h", hosts]
    process = subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, bufsize=0
    )
    try:
        assert process.stdin is not None
        process.stdin.write(b"\n".join(payloads[:HALF]) + b"\n")
        wait_until(lambda: logged(b)[-1:] == payloads[HALF - 1 : HALF], timeout_s=PATIENCE_S)
        a.kill()
        process.stdin.write(b"\n".join(payloads[HALF:]) + b"\n")
        process.stdin.close()
        assert process.wait(PATIENCE_S) == 0
    finally:
        process.kill()
        process.wait()
    # What was stored and not acknowledged when the broker was killed is published again. (QoS 1)
    assert [*dict.fromkeys(logged(b))] == payloads


Publishes = Callable[[bytes], object]
"""Publishes to TOPIC at QoS 1, and returns when that is acknowledged."""


@contextmanager
def paho_publisher(ports: Sequence[int]) -> Iterator[Publishes]:
    """It sends again what was not acknowledged when it has connected again."""
    client = Client(CallbackAPIVersion.VERSION2, "p", protocol=MQTTProtocolVersion.MQTTv311)
    client.reconnect_delay_set(1, 2)
    following = cycle(ports)

    def next_of_the_list(*_: Any) -> None:
        client.connect_async("127.0.0.1", next(following))

    def publish(payload: bytes) -> None:
        client.publish(TOPIC, payload, 1)
        acknowledged.get(timeout=PATIENCE_S)

    acknowledged: Queue[int] = Queue()
    client.on_publish = lambda _client, _userdata, mid, *_: acknowledged.put(mid)
    client.on_disconnect = client.on_connect_fail = next_of_the_list
    next_of_the_list()
    client.loop_start()
    try:
        yield publish
    finally:
        client.on_disconnect = client.on_connect_fail = None
        client.disconnect()
        client.loop_stop()


@contextmanager
def mqttjs_publisher(ports: Sequence[int]) -> Iterator[Publishes]:
    listed = with_list(ports)
    try:
        peer = listed(ports[0], 5, replace(OPTIONS, client_id="p"))
        yield lambda payload: peer.publish(TOPIC, payload, 1)
    finally:
        listed.node.stop()


@pytest.mark.parametrize(
    "publishing",
    [
        pytest.param(paho_publisher, id="paho"),
        pytest.param(mqttjs_publisher, id="mqttjs", marks=NEEDS_MQTTJS),
    ],
)
def test_a_publisher_with_a_list_of_brokers_goes_on_at_another(
    brokers: Pair, publishing: Callable[[Sequence[int]], AbstractContextManager[Publishes]]
) -> None:
    a, b = brokers
    payloads = [b"%d" % number for number in range(2 * HALF)]
    with publishing([a.port, b.port]) as publish:
        for number, payload in enumerate(payloads):
            if number == HALF:
                threading.Thread(target=a.kill).start()
            publish(payload)
    # What was stored and not acknowledged when the broker was killed is published again. (QoS 1)
    assert [*dict.fromkeys(logged(b))] == payloads


def logged(broker: BrokerProcess) -> list[bytes]:
    rows = broker.query("SELECT payload FROM history WHERE topic = ? ORDER BY offset", TOPIC)
    return [bytes(payload) for (payload,) in rows]
