"""Users of a real broker: others' clients log in, and an operator changes who may."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from queue import Queue

import paho.mqtt.client as paho
import pytest
from aiomqtt import Client, MqttError, ProtocolVersion
from paho.mqtt.enums import CallbackAPIVersion

from broker.mqtt.packets import (
    MQTT_3_1_1,
    MQTT_5,
    Auth,
    Connack,
    Connect,
    Disconnect,
    Suback,
    Subscribe,
    SubscriptionRequest,
)
from broker.mqtt.properties import Property
from broker.mqtt.reasons import ReasonCode
from broker.security.scram import METHOD
from tests.support.broker_process import BrokerProcess
from tests.support.command_line import fail, succeed
from tests.support.line_socket import LineSocket
from tests.support.passwords import PBKDF2, SHA512
from tests.support.raw_client import RawClient, connect_packet
from tests.support.scram_client import ScramClient

NEEDS_MOSQUITTO = pytest.mark.skipif(
    shutil.which("mosquitto_pub") is None, reason="needs mosquitto_pub"
)


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerProcess]:
    """With the users anna, and (of Mosquitto's file) bob and cia; everybody's password is
    "secret"."""
    directory = tmp_path_factory.mktemp("broker")
    broker = BrokerProcess(directory, {"host": "0.0.0.0"})
    data_dir = "--data-dir", broker.data_dir
    add = "user", "add", "anna", "--admin", "--password-stdin"
    succeed(*add, *data_dir, stdin=b"secret\n")
    passwords = directory / "passwd"
    passwords.write_text(f"bob:{SHA512}\ncia:{PBKDF2}\n")
    succeed("user", "import", passwords, *data_dir)
    with broker:
        yield broker
        assert broker.stop() == 0


def connect(
    name: str, user: str | None = None, password: bytes | None = b"secret", version: int = MQTT_5
) -> Connect:
    packet = connect_packet(name, version=version)
    return replace(packet, username=user, password=None if user is None else password)


# SCRAM-SHA-256


def proven(client: RawClient, packet: Connect | Auth, scram: ScramClient) -> Auth:
    """Begin with this; the client's last word."""
    client.send(packet)
    asked = client.expect(Auth)
    assert asked.data is not None
    return Auth(ReasonCode.CONTINUE_AUTHENTICATION, METHOD, scram.final(asked.data))


def by_scram(name: str, scram: ScramClient) -> Connect:
    packet = connect_packet(name)
    return replace(packet, authentication_method=METHOD, authentication_data=scram.first())


@pytest.fixture
def dora(broker: BrokerProcess, name: str) -> Iterator[str]:
    user = f"dora-{name}"
    add = "user", "add", user, "--scram", "--password-stdin", "--data-dir", broker.data_dir
    succeed(*add, stdin=b"secret\n")
    yield user
    succeed("user", "rm", user, "--data-dir", broker.data_dir)


def test_a_client_proves_the_password_and_so_does_the_broker(
    broker: BrokerProcess, name: str, dora: str
) -> None:
    scram = ScramClient(dora, "secret")
    with RawClient(broker.port) as client, RawClient(broker.port) as other:
        client.send(proven(client, by_scram(name, scram), scram))
        connack = client.expect(Connack)
        assert connack.reason_code == 0
        assert scram.trusts(connack.properties[Property.AUTHENTICATION_DATA])
        other.send(connect(name, "anna"))
        assert other.expect(Connack).reason_code == 0x87
        again = ScramClient(dora, "secret", "another")
        begin = Auth(ReasonCode.REAUTHENTICATE, METHOD, again.first())
        client.send(proven(client, begin, again))
        assert again.trusts(client.expect(Auth).data)
        client.publish_all(name, [b"still here"], 1)
        thief = ScramClient("anna", "secret")
        begin = Auth(ReasonCode.REAUTHENTICATE, METHOD, thief.first())
        client.send(proven(client, begin, thief))
        assert client.expect(Disconnect).reason_code in (0x86, 0x87, 0x80)


def test_a_user_without_keys_cannot_prove_it(broker: BrokerProcess, name: str) -> None:
    scram = ScramClient("bob", "secret")
    with RawClient(broker.port) as client:
        client.send(proven(client, by_scram(name, scram), scram))
        assert client.expect(Connack).reason_code == 0x86
        assert client.closed()


# Passwords


@NEEDS_MOSQUITTO
@pytest.mark.parametrize("version", ["311", "5"])
def test_mosquitto_logs_in(broker: BrokerProcess, version: str) -> None:
    command = ["mosquitto_pub", "-p", str(broker.port), "-V", version, "-t", "t", "-m", "1"]
    for user in ("anna", "bob", "cia"):
        right = subprocess.run([*command, "-u", user, "-P", "secret"], check=False, timeout=10)
        assert right.returncode == 0
    for wrong in (["-u", "anna", "-P", "Secret"], []):
        done = subprocess.run([*command, *wrong], check=False, capture_output=True, timeout=10)
        assert done.returncode != 0


def test_paho_logs_in_over_websocket(broker: BrokerProcess) -> None:
    for password, code in (("secret", "Success"), ("wrong", "Bad user name or password")):
        codes: Queue[str] = Queue()
        client = paho.Client(
            CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5, transport="websockets"
        )
        client.username_pw_set("anna", password)
        client.on_connect = lambda *told, codes=codes: codes.put(str(told[3]))
        client.connect("127.0.0.1", broker.port)
        client.loop_start()
        assert codes.get(timeout=10) == code
        client.disconnect()
        client.loop_stop()


async def test_aiomqtt_logs_in(broker: BrokerProcess) -> None:
    def client(password: str) -> Client:
        return Client(
            *("127.0.0.1", broker.port),
            username="bob",
            password=password,
            protocol=ProtocolVersion.V5,
        )

    async with asyncio.timeout(10), client("secret"):
        pass
    with pytest.raises(MqttError):
        async with client("wrong"):
            pass


@pytest.mark.parametrize(("version", "refusal"), [(MQTT_3_1_1, 5), (MQTT_5, 0x87)])
def test_the_owner_of_a_client_identifier_stays_connected(
    broker: BrokerProcess, name: str, version: int, refusal: int
) -> None:
    with RawClient(broker.port, version) as owner, RawClient(broker.port, version) as thief:
        assert owner.connect(connect(name, "anna", version=version)).reason_code == 0
        thief.send(connect(name, "bob", version=version))
        assert thief.expect(Connack).reason_code == refusal
        assert thief.closed()
        owner.publish_all(name, [b"still here"], 1)


def test_a_group_is_its_users(broker: BrokerProcess, name: str) -> None:
    with RawClient(broker.port) as owner, RawClient(broker.port) as other:
        owner.connect(connect(f"{name}-1", "anna"))
        other.connect(connect(f"{name}-2", "bob"))
        owner.subscribe(f"$share/{name}/t", 1)
        other.send(Subscribe(1, [SubscriptionRequest(f"$share/{name}/t", 1)]))
        assert other.expect(Suback).reason_codes == [0x87]


def test_changes_count_at_once(broker: BrokerProcess, name: str, tmp_path: Path) -> None:
    data_dir = "--data-dir", broker.data_dir
    password = tmp_path / "password"
    password.write_text("first\n")
    succeed("user", "add", name, "--password-file", password, *data_dir)
    with RawClient(broker.port) as client:
        assert client.connect(connect(name, name, b"first")).reason_code == 0
        password.write_text("second\n")
        succeed("user", "passwd", name, "--password-file", password, *data_dir)
        assert client.expect(Disconnect).reason_code == 0x87
    with RawClient(broker.port) as client:
        client.send(connect(name, name, b"first"))
        assert client.expect(Connack).reason_code == 0x86
    with RawClient(broker.port) as client:
        assert client.connect(connect(name, name, b"second")).reason_code == 0
        succeed("user", "rm", name, *data_dir)
        assert client.expect(Disconnect).reason_code == 0x98
    with RawClient(broker.port) as client:
        client.send(connect(name, name, b"second"))
        assert client.expect(Connack).reason_code == 0x86


def test_lines_log_in(broker: BrokerProcess, name: str) -> None:
    with LineSocket(broker.port) as lines:
        assert lines.ask(f"PUBLISH t 1 {name}").startswith("ERROR log in first")
        assert lines.ask("LOGIN anna wrong") == "ERROR wrong user name or password"
        assert lines.ask("LOGIN anna secret") == "OK"
        assert lines.ask(f"PUBLISH t 1 {name}") == "OK"


def test_no_password_is_told(broker: BrokerProcess) -> None:
    with LineSocket(broker.port) as lines:
        lines.ask("LOGIN anna wrong")
        lines.ask("LOGIN anna secret")
    said = broker.stderr.read_text()
    assert "login of user 'anna' from 127.0.0.1 failed: wrong password" in said
    for secret in ("secret\n", "'secret", "'wrong", "'first", "argon2id"):
        assert secret not in said


def test_without_users_nobody_listens_for_others(tmp_path: Path) -> None:
    said = fail(
        *(2, "broker", "start", "--host", "0.0.0.0", "--port", "0"),
        *("--data-dir", tmp_path / "data"),
    )
    assert "pubsub user add NAME --admin --data-dir" in said
    assert "--allow-anonymous" in said
