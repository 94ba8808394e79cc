"""Enhanced authentication by a method that a program gives to its broker, over TCP."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from queue import Queue

import pytest

from broker.config import Config
from broker.errors import NotAuthorized
from broker.mqtt.packets import Ack, Auth, Connack, Connect, Disconnect, PacketType, Publish, Will
from broker.mqtt.properties import Property
from broker.mqtt.reasons import ReasonCode
from broker.server.server import Server
from tests.support.raw_client import TIMEOUT_S, RawClient, connect_packet

METHOD = "TEST-CHALLENGE"
SECRETS = {b"ann": b"sesame", b"bob": b"swordfish"}


def proof(challenge: bytes | None, secret: bytes) -> bytes:
    assert challenge
    return hashlib.sha256(challenge + secret).digest()


class Challenge:
    """The client says its name, is given a challenge, and proves with it that it knows the secret.
    Then the broker says how often that went well."""

    user = None

    def __init__(self, welcome: Callable[[bytes], bytes]) -> None:
        self._welcome = welcome
        self._name: bytes | None = None
        self._challenge = secrets.token_bytes(16)

    def step(self, data: bytes) -> tuple[bytes | None, bool]:
        if self._name is None:
            self._name = data
            return self._challenge, False
        if data != proof(self._challenge, SECRETS.get(self._name, b"")):
            raise NotAuthorized("wrong proof")
        return self._welcome(self._name), True


@contextmanager
def serving(config: Config) -> Iterator[int]:
    """The port of a broker in this process, on an event loop of its own."""
    times: Counter[bytes] = Counter()

    def welcome(name: bytes) -> bytes:
        times[name] += 1
        return b"%s, %d" % (name, times[name])

    server = Server(config, methods={METHOD: lambda: Challenge(welcome)})
    loops: Queue[asyncio.AbstractEventLoop] = Queue()

    async def serve() -> None:
        await server.start()
        loops.put(asyncio.get_running_loop())
        await server.wait_stopped()
        await server.stop()

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    loop = loops.get(timeout=TIMEOUT_S)
    try:
        yield server.address[1]
    finally:
        loop.call_soon_threadsafe(server.request_stop)
        thread.join(TIMEOUT_S)
        assert not thread.is_alive()


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with serving(Config(port=0, data_dir=tmp_path_factory.mktemp("broker"))) as port:
        yield port


@pytest.fixture
def client(port: int) -> Iterator[RawClient]:
    with RawClient(port) as client:
        yield client


def connect(name: str, *, user: bytes = b"ann") -> Connect:
    asking = connect_packet(name)
    return replace(asking, authentication_method=METHOD, authentication_data=user)


def answer(data: bytes | None, method: str = METHOD) -> Auth:
    return Auth(ReasonCode.CONTINUE_AUTHENTICATION, method, data)


def challenged(client: RawClient, packet: Connect | Auth) -> bytes:
    client.send(packet)
    asked = client.expect(Auth)
    assert (asked.reason_code, asked.method) == (ReasonCode.CONTINUE_AUTHENTICATION, METHOD)
    assert asked.data
    return asked.data


def enter(client: RawClient, packet: Connect, secret: bytes = b"sesame") -> Connack:
    client.send(answer(proof(challenged(client, packet), secret)))
    return client.expect(Connack)


def works(client: RawClient, name: str) -> None:
    client.subscribe(name, 1)
    client.send(Publish(name, b"hello", 1, False, False, 9))
    got = [client.receive(), client.receive()]
    assert Ack(PacketType.PUBACK, [9]) in got
    assert [packet.payload for packet in got if isinstance(packet, Publish)] == [b"hello"]


def test_who_proves_to_know_the_secret_is_let_in(client: RawClient, name: str) -> None:
    """[MQTT-4.12.0-2, MQTT-4.12.0-3, MQTT-4.12.0-5] With the broker's last word in CONNACK."""
    connack = enter(client, connect(name, user=b"bob"), b"swordfish")
    assert connack.reason_code == 0
    assert connack.properties[Property.AUTHENTICATION_METHOD] == METHOD
    assert connack.properties[Property.AUTHENTICATION_DATA] == b"bob, 1"
    works(client, name)


@pytest.mark.parametrize("user", [b"ann", b"nobody", b""])
def test_who_does_not_is_not(client: RawClient, name: str, user: bytes) -> None:
    """[MQTT-4.12.0-4]"""
    connack = enter(client, connect(name, user=user), b"guessed")
    assert connack.reason_code == ReasonCode.NOT_AUTHORIZED
    assert client.closed()


def test_an_old_proof_is_of_no_use(port: int, name: str) -> None:
    """Each connection has an exchange of its own, however many are under way."""
    with RawClient(port) as one, RawClient(port) as other:
        proved = proof(challenged(one, connect(name)), b"sesame")
        challenged(other, connect(f"{name}-2"))
        other.send(answer(proved))
        assert other.expect(Connack).reason_code == ReasonCode.NOT_AUTHORIZED
        one.send(answer(proved))
        assert one.expect(Connack).reason_code == 0


def test_a_method_that_is_not_there_is_refused(client: RawClient, name: str) -> None:
    """[MQTT-4.12.0-1]"""
    client.send(replace(connect(name), authentication_method="SCRAM-SHA-1"))
    assert client.expect(Connack).reason_code == ReasonCode.BAD_AUTHENTICATION_METHOD
    assert client.closed()


def test_who_names_no_method_comes_in_and_cannot_authenticate_later(
    client: RawClient, name: str
) -> None:
    """[MQTT-4.12.0-6, MQTT-4.12.0-7]"""
    assert client.connect(connect_packet(name)).reason_code == 0
    works(client, name)
    client.send(Auth(ReasonCode.REAUTHENTICATE, METHOD, b"ann"))
    assert client.expect(Disconnect).reason_code == ReasonCode.PROTOCOL_ERROR
    assert client.closed()


def test_a_connected_client_authenticates_again_and_loses_nothing(
    client: RawClient, name: str
) -> None:
    """[MQTT-4.12.1-1] Messages go on while it does."""
    enter(client, connect(name))
    challenge = challenged(client, Auth(ReasonCode.REAUTHENTICATE, METHOD, b"ann"))
    works(client, name)
    client.send(answer(proof(challenge, b"sesame")))
    done = client.expect(Auth)
    assert (done.reason_code, done.method) == (ReasonCode.SUCCESS, METHOD)
    assert done.data is not None
    assert done.data.startswith(b"ann, ")


def test_who_fails_to_do_so_is_cut_off_and_its_will_published(
    port: int, client: RawClient, name: str
) -> None:
    """[MQTT-4.12.1-2, MQTT-3.1.2-8]"""
    with RawClient(port) as watcher:
        watcher.connect(connect_packet(f"{name}-watcher"))
        watcher.subscribe(name, 1)
        enter(client, replace(connect(name), will=Will(name, b"gone", 1, False)))
        challenged(client, Auth(ReasonCode.REAUTHENTICATE, METHOD, b"ann"))
        client.send(answer(b"guessed"))
        assert client.expect(Disconnect).reason_code == ReasonCode.NOT_AUTHORIZED
        assert client.closed()
        assert watcher.expect(Publish).payload == b"gone"


def test_another_method_than_that_of_connect_is_a_protocol_error(
    client: RawClient, name: str
) -> None:
    """[MQTT-4.12.0-5]"""
    challenged(client, connect(name))
    client.send(answer(b"", method="OTHER"))
    assert client.expect(Connack).reason_code == ReasonCode.PROTOCOL_ERROR
    assert client.closed()


def test_nothing_but_auth_is_heard_of_who_is_not_authenticated(
    port: int, client: RawClient, name: str
) -> None:
    """[MQTT-3.1.2-30]"""
    with RawClient(port) as watcher:
        watcher.connect(connect_packet(f"{name}-watcher"))
        watcher.subscribe(name, 1)
        challenged(client, connect(name))
        client.send(Publish(name, b"smuggled", 0, False, False, 0))
        assert client.expect(Connack).reason_code == ReasonCode.PROTOCOL_ERROR
        assert client.closed()
        watcher.publish_all(name, [b"after"], 0)
        assert watcher.expect(Publish).payload == b"after"


def test_who_leaves_in_the_exchange_has_left(port: int, client: RawClient, name: str) -> None:
    """And has done nothing to the connection that has its client identifier. [MQTT-3.1.4-3]"""
    with RawClient(port) as connected:
        connected.connect(connect_packet(name))
        challenged(client, connect(name))
        client.send(Disconnect())
        assert client.closed()
        works(connected, name)


def test_who_does_not_answer_in_time_is_refused(tmp_path: Path, name: str) -> None:
    config = Config(port=0, data_dir=tmp_path, connect_timeout_s=0.3)
    with serving(config) as port, RawClient(port) as client:
        challenged(client, connect(name))
        assert client.expect(Connack).reason_code == ReasonCode.NOT_AUTHORIZED
        assert client.closed()
