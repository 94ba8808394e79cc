"""What is secret is nowhere to be read: a run with all kinds of errors, and then a search."""

from __future__ import annotations

import http.client
import re
import socket
import stat
from pathlib import Path

import pytest

from broker.config import ADMIN_SOCKET
from broker.mqtt.encode import encode
from broker.mqtt.packets import MQTT_3_1_1, MQTT_5, Connect, Publish, Will
from tests.support.broker_process import BrokerProcess
from tests.support.command_line import Running, pubsub

MARKER = b"marker-7c1f9e"
"""Is part of every payload, password and token below."""


def say(port: int, *blocks: bytes) -> None:
    """Send them, each after what the broker says to the one before; then be gone."""
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        connection.settimeout(0.2)
        for block in blocks:
            try:
                connection.sendall(block)
                connection.recv(65_536)
            except OSError:
                continue  # It is silent, or has closed: both are answers.


def mangled(block: bytes) -> list[bytes]:
    """Cut short, with another length, and with a bit turned at each of its first places."""
    found = [block[:-1], block[: len(block) // 2], block[:1] + b"\x05" + block[2:]]
    return [
        *found,
        *(block[:at] + bytes([block[at] ^ 0x41]) + block[at + 1 :] for at in range(1, 14)),
    ]


@pytest.fixture
def secretive(tmp_path: Path) -> BrokerProcess:
    return BrokerProcess(tmp_path, {"log_level": "debug", "packet_bytes_max": 1000})


def test_no_payload_password_or_token_is_in_the_diagnostics(secretive: BrokerProcess) -> None:
    publish = Publish("t", MARKER, 1, False, False, 1)
    will = Will("w", MARKER, 0, retain=False)
    with secretive as broker:
        for version in (MQTT_3_1_1, MQTT_5):
            as_ann = Connect(version, "a", True, 60, username="ann", password=MARKER)
            connect = encode(as_ann, version)
            with_will = encode(Connect(version, "b", True, 60, will), version)
            packet = encode(publish, version)
            for block in (connect, with_will):
                for wrong in mangled(block):
                    say(broker.port, wrong)
            for wrong in [
                *mangled(packet),
                packet * 3,
                MARKER * 20,
                b"\x30\xff\xff\xff\x7f" + MARKER,
            ]:
                say(broker.port, connect, wrong)
            for topic in ("$SYS/a", "a/#", "$delayed/x/a", "$dead/a"):
                refused = Publish(topic, MARKER, 1, False, False, 1)
                say(broker.port, connect, encode(refused, version))
            large = encode(Publish("t", MARKER * 100, 1, False, False, 1), version)
            say(broker.port, connect, large)
            say(broker.port, with_will)
        for line in (
            b"LOGIN ann %s",
            b"LOGIN %s",
            b"PUBLISH t %s",
            b"PUBLISH t/# %s p",
            b"PUBLISH t %s p",
        ):
            say(broker.port, line % MARKER + b"\n", b"\xff" + MARKER + b"\n")
        say(broker.port, b"GET /mqtt HTTP/1.1\r\nAuthorization: Basic " + MARKER + b"\r\n\r\n")
        say(broker.port, b"GET /mqtt HTTP/1.1\r\n" + MARKER)
        for path in ("/users", "/users/passwd", "/acl", "/none"):
            administer(broker.data_dir / ADMIN_SOCKET, path)
        broker.stop()
    said = broker.stderr.read_bytes()
    assert len(said) > 10_000, "the errors were told"
    assert MARKER not in said, re.findall(rb".*" + MARKER + rb".*", said)[:3]


def administer(path: Path, request: str) -> None:
    with socket.socket(socket.AF_UNIX) as connected:
        connected.connect(str(path))
        connection = http.client.HTTPConnection("broker")
        connection.sock = connected
        connection.request("POST", request, b'{"password": "%s"' % MARKER)
        connection.getresponse().read()


def test_no_password_is_in_what_the_commands_say_or_what_ps_shows(
    secretive: BrokerProcess, tmp_path: Path
) -> None:
    secret = MARKER.decode()
    with secretive as broker:
        at = f"127.0.0.1:{broker.port}"
        for arguments in (
            ("pub", "-L", f"mqtt://ann:{secret}@{at}", "t", "x", "-d"),
            ("pub", "-L", f"mqtt://ann:{secret}@{at}/a/#", "x"),
            ("pub", "-L", f"mqtts://ann:{secret}@{at}", "t", "x"),
            ("pub", "-L", f"what://ann:{secret}@{at}", "t", "x"),
            ("sub", "-p", "1", "-u", "ann", "-P", secret, "t"),
            ("bench", "-L", f"mqtt://ann:{secret}@127.0.0.1:1"),
        ):
            done = pubsub(*arguments)
            assert MARKER not in done.stdout + done.stderr, arguments
        sub = Running(tmp_path, "sub", "-p", str(broker.port), "-u", "ann", "-P", secret, "t")
        try:
            sub.wait_said("subscribed")
            shown = Path(f"/proc/{sub.process.pid}/cmdline")
            if shown.exists():
                assert MARKER not in shown.read_bytes()
        finally:
            sub.process.kill()
            sub.process.wait()


def test_what_it_keeps_is_for_its_owner_alone(secretive: BrokerProcess, tmp_path: Path) -> None:
    with secretive as broker:
        pubsub("pub", "-p", str(broker.port), "t", "x")
        pubsub("backup", tmp_path / "copy.db", "--data-dir", broker.data_dir)
        files = [*broker.data_dir.iterdir(), tmp_path / "copy.db"]
        modes = {one.name: stat.S_IMODE(one.stat().st_mode) for one in files}
        assert {"pubsub.db", "pubsub.db-wal", ADMIN_SOCKET, "copy.db"} <= modes.keys()
        assert set(modes.values()) == {0o600}, modes
        assert stat.S_IMODE(broker.data_dir.stat().st_mode) == 0o700
