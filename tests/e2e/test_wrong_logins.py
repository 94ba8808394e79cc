"""Wrong logins: each is refused, a bystander does not notice, and the broker can be stopped."""

from __future__ import annotations

import os
import selectors
import socket
import statistics
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from broker.mqtt.encode import encode
from broker.mqtt.packets import MQTT_5, Ack, Connack, Connect, Publish
from tests.support.broker_process import BrokerProcess
from tests.support.command_line import succeed
from tests.support.raw_client import RawClient, connect_packet

LOGINS = int(os.environ.get("WRONG_LOGINS", "100"))
"""`WRONG_LOGINS=100000` for a night."""
AT_ONCE = 200
REFUSED = {0x86, 0x97}
"""Bad User Name or Password; too many at once."""
LATENCY_S_MAX = 1.0
"""Of a machine that does much else meanwhile. The median is some milliseconds."""

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="elsewhere this machine has one loopback address only"
)


def connect(name: str, password: bytes) -> Connect:
    return Connect(MQTT_5, name, True, 60, username=name, password=password)


class Attack:
    """From many addresses, so that no address has to wait and each password is looked at."""

    def __init__(self, port: int) -> None:
        self.answers: Counter[int] = Counter()
        """Reason Codes; -1: closed without one."""
        self._port = port
        self._selector = selectors.DefaultSelector()

    def run(self) -> None:
        begun = 0
        while begun < LOGINS or self._selector.get_map():
            while begun < LOGINS and len(self._selector.get_map()) < AT_ONCE:
                self._begin(begun)
                begun += 1
            for key, _ in self._selector.select(1.0):
                connection = key.fileobj
                assert isinstance(connection, socket.socket)
                answer = connection.recv(1000)
                self._selector.unregister(connection)
                connection.close()
                self.answers[answer[3] if len(answer) > 3 else -1] += 1

    def _begin(self, number: int) -> None:
        address = f"127.{1 + number // 60_000}.{number // 250 % 240}.{1 + number % 250}"
        connection = socket.create_connection(
            ("127.0.0.1", self._port), source_address=(address, 0)
        )
        name = "ann" if number % 2 else f"nobody{number}"
        connection.sendall(encode(connect(name, b"wrong"), MQTT_5))
        self._selector.register(connection, selectors.EVENT_READ)


def test_a_bystander_does_not_notice_them(tmp_path: Path) -> None:
    with BrokerProcess(tmp_path) as broker:
        add = ("user", "add", "ann", "--admin", "--password-stdin", "--data-dir", broker.data_dir)
        succeed(*add, stdin=b"secret\n")
        attack = Attack(broker.port)
        thread = threading.Thread(target=attack.run)
        latencies: list[float] = []
        with RawClient(broker.port) as bystander:
            connack = bystander.connect(connect("ann", b"secret"))
            assert isinstance(connack, Connack)
            assert connack.reason_code == 0
            thread.start()
            while thread.is_alive():
                began = time.monotonic()
                bystander.send(Publish("t", b"x", 1, False, False, 1))
                bystander.expect(Ack)
                latencies.append(time.monotonic() - began)
                thread.join(0.01)
        assert attack.answers.total() == LOGINS
        assert attack.answers.keys() <= REFUSED, attack.answers
        assert attack.answers[0x86] > 0
        print(
            f"{LOGINS} wrong logins: {dict(attack.answers)}; bystander: median"
            f" {1000 * statistics.median(latencies):.1f} ms, max {1000 * max(latencies):.1f} ms,"
            f" {len(latencies)} messages"
        )
        assert max(latencies) < LATENCY_S_MAX
        assert statistics.median(latencies) < LATENCY_S_MAX / 10


def test_the_broker_stops_while_logins_wait(tmp_path: Path) -> None:
    broker = BrokerProcess(tmp_path)
    add = ("user", "add", "ann", "--admin", "--password-stdin", "--data-dir", broker.data_dir)
    succeed(*add, stdin=b"secret\n")
    with broker:
        attackers = [RawClient(broker.port) for _ in range(AT_ONCE)]
        for number, attacker in enumerate(attackers):
            packet = connect_packet(f"attacker-{number}")
            packet.username, packet.password = f"user{number}", b"wrong"
            attacker.socket.sendall(encode(packet, MQTT_5))
        with RawClient(broker.port) as late:
            packet = connect_packet("late")
            packet.username, packet.password = "ann", b"secret"
            late.socket.sendall(encode(packet, MQTT_5))
            assert broker.stop() == 0
        for attacker in attackers:
            attacker.socket.close()
    told = broker.stderr.read_text()
    assert "Traceback" not in told
    assert "CRITICAL" not in told
