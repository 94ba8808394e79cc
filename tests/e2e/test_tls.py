"""What a stranger finds at a port with TLS, with programs that others have written."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from broker.mqtt.encode import encode
from broker.mqtt.packets import MQTT_5, Publish
from tests.support.broker_process import wait_until
from tests.support.bystanders import Bystanders
from tests.support.certificates import Files
from tests.support.command_line import fail, succeed
from tests.support.raw_client import connect_packet
from tests.support.tls_broker import TlsBroker
from tests.support.tls_client import TlsClient

TIMEOUT_S = 10.0
needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl")
needs_mosquitto = pytest.mark.skipif(
    shutil.which("mosquitto_pub") is None, reason="needs mosquitto_pub"
)


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TlsBroker]:
    """It asks for certificates, and wants none that the CA has revoked."""
    directory = tmp_path_factory.mktemp("broker")
    asked = {
        "tls_client_ca": str(directory / "ca.crt"),
        "tls_client_certificates": "optional",
        "tls_crl": str(directory / "crl.pem"),
    }
    broker = TlsBroker(directory, asked)
    broker.network.revocations(broker.network.client("lost"))
    with broker:
        yield broker
        assert broker.stop() == 0
    assert broker.complaints() == []


def s_client(broker: TlsBroker, *options: str) -> subprocess.CompletedProcess[str]:
    """A handshake, which is all that it tries."""
    command = ["openssl", "s_client", "-connect", f"127.0.0.1:{broker.tls_port}"]
    command += ["-CAfile", str(broker.network.ca), "-verify_return_error", *options]
    return subprocess.run(command, input="Q\n", capture_output=True, text=True, timeout=TIMEOUT_S)


@needs_openssl
@pytest.mark.parametrize("version", ["tls1_2", "tls1_3"])
def test_versions_of_today_are_spoken(broker: TlsBroker, version: str) -> None:
    probe = s_client(broker, f"-{version}", "-verify_hostname", "localhost")
    assert probe.returncode == 0, probe.stderr
    assert "Verification: OK" in probe.stdout


@needs_openssl
@pytest.mark.parametrize("version", ["tls1", "tls1_1"])
def test_older_versions_are_refused(broker: TlsBroker, version: str) -> None:
    probe = s_client(broker, f"-{version}", "-cipher", "ALL:@SECLEVEL=0")
    assert probe.returncode != 0
    assert "alert protocol version" in probe.stderr


@needs_openssl
@pytest.mark.parametrize(
    "cipher",
    [
        "AES128-GCM-SHA256",  # No key of its own for each connection.
        "ECDHE-ECDSA-AES128-SHA256",  # CBC
        "ECDHE-ECDSA-AES256-SHA",
        "ECDHE-ECDSA-NULL-SHA",
        "AECDH-AES128-SHA",  # Nobody knows who answers.
        "DHE-RSA-AES128-GCM-SHA256",
    ],
)
def test_weak_ciphers_are_refused(broker: TlsBroker, cipher: str) -> None:
    probe = s_client(broker, "-tls1_2", "-cipher", f"{cipher}:@SECLEVEL=0")
    assert probe.returncode != 0
    assert "alert handshake failure" in probe.stderr, probe.stderr


@needs_openssl
@pytest.mark.parametrize(
    "cipher", ["ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-ECDSA-CHACHA20-POLY1305"]
)
def test_good_ciphers_are_spoken(broker: TlsBroker, cipher: str) -> None:
    probe = s_client(broker, "-tls1_2", "-cipher", cipher)
    assert f"Cipher is {cipher}" in probe.stdout


@needs_openssl
def test_a_renegotiation_is_refused_and_compression_is_off(broker: TlsBroker) -> None:
    command = ["openssl", "s_client", "-connect", f"127.0.0.1:{broker.tls_port}", "-tls1_2"]
    client = subprocess.run(
        [*command, "-CAfile", str(broker.network.ca)],
        input="R\n",
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )
    assert "no renegotiation" in client.stderr
    assert "Compression: NONE" in client.stdout


def mosquitto(
    program: str, broker: TlsBroker, *options: str, shown: Files | None = None
) -> subprocess.CompletedProcess[str]:
    command = [program, "-h", "localhost", "-p", str(broker.tls_port)]
    command += ["--cafile", str(broker.network.ca), *options]
    if shown is not None:
        command += ["--cert", str(shown.certificate), "--key", str(shown.key)]
    return subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S)


@needs_mosquitto
@pytest.mark.parametrize("version", ["mqttv311", "mqttv5"])
@pytest.mark.parametrize("certified", [False, True])
def test_mosquittos_programs_publish_and_subscribe(
    broker: TlsBroker, version: str, certified: bool
) -> None:
    shown = broker.network.client("kitchen") if certified else None
    topic = f"{version}/{certified}"
    options = ["-t", topic, "-V", version]
    published = mosquitto(
        "mosquitto_pub", broker, *options, "-m", "x", "-q", "2", "-r", shown=shown
    )
    assert published.returncode == 0, published.stderr
    got = mosquitto("mosquitto_sub", broker, *options, "-C", "1", "-W", "5", shown=shown)
    assert got.stdout == "x\n"


@needs_mosquitto
def test_a_revoked_certificate_gets_nothing(broker: TlsBroker) -> None:
    """Refused in the handshake, of which the operator is told why."""
    lost = Files(broker.network.directory / "lost.crt", broker.network.directory / "lost.key")
    refused = mosquitto("mosquitto_pub", broker, "-t", "revoked", "-m", "x", shown=lost)
    assert refused.returncode != 0
    told = "closed: its certificate: certificate revoked"
    wait_until(lambda: told in broker.stderr.read_text())
    assert broker.query("SELECT 1 FROM history WHERE topic = ?", "revoked") == []


@needs_mosquitto
def test_who_errs_about_tls_is_told_to_the_operator_without_a_traceback(
    broker: TlsBroker,
) -> None:
    plain = ["mosquitto_pub", "-h", "localhost", "-p", str(broker.tls_port), "-t", "a", "-m", "x"]
    assert subprocess.run(plain, capture_output=True, timeout=TIMEOUT_S).returncode != 0
    secure = [*plain, "--cafile", str(broker.network.ca)]
    secure[secure.index(str(broker.tls_port))] = str(broker.port)
    assert subprocess.run(secure, capture_output=True, timeout=TIMEOUT_S).returncode != 0
    told = (
        "closed: it speaks MQTT without TLS, and its listener only with TLS",
        "closed: it speaks TLS, and its listener does not",
    )
    wait_until(lambda: all(sentence in broker.stderr.read_text() for sentence in told))
    assert "Traceback" not in broker.stderr.read_text()


def test_our_own_commands_connect(broker: TlsBroker) -> None:
    where = ["-L", f"mqtts://localhost:{broker.tls_port}", "--cafile", str(broker.network.ca)]
    succeed("pub", "own", "hello", "-r", *where)
    assert succeed("sub", "own", "-C", "1", "-W", "5", *where) == ["hello"]
    said = fail(69, "pub", "own", "hello", "-L", f"mqtts://localhost:{broker.tls_port}")
    assert "certificate" in said


def test_the_broker_reads_a_new_certificate_when_told_to(broker: TlsBroker) -> None:
    before = s_client(broker).stdout
    broker.network.renewed()
    succeed("broker", "reload", "--data-dir", broker.data_dir)
    assert s_client(broker).stdout.split("-----")[2] != before.split("-----")[2]
    key = broker.network.server.key.read_bytes()
    broker.network.server.key.write_bytes(b"junk")
    said = fail(2, "broker", "reload", "--data-dir", broker.data_dir)
    assert "listeners.tls_key" in said
    assert "is it PEM?" in said
    assert s_client(broker).returncode == 0
    broker.network.server.key.write_bytes(key)


# Clients that mean no good, or hang


def dialled(broker: TlsBroker) -> tuple[socket.socket, TlsClient]:
    """Connected; nothing is said yet."""
    client = TlsClient(broker.network.client_context())
    client.shake_hands()
    return socket.create_connection(("127.0.0.1", broker.tls_port), timeout=TIMEOUT_S), client


def test_handshakes_that_never_end_keep_nobody_out(broker: TlsBroker) -> None:
    bystanders = Bystanders(broker.port, "handshakes")
    stuck = []
    for number in range(100):
        connection, client = dialled(broker)
        hello = client.sent()
        connection.sendall(hello[: 1 + number * (len(hello) - 2) // 100])
        stuck.append(connection)
        bystanders.exchange()
    connection, client = dialled(broker)
    connection.sendall(client.sent())
    while not client.shake_hands(connection.recv(10_000)):
        pass
    connection.sendall(client.sent() + client.says(encode(connect_packet("late"), MQTT_5)))
    heard = b""
    while not heard:
        heard = client.hears(connection.recv(10_000))
    assert heard[0] == 0x20
    bystanders.exchange()
    for each in (*stuck, connection):
        each.close()
    bystanders.close()


def test_who_floods_and_reads_nothing_is_not_read_from(broker: TlsBroker) -> None:
    """Its answers are bounded, as without TLS."""
    bystanders = Bystanders(broker.port, "flood")
    connection, client = dialled(broker)
    connection.sendall(client.sent())
    while not client.shake_hands(connection.recv(10_000)):
        pass
    connection.sendall(client.sent() + client.says(encode(connect_packet("flood"), MQTT_5)))
    connection.settimeout(1)
    before = broker.resident_bytes()
    pings = b"\xc0\0" * 8000

    def flood() -> None:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            connection.sendall(client.says(pings))

    with pytest.raises(TimeoutError):
        flood()
    bystanders.exchange()
    assert broker.resident_bytes() - before < 40 << 20
    connection.close()
    bystanders.close()


def test_a_record_for_each_byte_holds_up_nobody(broker: TlsBroker) -> None:
    bystanders = Bystanders(broker.port, "records")
    connection, client = dialled(broker)
    connection.sendall(client.sent())
    while not client.shake_hands(connection.recv(10_000)):
        pass
    connection.sendall(client.sent() + client.says(encode(connect_packet("records"), MQTT_5)))
    small = encode(Publish("t", b"", 0, False, False, 0), MQTT_5)
    for _ in range(20):
        connection.sendall(b"".join(client.says(bytes((byte,))) for byte in small * 50))
        bystanders.exchange()
    connection.close()
    bystanders.close()


@needs_mosquitto
def test_the_user_of_a_certificate_needs_no_password_and_a_stranger_gets_nothing(
    tmp_path: Path,
) -> None:
    asked = {
        "tls_client_ca": str(tmp_path / "ca.crt"),
        "tls_client_certificates": "optional",
    }
    with TlsBroker(tmp_path, asked) as broker:
        succeed(
            *("user", "add", "kitchen", "--password-stdin", "--data-dir", broker.data_dir),
            stdin=b"a long password\n",
        )
        publish = ["-t", "t", "-m", "x", "-q", "1", "-V", "mqttv5"]
        known, unknown = broker.network.client("kitchen"), broker.network.client("stranger")
        assert mosquitto("mosquitto_pub", broker, *publish, shown=known).returncode == 0
        assert mosquitto("mosquitto_pub", broker, *publish, shown=unknown).returncode != 0
        assert mosquitto("mosquitto_pub", broker, *publish).returncode != 0
        login = ["-u", "kitchen", "-P", "a long password"]
        assert mosquitto("mosquitto_pub", broker, *publish, *login).returncode == 0
        assert len(broker.query("SELECT 1 FROM history WHERE topic = 't'")) == 2
