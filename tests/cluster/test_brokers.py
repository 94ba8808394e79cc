"""Two brokers in processes of their own on a log of three nodes, and clients that move."""

from __future__ import annotations

import asyncio
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from threading import Timer

import pytest

from broker.mqtt.packets import (
    Ack,
    Connect,
    Disconnect,
    PacketType,
    Publish,
    Suback,
    Subscribe,
    SubscriptionRequest,
    Will,
)
from broker.mqtt.reasons import ReasonCode
from broker.store.shared.access import Access
from broker.store.shared.jetstream import JetStreamLog, look
from cli.operate import cluster
from tests.support.broker_process import BrokerProcess, wait_until
from tests.support.nodes import Nodes, Pair, client_of
from tests.support.patience import PATIENCE_S
from tests.support.raw_client import RawClient, connect_packet

WILLS = 500
MESSAGES = 3000
AT_ONCE = 50


def logged(broker: BrokerProcess, topic: str) -> list[bytes]:
    """In the copy of this broker."""
    rows = broker.query("SELECT payload FROM history WHERE topic = ? ORDER BY offset", topic)
    return [bytes(payload) for (payload,) in rows]


def next_publish(client: RawClient) -> bytes:
    """Acknowledged."""
    packet = client.expect(Publish)
    client.send(Ack(PacketType.PUBACK, [packet.packet_id]))
    return packet.payload


def test_a_session_goes_where_its_client_goes(brokers: Pair) -> None:
    a, b = brokers
    with client_of(a) as first, client_of(b) as publisher:
        assert not first.connect(connect_packet("x", durable=True)).session_present
        first.subscribe("t", 1)
        publisher.connect(connect_packet("p"))
        publisher.publish_all("t", [b"1"])
        assert next_publish(first) == b"1"
        publisher.publish_all("t", [b"2"])
        assert first.expect(Publish).payload == b"2"
        with client_of(b) as second:  # Which the first one does not know.
            assert second.connect(connect_packet("x", durable=True)).session_present
            while (found := next_publish(second)) == b"1":
                pass  # Its acknowledgement was not stored yet. (P4)
            assert found == b"2"
            assert first.expect(Disconnect).reason_code == ReasonCode.SESSION_TAKEN_OVER
            assert first.closed()
            second.send(Disconnect())
        publisher.publish_all("t", [b"3"])
        with client_of(a) as back:
            assert back.connect(connect_packet("x", durable=True)).session_present
            assert next_publish(back) == b"3"


def test_qos_2_is_exactly_once_though_the_client_moves_in_between(brokers: Pair) -> None:
    a, b = brokers
    publish = Publish("once", b"1", 2, False, False, 7)
    for moves in (a, b), (b, a), (a, b):
        for broker in moves:
            with client_of(broker) as client:
                client.connect(connect_packet("x", durable=True))
                client.send(publish)
                assert client.expect(Ack).type == PacketType.PUBREC
    with client_of(a) as client:
        client.connect(connect_packet("x", durable=True))
        client.send(Ack(PacketType.PUBREL, [7]))
        assert client.expect(Ack).type == PacketType.PUBCOMP
    wait_until(lambda: logged(b, "once") == [b"1"], timeout_s=PATIENCE_S)
    assert logged(a, "once") == [b"1"]


def test_a_broker_that_dies_leaves_its_wills_once_and_its_sessions_free(brokers: Pair) -> None:
    a, b = brokers
    clients = [client_of(a) for _ in range(WILLS)]
    for number, client in enumerate(clients):
        will = Will("wills", b"%d" % number, 1, False, b"", None, 0)
        expiry_s = 3600 if number % 2 else None
        connect = Connect(5, f"x{number}", True, 60, will=will, session_expiry_s=expiry_s)
        client.connect(connect)
    a.kill()
    for client in clients:
        client.socket.close()
    with client_of(b) as moved:  # At once, when nobody knows yet that it is dead.
        assert moved.connect(connect_packet("x1", durable=True)).session_present
        expected = Counter(b"%d" % number for number in range(WILLS))
        wait_until(lambda: len(logged(b, "wills")) >= WILLS, timeout_s=PATIENCE_S)
        assert Counter(logged(b, "wills")) == expected
    a.start()
    assert Counter(logged(a, "wills")) == expected
    with client_of(a) as back:
        assert back.connect(connect_packet("x3", durable=True)).session_present


def test_a_broker_tells_how_many_live(brokers: Pair) -> None:
    a, b = brokers
    with client_of(b) as client:
        client.connect(connect_packet("x"))
        client.subscribe("$SYS/brokers/count", 0)
        while client.expect(Publish).payload != b"2":
            pass  # It has not heard of the other yet.
        a.kill()
        assert client.expect(Publish).payload == b"1"


def test_a_broker_that_was_taken_for_dead_ends(brokers: Pair) -> None:
    a, b = brokers
    with client_of(a) as client:
        client.connect(connect_packet("x", durable=True))
        with a.suspended():
            dead = "is taken for dead"
            wait_until(lambda: dead in b.stderr.read_text(), timeout_s=PATIENCE_S)
            with client_of(b) as moved:
                assert moved.connect(connect_packet("x", durable=True)).session_present
        packet = client.receive()
        assert packet is None or isinstance(packet, Disconnect)
    wait_until(lambda: "took this one for dead" in a.stderr.read_text(), timeout_s=PATIENCE_S)


def test_nothing_is_lost_while_the_leader_of_the_log_is_killed(
    nodes: Nodes, log: JetStreamLog, brokers: Pair
) -> None:
    a, b = brokers
    found = asyncio.run(look(log.servers, log.name))
    (leader,) = [int(node.name[1:]) for node in found.nodes if node.leads]

    def publish(broker: BrokerProcess) -> list[bytes]:
        with client_of(broker) as client:
            name = "a" if broker is a else "b"
            client.connect(connect_packet(f"p{name}"))
            payloads = [b"%s%d" % (name.encode(), n) for n in range(MESSAGES)]
            for begin in range(0, MESSAGES, AT_ONCE):
                client.publish_all(f"load/{name}", payloads[begin : begin + AT_ONCE])
            return payloads

    with client_of(b) as subscriber:
        subscriber.connect(connect_packet("x", durable=True))
        subscriber.send(Subscribe(1, [SubscriptionRequest("load/#", 1)]))
        subscriber.expect(Suback)
        killing = Timer(0.3, nodes.kill, [leader])
        killing.start()
        with ThreadPoolExecutor(2) as pool:
            sent = pool.map(publish, brokers)
            got = [next_publish(subscriber) for _ in range(2 * MESSAGES)]
            for first, payloads in zip((b"a", b"b"), sent, strict=True):
                assert [payload for payload in got if payload.startswith(first)] == payloads
        killing.join()
    for broker in brokers:
        for name in "ab":
            wait_until(
                lambda broker=broker, name=name: len(logged(broker, f"load/{name}")) == MESSAGES,  # type: ignore[misc]
                timeout_s=PATIENCE_S,
            )


def test_a_broker_that_is_stopped_leaves_its_sessions_to_another_at_once(brokers: Pair) -> None:
    a, b = brokers
    with client_of(a) as client:
        client.connect(connect_packet("x", durable=True))
    assert a.stop() == 0
    wait_until(lambda: "1 session of brokers" in b.stderr.read_text(), timeout_s=PATIENCE_S)
    assert "taken for dead" not in b.stderr.read_text()


def test_the_status_of_the_log_tells_which_brokers_live(
    log: JetStreamLog, brokers: Pair, capsys: pytest.CaptureFixture[str]
) -> None:
    a, b = brokers
    with client_of(a) as client:
        client.connect(connect_packet("x"))
        cluster.status(f"{','.join(log.servers)}/{log.name}", Access(), as_json=False)
    said = capsys.readouterr().out
    assert said.count("replica") == 2
    rows = [line.split() for line in said.splitlines() if "127.0.0.1:" in line]
    assert {(row[1], row[2]) for row in rows} == {
        (f"127.0.0.1:{a.port}", "1"),
        (f"127.0.0.1:{b.port}", "0"),
    }
    assert all(int(row[3]) < 10 for row in rows), "how far their copies are behind"
