"""The line protocol: through `nc`, and by small clients that write as nobody should."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
from collections.abc import Iterator

import pytest

from broker.mqtt.packets import Ack, Publish
from tests.support.broker_process import BrokerProcess, wait_until
from tests.support.line_socket import TIMEOUT_S, LineSocket
from tests.support.raw_client import RawClient, connect_packet

MIB = 1024 * 1024

needs_nc = pytest.mark.skipif(shutil.which("nc") is None, reason="needs nc (netcat-openbsd)")


@pytest.fixture
def lines(broker: BrokerProcess) -> Iterator[LineSocket]:
    with LineSocket(broker.port) as lines:
        yield lines


@pytest.fixture
def others(broker: BrokerProcess) -> Iterator[LineSocket]:
    """A second connection."""
    with LineSocket(broker.port) as lines:
        yield lines


@needs_nc
def test_through_nc(broker: BrokerProcess, name: str) -> None:
    command = ["nc", "127.0.0.1", str(broker.port)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    ) as subscriber:
        assert subscriber.stdin is not None
        assert subscriber.stdout is not None
        subscriber.stdin.write(f"CONFIRM\nSUBSCRIBE {name} {name}-sub\n")
        assert [subscriber.stdout.readline() for _ in range(2)] == ["OK\n", "OK\n"]
        published = subprocess.run(
            [*command, "-N"],
            input=f"CONFIRM\nPUBLISH {name} Rainy day ahead! pub1\nPUBLISH {name} Sunny pub1\n",
            capture_output=True,
            timeout=TIMEOUT_S,
            text=True,
            check=True,
        )
        assert published.stdout == "OK\nOK\nOK\n"
        time_pattern = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\n"
        for said in (f"DELIVER {name} Rainy day ahead! pub1 ", f"DELIVER {name} Sunny pub1 "):
            assert re.fullmatch(re.escape(said) + time_pattern, subscriber.stdout.readline())
        subscriber.terminate()


def test_several_commands_in_one_write(lines: LineSocket, name: str) -> None:
    lines.write(
        f"SUBSCRIBE {name} {name}\nPUBLISH {name} one p\nPUBLISH {name} two p\n"
        f"UNSUBSCRIBE {name} {name}\nPUBLISH {name} three p\nPUBL"
    )
    read = [lines.read() for _ in range(5)]
    # A message may come before or after the answers to those who published it.
    while len([line for line in read if line == "OK"]) < 5:
        read.append(lines.read())
    lines.write(f"ISH {name} four p\n")
    while (line := lines.read()) != "OK":
        read.append(line)
    delivered = [line for line in read if line != "OK"]
    assert not any("three" in line or "four" in line for line in delivered)


def test_one_command_in_several_writes(lines: LineSocket, others: LineSocket, name: str) -> None:
    assert lines.ask(f"SUBSCRIBE {name} {name}") == "OK"
    for character in f"PUBLISH {name} Grüße p":
        for byte in character.encode():
            others.socket.sendall(bytes((byte,)))
    others.write("\r\n")
    assert others.read() == "OK"
    assert lines.delivered() == f"{name} Grüße p"


@pytest.mark.parametrize("message", ["Rainy day ahead!", "  two  spaces  ", " ", "", "\\n", "a\tb"])
def test_the_message_is_kept(
    lines: LineSocket, others: LineSocket, name: str, message: str
) -> None:
    assert lines.ask(f"SUBSCRIBE {name} {name}") == "OK"
    assert others.ask(f"PUBLISH {name} {message} p") == "OK"
    assert lines.delivered() == f"{name} {message} p"


def test_several_subscribers_on_one_connection(
    lines: LineSocket, others: LineSocket, name: str
) -> None:
    for filter, subscriber in ((f"{name}/a", "1"), (f"{name}/a", "2"), (f"{name}/b", "2")):
        assert lines.ask(f"SUBSCRIBE {filter} {name}-{subscriber}") == "OK"
    assert others.ask(f"PUBLISH {name}/a x p") == "OK"
    assert others.ask(f"PUBLISH {name}/b y p") == "OK"
    delivered = sorted(lines.delivered() for _ in range(3))
    assert delivered == [f"{name}/a x p", f"{name}/a x p", f"{name}/b y p"]
    assert lines.ask(f"UNSUBSCRIBE {name}/a {name}-1") == "OK"
    assert others.ask(f"PUBLISH {name}/a z p") == "OK"
    assert others.ask(f"PUBLISH {name}/b end p") == "OK"
    assert [lines.delivered(), lines.delivered()] == [f"{name}/a z p", f"{name}/b end p"]


def test_wildcards(lines: LineSocket, others: LineSocket, name: str) -> None:
    assert lines.ask(f"SUBSCRIBE {name}/+/x {name}") == "OK"
    assert lines.ask(f"SUBSCRIBE {name}/a/# {name}") == "OK"
    for topic in ("b/y", "b/x", "a", "a/x", "c/x"):
        assert others.ask(f"PUBLISH {name}/{topic} m p") == "OK"
    delivered = [lines.delivered() for _ in range(4)]
    assert delivered == [f"{name}/{topic} m p" for topic in ("b/x", "a", "a/x", "c/x")]


def test_what_was_missed_comes_after_the_return(
    broker: BrokerProcess, lines: LineSocket, name: str
) -> None:
    with LineSocket(broker.port) as first:
        assert first.ask(f"SUBSCRIBE {name} {name}") == "OK"
        assert lines.ask(f"PUBLISH {name} live p") == "OK"
        assert first.delivered() == f"{name} live p"
    sent = [f"{name} {number} p" for number in range(1000)]
    lines.write("".join(f"PUBLISH {message}\n" for message in sent))
    assert [lines.read() for _ in sent] == ["OK"] * len(sent)
    with LineSocket(broker.port) as back:
        back.write(f"SUBSCRIBE {name} {name}\n")
        read = [back.read() for _ in range(len(sent) + 1)]
        read.remove("OK")
        assert [line.removeprefix("DELIVER ").rsplit(" ", 2)[0] for line in read] == sent


def test_what_is_delivered_to_whom_has_hung_up_is_delivered_again(
    broker: BrokerProcess, lines: LineSocket, name: str
) -> None:
    with LineSocket(broker.port) as first:
        assert first.ask(f"SUBSCRIBE {name} {name}") == "OK"
    assert lines.ask(f"PUBLISH {name} missed p") == "OK"
    with LineSocket(broker.port) as hasty:
        # Its line and its end come together.
        hasty.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
        hasty.write(f"SUBSCRIBE {name} {name}\n")
    with LineSocket(broker.port) as back:
        back.write(f"SUBSCRIBE {name} {name}\n")
        assert sorted(back.read().split(" ")[0] for _ in range(2)) == ["DELIVER", "OK"]


def test_another_connection_takes_the_subscriber_over(
    broker: BrokerProcess, lines: LineSocket, others: LineSocket, name: str
) -> None:
    assert lines.ask(f"SUBSCRIBE {name} {name}-moves") == "OK"
    assert lines.ask(f"SUBSCRIBE {name} {name}-stays") == "OK"
    assert others.ask(f"SUBSCRIBE {name} {name}-moves") == "OK"
    with LineSocket(broker.port) as publisher:
        assert publisher.ask(f"PUBLISH {name} once p") == "OK"
        assert publisher.ask(f"PUBLISH {name} end p") == "OK"
    for connection in (lines, others):
        assert connection.delivered() == f"{name} once p"
        assert connection.delivered() == f"{name} end p"


def test_replay(lines: LineSocket, others: LineSocket, name: str) -> None:
    for number in range(3):
        assert others.ask(f"PUBLISH {name} {number} p") == "OK"
    lines.write(f"SUBSCRIBE $replay/-2/{name} {name}\n")
    read = [lines.read() for _ in range(3)]
    read.remove("OK")
    assert [line.rsplit(" ", 2)[0] for line in read] == [f"DELIVER {name} {n} p" for n in (1, 2)]
    assert others.ask(f"PUBLISH {name} live p") == "OK"
    assert lines.delivered() == f"{name} live p"
    assert lines.ask(f"SUBSCRIBE $replay/-2/{name} {name}") == "OK"
    assert lines.ask(f"UNSUBSCRIBE $replay/-2/{name} {name}") == "OK"
    assert others.ask(f"PUBLISH {name} after p") == "OK"
    assert lines.ask(f"SUBSCRIBE {name}/end {name}") == "OK"


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ("DELIVER a b c", "unknown command"),
        ("PUBLISH", "PUBLISH takes"),
        ("PUBLISH weather", "PUBLISH takes"),
        ("PUBLISH weather Rainy", "PUBLISH takes"),
        ("PUBLISH weather/# Rainy pub1", "wildcard"),
        ("PUBLISH weather/\0 Rainy pub1", "NUL"),
        ("SUBSCRIBE weather", "SUBSCRIBE takes"),
        ("SUBSCRIBE weather sub 1", "SUBSCRIBE takes"),
        ("SUBSCRIBE a/#/b sub1", "#"),
        ("SUBSCRIBE $share/group/a sub1", "shared"),
        ("SUBSCRIBE a $share/group/a", "groups"),
        ("SUBSCRIBE $replay/yesterday/a sub1", "replay spec"),
        ("SUBSCRIBE $replay/earliest/$share/group/a sub1", "Shared"),
        ("UNSUBSCRIBE a+ sub1", "+"),
    ],
)
def test_an_error_does_not_end_the_connection(
    lines: LineSocket, name: str, bad: str, says: str
) -> None:
    answer = lines.ask(bad)
    assert answer.startswith("ERROR ")
    assert says in answer
    assert lines.ask(f"PUBLISH {name} still here p") == "OK"


def test_answers_keep_the_order_of_their_commands(lines: LineSocket, name: str) -> None:
    lines.write(f"PUBLISH {name} a p\nHELLO\nSUBSCRIBE x/{name} {name}\n\nPUBLISH {name} b p\n")
    answers = [lines.read() for _ in range(4)]
    assert [answer.partition(" ")[0] for answer in answers] == ["OK", "ERROR", "OK", "OK"]


def test_not_utf_8(lines: LineSocket, name: str) -> None:
    lines.socket.sendall(b"PUBLISH a \xff\xfe p\n")
    assert lines.read() == "ERROR line is not valid UTF-8"
    assert lines.ask(f"PUBLISH {name} still here p") == "OK"


def test_a_line_over_the_limit_is_refused_and_skipped(lines: LineSocket, name: str) -> None:
    lines.write(f"PUBLISH {name} {'x' * 3 * MIB} p\nPUBLISH {name} next p\n")
    assert lines.read().startswith("ERROR line is too long")
    assert lines.read() == "OK"


def test_a_mebibyte(lines: LineSocket, others: LineSocket, name: str) -> None:
    assert lines.ask(f"SUBSCRIBE {name} {name}") == "OK"
    message = "0123456789abcdef" * (MIB // 16)
    assert others.ask(f"PUBLISH {name} {message} p") == "OK"
    assert lines.delivered() == f"{name} {message} p"


def test_from_lines_to_mqtt(broker: BrokerProcess, lines: LineSocket, name: str) -> None:
    for version in (4, 5):
        with RawClient(broker.port, version) as mqtt:
            mqtt.connect(connect_packet(f"{name}-{version}", version=version))
            mqtt.subscribe(name, 2)
            assert lines.ask(f"PUBLISH {name} Rainy day pub1") == "OK"
            publish = mqtt.expect(Publish)
            assert (publish.topic, publish.payload, publish.qos) == (name, b"Rainy day", 1)


def test_from_mqtt_to_lines(broker: BrokerProcess, lines: LineSocket, name: str) -> None:
    """What a line cannot carry is escaped."""
    assert lines.ask(f"SUBSCRIBE {name}/# {name}") == "OK"
    with RawClient(broker.port) as mqtt:
        mqtt.connect(connect_packet(f"{name} pub"))
        for qos, (topic, payload) in enumerate(
            (("a", b"Rainy day"), ("b", b"two\nlines \\"), ("with space", b"\xff"))
        ):
            mqtt.send(Publish(f"{name}/{topic}", payload, qos, False, False, qos))
            if qos:
                mqtt.expect(Ack)
    assert lines.delivered() == f"{name}/a Rainy day {name}\\x20pub"
    assert lines.delivered() == f"{name}/b two\\nlines \\\\ {name}\\x20pub"
    assert lines.delivered() == f"{name}/with\\x20space \\xff {name}\\x20pub"


def test_a_retained_message_comes_with_the_subscription(
    broker: BrokerProcess, lines: LineSocket, name: str
) -> None:
    with RawClient(broker.port) as mqtt:
        mqtt.connect(connect_packet(name))
        mqtt.send(Publish(name, b"retained", 1, True, False, 1))
        mqtt.expect(Ack)
    lines.write(f"SUBSCRIBE {name} {name}-sub\n")
    assert {lines.read().rsplit(" ", 2)[0] for _ in range(2)} == {
        "OK",
        f"DELIVER {name} retained {name}",
    }


def test_ok_means_that_it_is_committed(broker: BrokerProcess, lines: LineSocket, name: str) -> None:
    for number in range(20):
        assert lines.ask(f"PUBLISH {name} {number} p") == "OK"
        [(payload,)] = broker.query(
            "SELECT payload FROM history WHERE topic = ? ORDER BY offset DESC LIMIT 1", name
        )
        assert payload == b"%d" % number


def test_a_kill_between_ok_and_delivery(own_broker: BrokerProcess, name: str) -> None:
    with LineSocket(own_broker.port) as subscriber:
        assert subscriber.ask(f"SUBSCRIBE {name} {name}") == "OK"
    with LineSocket(own_broker.port) as publisher:
        assert publisher.ask(f"PUBLISH {name} one p") == "OK"
        assert publisher.ask(f"PUBLISH {name} two p") == "OK"
        own_broker.kill()
        assert publisher.read() == ""
    own_broker.start()
    with LineSocket(own_broker.port) as subscriber:
        subscriber.write(f"SUBSCRIBE {name} {name}\n")
        read = [subscriber.read() for _ in range(3)]
        read.remove("OK")
        assert [line.rsplit(" ", 2)[0] for line in read] == [
            f"DELIVER {name} one p",
            f"DELIVER {name} two p",
        ]


def test_who_ends_its_side_is_delivered_to_until_it_closes(
    broker: BrokerProcess, name: str
) -> None:
    """As `printf 'SUBSCRIBE ...' | nc -N` does. What comes after that is kept for the next."""
    with LineSocket(broker.port) as publisher:
        with LineSocket(broker.port, confirm=False) as subscriber:
            subscriber.write(f"SUBSCRIBE {name} {name}\n")
            subscriber.socket.shutdown(socket.SHUT_WR)
            there = "SELECT 1 FROM subscriptions WHERE client_id = ?"
            wait_until(lambda: bool(broker.query(there, name)))
            assert publisher.ask(f"PUBLISH {name} 1 p") == "OK"
            assert subscriber.delivered() == f"{name} 1 p"
            offset = (
                "SELECT c.offset = max(m.offset) FROM cursors c, messages m WHERE client_id = ?"
            )
            wait_until(lambda: broker.query(offset, name) == [(1,)])
        assert publisher.ask(f"PUBLISH {name} 2 p") == "OK"
        assert publisher.ask(f"PUBLISH {name} 3 p") == "OK"
    with LineSocket(broker.port, confirm=False) as subscriber:
        subscriber.write(f"SUBSCRIBE {name} {name}\n")
        assert [subscriber.delivered() for _ in range(2)] == [f"{name} 2 p", f"{name} 3 p"]
