"""The line protocol's first clients, written from their description, work as they are.

Their subscriber prints every line that it receives; their publisher never reads a byte.
"""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import time

import pytest

from tests.support.broker_process import BrokerProcess, wait_until
from tests.support.line_socket import LineSocket

SUBSCRIBER = """
import socket, sys
with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as broker:
    broker.sendall(f"SUBSCRIBE {sys.argv[2]} {sys.argv[3]}\\n".encode())
    print("subscribed", flush=True)
    for line in broker.makefile():
        print(f">> {line}", end="", flush=True)
"""
MANY = 300_000
MANY_TIMEOUT_S = 60.0


class NeverReads:
    """A publisher whose kernel has room for hardly an answer."""

    def __init__(self, port: int) -> None:
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        self.socket.settimeout(MANY_TIMEOUT_S)
        self.socket.connect(("127.0.0.1", port))

    def __enter__(self) -> NeverReads:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def write(self, line: str, count: int) -> None:
        """Raises TimeoutError: the broker stopped reading."""
        started = time.monotonic()
        lines = f"{line}\n".encode() * 1000
        for _ in range(count // 1000):
            self.socket.sendall(lines)
        assert time.monotonic() - started < MANY_TIMEOUT_S


def test_the_subscriber_sees_what_was_published_and_nothing_else(
    broker: BrokerProcess, name: str
) -> None:
    command = [sys.executable, "-c", SUBSCRIBER, str(broker.port), name, f"{name}-sub"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as subscriber:
        assert subscriber.stdout is not None
        assert subscriber.stdout.readline() == "subscribed\n"
        subscriptions = "SELECT subscriptions FROM subscribers WHERE client_id = ?"
        wait_until(lambda: broker.query(subscriptions, f"{name}-sub") == [(1,)])
        with LineSocket(broker.port, confirm=False) as publisher:
            publisher.write(f"PUBLISH {name} Rainy day ahead! pub1\nPUBLISH {name} Sunny pub1\n")
            for message in ("Rainy day ahead!", "Sunny"):
                line = subscriber.stdout.readline()
                assert line.startswith(f">> DELIVER {name} {message} pub1 ")
                assert re.search(r" \d{4}-\d\d-\d\d \d\d:\d\d:\d\d\n$", line)
        subscriber.terminate()


@pytest.mark.parametrize("line", ["PUBLISH {} Rainy pub1", "PUBLISH {}"])
def test_a_publisher_that_never_reads_is_never_held_up(
    broker: BrokerProcess, name: str, line: str
) -> None:
    """Neither by answers, nor by errors."""
    with NeverReads(broker.port) as publisher:
        publisher.write(line.format(name), MANY)
        publisher.write(f"PUBLISH {name}/end x pub1", 1000)
        with LineSocket(broker.port) as watcher:
            watcher.write(f"SUBSCRIBE $replay/earliest/{name}/end {name}\n")
            ends = 0
            while ends < 1000:
                ends += watcher.read().startswith("DELIVER")
    assert broker.complaints() == []
