"""JSON Web Tokens as passwords, at a real broker: as others sign them, and when they run out."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from broker.mqtt.packets import (
    MQTT_3_1_1,
    MQTT_5,
    Ack,
    Connack,
    Connect,
    Disconnect,
    Pingresp,
    Publish,
    Suback,
    Subscribe,
    SubscriptionRequest,
)
from tests.support.broker_process import BrokerProcess
from tests.support.command_line import fail, succeed
from tests.support.line_socket import LineSocket
from tests.support.raw_client import RawClient, connect_packet

SECRET = b"a secret of thirty-two bytes or so"
RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EC = ec.generate_private_key(ec.SECP256R1())
KEYS = [
    {"kty": "oct", "kid": "h", "alg": "HS256", "k": base64.urlsafe_b64encode(SECRET).decode()},
    {**RSAAlgorithm.to_jwk(RSA.public_key(), as_dict=True), "kid": "r", "alg": "RS256"},
    {**ECAlgorithm.to_jwk(EC.public_key(), as_dict=True), "kid": "e", "alg": "ES256"},
]
SIGNERS: dict[str, Any] = {"HS256": SECRET, "RS256": RSA, "ES256": EC}


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerProcess]:
    """With a user, and the rule that the role `sensors` may publish below `s/`."""
    directory = tmp_path_factory.mktemp("broker")
    write(directory / "jwks.json", KEYS)
    settings = {"jwt_keys": str(directory / "jwks.json"), "jwt_issuer": "us"}
    broker = BrokerProcess(directory, settings)
    data_dir = "--data-dir", broker.data_dir
    succeed("user", "add", "anna", "--password-stdin", *data_dir, stdin=b"secret\n")
    succeed("acl", "add", "sensors", "allow", "publish", "s/#", "--role", *data_dir)
    with broker:
        yield broker
        assert broker.stop() == 0
    assert "Traceback" not in broker.stderr.read_text()


def write(path: Path, keys: list[dict[str, Any]]) -> None:
    path.write_text(json.dumps({"keys": keys}))


def token(algorithm: str = "ES256", *, lasts_s: float = 600, **more: object) -> bytes:
    claims = {"sub": "kiln", "roles": ["sensors"], "iss": "us", "exp": time.time() + lasts_s}
    return jwt.encode(claims | more, SIGNERS[algorithm], algorithm).encode()


def connect(name: str, password: bytes, user: str = "", version: int = MQTT_5) -> Connect:
    return replace(connect_packet(name, version=version), username=user, password=password)


@pytest.mark.parametrize("version", [MQTT_3_1_1, MQTT_5])
@pytest.mark.parametrize("algorithm", SIGNERS)
def test_who_brings_one_has_its_roles_and_no_others(
    broker: BrokerProcess, name: str, algorithm: str, version: int
) -> None:
    with RawClient(broker.port, version) as client:
        assert client.connect(connect(name, token(algorithm), "kiln", version)).reason_code == 0
        client.send(Publish("s/1", b"", 1, False, False, 1))
        assert client.expect(Ack).reason_code in (0, 0x10)
        if version == MQTT_5:
            client.send(Publish("other", b"", 1, False, False, 2))
            assert client.expect(Ack).reason_code == 0x87
        client.send(Subscribe(3, [SubscriptionRequest("s/#", 0)]))
        assert client.expect(Suback).reason_codes == [0x87 if version == MQTT_5 else 0x80]


FORGED: dict[str, str | bytes] = {
    "another's secret": jwt.encode({"sub": "anna", "iss": "us", "exp": 1 << 40}, b"?" * 32),
    "no signature": jwt.encode({"sub": "anna", "iss": "us", "exp": 1 << 40}, "", "none"),
    "the public key as the secret": jwt.encode(
        {"sub": "anna", "iss": "us", "exp": 1 << 40}, str(KEYS[1]["n"]).encode()
    ),
    "run out": token(lasts_s=-1),
    "for ever": jwt.encode({"sub": "anna", "iss": "us"}, SECRET),
    "not yet": token(nbf=time.time() + 3600),
    "another issuer": token(iss="them"),
    "at no moment": token(exp=float("nan")),
    "of nobody": token(sub="\ud800"),
}


@pytest.mark.parametrize("why", FORGED)
def test_what_is_no_good_token_opens_nothing(broker: BrokerProcess, name: str, why: str) -> None:
    forged = FORGED[why]
    password = forged if isinstance(forged, bytes) else forged.encode()
    for version, code in ((MQTT_5, 0x86), (MQTT_3_1_1, 4)):
        with RawClient(broker.port, version) as client:
            assert client.connect(connect(name, password, version=version)).reason_code == code


def test_a_token_is_of_no_use_to_somebody_else(broker: BrokerProcess, name: str) -> None:
    with RawClient(broker.port) as client:
        assert client.connect(connect(name, token(), "anna")).reason_code == 0x86


def test_who_came_in_by_one_goes_when_it_runs_out(broker: BrokerProcess, name: str) -> None:
    with (
        RawClient(broker.port) as new,
        RawClient(broker.port, MQTT_3_1_1) as old,
        RawClient(broker.port) as other,
    ):
        for client, version in ((new, MQTT_5), (old, MQTT_3_1_1)):
            packet = connect(f"{name}-{version}", token(lasts_s=2), version=version)
            assert client.connect(packet).reason_code == 0
        assert other.connect(connect(f"{name}-other", token())).reason_code == 0
        assert new.expect(Disconnect).reason_code == 0x87
        assert old.closed()
        other.send(b"\xc0\0")
        assert isinstance(other.receive(), Pingresp)


def test_keys_are_replaced_while_it_runs(broker: BrokerProcess, name: str) -> None:
    """And a broken file leaves the old ones in force."""
    path = broker.data_dir.parent / "jwks.json"
    data_dir = "--data-dir", broker.data_dir
    try:
        write(path, KEYS[:2])
        succeed("broker", "reload", *data_dir)
        assert code(broker, connect(name, token("ES256"))) == 0x86
        assert code(broker, connect(name, token("RS256"))) == 0
        path.write_text('{"keys": [')
        assert "is no JWK Set" in fail(2, "broker", "reload", *data_dir)
        assert code(broker, connect(name, token("RS256"))) == 0
    finally:
        write(path, KEYS)
        succeed("broker", "reload", *data_dir)
    assert code(broker, connect(name, token("ES256"))) == 0


def code(broker: BrokerProcess, packet: Connect) -> int:
    with RawClient(broker.port) as client:
        client.send(packet)
        return client.expect(Connack).reason_code


def test_lines_and_commands_bring_them(broker: BrokerProcess, tmp_path: Path) -> None:
    with LineSocket(broker.port) as lines:
        assert lines.ask(f"LOGIN kiln {token().decode()}") == "OK"
        assert lines.ask("PUBLISH s/1 x kiln") == "OK"
        assert lines.ask("PUBLISH other x kiln").startswith("ERROR")
    path = tmp_path / "token"
    path.write_bytes(token())
    path.chmod(0o600)
    url = f"mqtt://kiln@127.0.0.1:{broker.port}"
    succeed("pub", "-L", f"{url}/s/1", "x", "--password-file", path)
    fail(77, "pub", "-L", f"{url}/other", "x", "--password-file", path)


@pytest.mark.skipif(shutil.which("mosquitto_pub") is None, reason="needs mosquitto_pub")
def test_mosquitto_brings_one(broker: BrokerProcess) -> None:
    where = ["mosquitto_pub", "-p", str(broker.port), "-u", "kiln", "-t", "s/1", "-m", "x"]
    subprocess.run([*where, "-P", token("RS256")], check=True, timeout=60)
    done = subprocess.run([*where, "-P", token(lasts_s=-9)], timeout=60, capture_output=True)
    assert done.returncode != 0
