"""`pubsub bench` on a broker that does what the test says: loses, repeats, refuses, goes away."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from cli.bench.measurement import Options, measure
from cli.bench.packets import text
from cli.bench.report import report
from cli.net.address import Address
from cli.terminal.failure import CommandFailed, Exit

Deliver = Callable[[int, bytes], list[bytes]]
"""From the number of a PUBLISH, and it, to what the subscriber gets."""


class FaultyBroker:
    """One publisher, one subscriber, QoS 1. Serves each connection in a thread of its own."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = Address(port=self._listener.getsockname()[1])
        self.return_code = 0
        self.granted = 1
        self.deliver: Deliver = lambda number, publish: [publish]
        self.acknowledge = True
        self.connects: list[tuple[str, int]] = []
        """Client identifier and connect flags."""
        self._subscriber: socket.socket | None = None
        self._waiting = b""
        self._published = 0
        self._thread = threading.Thread(target=self._accept)
        self._thread.start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()

    def _accept(self) -> None:
        threads = []
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                break
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threads.append(threading.Thread(target=self._serve, args=[connection]))
            threads[-1].start()
        for thread in threads:
            thread.join()

    def _serve(self, connection: socket.socket) -> None:
        gone = contextlib.suppress(ConnectionError)
        with gone, connection, connection.makefile("rb") as stream:
            while header := stream.read(1):
                length = shift = 0
                while True:
                    digit = stream.read(1)[0]
                    length |= (digit & 0x7F) << shift
                    shift += 7
                    if digit < 0x80:
                        break
                body = stream.read(length)
                if not self._receive(connection, header[0], length, body):
                    return

    def _receive(self, connection: socket.socket, header: int, length: int, body: bytes) -> bool:
        match header:
            case 0x10:
                name = body[12 : 12 + body[11]].decode()
                resumed = (name, 0) in self.connects and not body[7] & 2
                self.connects.append((name, body[7]))
                connection.sendall(bytes((0x20, 2, resumed, self.return_code)))
                if resumed:
                    self._subscriber = connection
                    connection.sendall(self._waiting)
            case 0x82:
                self._subscriber = connection
                connection.sendall(b"\x90\x03" + body[:2] + bytes((self.granted,)))
            case 0x32:
                for publish in self.deliver(self._published, bytes((header, length)) + body):
                    if not publish:
                        return False
                    try:
                        assert self._subscriber is not None
                        self._subscriber.sendall(publish)
                    except OSError:
                        self._waiting += publish
                self._published += 1
                if self.acknowledge:
                    at = 2 + body[1]
                    connection.sendall(b"\x40\x02" + body[at : at + 2])
            case 0xE0:
                return False
        return True


@pytest.fixture
def broker() -> Iterator[FaultyBroker]:
    broker = FaultyBroker()
    yield broker
    broker.close()


@pytest.fixture
def options(broker: FaultyBroker) -> Options:
    return Options(
        address=broker.address,
        client_id="b",
        topic="t",
        qos=1,
        size_bytes=20,
        publishers=1,
        subscribers=1,
        window=20,
        rate_per_s=0,
        messages=100,
        seconds=None,
        backlog=False,
        json=True,
    )


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """For what never comes: no need to wait long for it."""
    monkeypatch.setattr("cli.bench.measurement.TICK_S", 0.02)
    monkeypatch.setattr("cli.bench.measurement.STALL_S", 0.2)


def measured(options: Options, capsysbinary: pytest.CaptureFixture[bytes]) -> Any:
    report(measure(options))
    return json.loads(capsysbinary.readouterr().out)


def measured_before_it_failed(
    options: Options, code: Exit, says: str, capsysbinary: pytest.CaptureFixture[bytes]
) -> Any:
    with pytest.raises(CommandFailed, match=says) as failed:
        report(measure(options))
    assert failed.value.code is code
    return json.loads(capsysbinary.readouterr().out)


@pytest.mark.parametrize("rate_per_s", [0, 20_000])
def test_every_message_is_counted(
    options: Options, rate_per_s: int, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    result = measured(replace(options, rate_per_s=rate_per_s), capsysbinary)
    assert result["problems"] == []
    for kind in ("sent", "acked", "delivered"):
        assert result[f"{kind}_messages"] == 100
        assert result[f"{kind}_per_s"] > 0
    for kind in ("latency", "ack_latency"):
        latency = result[f"{kind}_ms"]
        assert list(latency) == ["p50", "p90", "p99", "p99.9", "max"]
        assert list(latency.values()) == sorted(latency.values())
        assert sum(row["messages"] for row in result[f"{kind}_histogram"]) == 100


@pytest.mark.parametrize("lost", [{0}, {5, 6, 50}, {99}, set(range(100))])
@pytest.mark.usefixtures("impatient")
def test_what_is_lost_is_counted_wherever_it_was(
    broker: FaultyBroker,
    options: Options,
    lost: set[int],
    capsysbinary: pytest.CaptureFixture[bytes],
) -> None:
    broker.deliver = lambda number, publish: [] if number in lost else [publish]
    options = replace(options, window=200)
    says = f"^{len(lost)} of 100 deliveries lost; "
    result = measured_before_it_failed(options, Exit.FAILED, says, capsysbinary)
    assert (result["lost_messages"], result["delivered_messages"]) == (len(lost), 100 - len(lost))
    assert (result["acked_messages"], result["misplaced_messages"]) == (100, 0)


@pytest.mark.usefixtures("impatient")
def test_a_repeated_message_hides_no_lost_one(
    broker: FaultyBroker, options: Options, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    broker.deliver = lambda number, publish: {7: [], 50: [publish] * 2}.get(number, [publish])
    says = "1 of 100 deliveries lost; 1 message repeated or out of order"
    result = measured_before_it_failed(options, Exit.FAILED, says, capsysbinary)
    assert (result["lost_messages"], result["misplaced_messages"]) == (1, 1)


def test_a_repeated_message_behind_the_last_one_is_seen(
    broker: FaultyBroker, options: Options, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    broker.deliver = lambda number, publish: [publish] * (2 if number == 99 else 1)
    result = measured_before_it_failed(options, Exit.FAILED, "repeated", capsysbinary)
    assert (result["lost_messages"], result["misplaced_messages"]) == (0, 1)


def test_messages_out_of_order_are_seen(
    broker: FaultyBroker, options: Options, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    held: list[bytes] = []

    def exchange(number: int, publish: bytes) -> list[bytes]:
        if number == 40:
            held.append(publish)
            return []
        return [publish, *held] if number == 41 else [publish]

    broker.deliver = exchange
    result = measured_before_it_failed(options, Exit.FAILED, "out of order", capsysbinary)
    assert (result["delivered_messages"], result["misplaced_messages"]) == (100, 1)


@pytest.mark.usefixtures("impatient")
def test_what_is_not_acknowledged_is_counted(
    broker: FaultyBroker, options: Options, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    broker.acknowledge = False
    says = "20 of 20 messages not acknowledged"
    result = measured_before_it_failed(options, Exit.FAILED, says, capsysbinary)
    assert (result["sent_messages"], result["delivered_messages"]) == (20, 20)


def test_when_the_broker_goes_away_there_is_a_result_of_what_was_before(
    broker: FaultyBroker, options: Options, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    broker.deliver = lambda number, publish: [b""] if number == 60 else [publish]
    result = measured_before_it_failed(options, Exit.UNREACHABLE, "connection lost", capsysbinary)
    assert 40 <= result["acked_messages"] <= 60
    assert result["lost_messages"] == 0  # what is under way then is not known to be lost


def test_ctrl_c_ends_it_early_and_loses_nothing(
    broker: FaultyBroker, options: Options, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    def interrupt(number: int, publish: bytes) -> list[bytes]:
        if number == 1000:
            os.kill(os.getpid(), signal.SIGINT)
        return [publish]

    broker.deliver = interrupt
    result = measured(replace(options, messages=None, seconds=600.0), capsysbinary)
    assert result["problems"] == []
    assert result["delivered_messages"] == result["sent_messages"] > 1000
    assert result["publishing_s"] < 600


def test_a_backlog_is_delivered_after_it_was_published_and_leaves_no_session(
    broker: FaultyBroker, options: Options, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    result = measured(replace(options, backlog=True), capsysbinary)
    assert (result["delivered_messages"], result["problems"]) == (100, [])
    assert result["latency_ms"] is None
    resumed, clean = 0, 2
    assert broker.connects == [
        ("b-sub0", resumed),
        ("b-pub0", clean),
        ("b-sub0", resumed),
        ("b-sub0", clean),
    ]


@pytest.mark.parametrize(
    ("return_code", "code", "says"),
    [
        (4, Exit.NOT_AUTHORIZED, "user name or password; no user name was given: use -u"),
        (5, Exit.NOT_AUTHORIZED, "Not authorized"),
        (3, 1, ""),
    ],
)
def test_a_refused_connection(
    broker: FaultyBroker, options: Options, return_code: int, code: int, says: str
) -> None:
    broker.return_code = return_code
    with pytest.raises(CommandFailed, match=f"refused the connection.*{says}") as failed:
        measure(options)
    assert failed.value.code == code


def test_a_refused_subscription(broker: FaultyBroker, options: Options) -> None:
    broker.granted = 0x80
    says = "refuses to subscribe to t; anonymous needs the right to subscribe t"
    with pytest.raises(CommandFailed, match=says) as failed:
        measure(options)
    assert failed.value.code is Exit.NOT_AUTHORIZED


def test_another_benchmark_on_the_same_topic_is_told_from_a_loss(
    broker: FaultyBroker, options: Options, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    def foreign(number: int, publish: bytes) -> list[bytes]:
        body = text("t") + b"\0\1" + struct.pack(">HII", 1, 0, 0) + b"x" * 10
        return [publish, bytes((0x32, len(body))) + body]

    broker.deliver = foreign
    measured_before_it_failed(options, Exit.FAILED, "another benchmark", capsysbinary)


def test_what_would_not_fit_into_memory_is_refused(options: Options) -> None:
    with pytest.raises(CommandFailed, match="--window") as failed:
        measure(replace(options, publishers=10, window=1000, size_bytes=1 << 20))
    assert failed.value.code is Exit.USAGE
