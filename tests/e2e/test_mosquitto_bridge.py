"""A bridge of Mosquitto's, with its default settings, between a Mosquitto and this broker."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from broker.mqtt.packets import Ack, PacketType, Publish
from tests.support.broker_process import BrokerProcess, free_port, listens, wait_until
from tests.support.raw_client import RawClient, connect_packet, expect_nothing

MOSQUITTO = shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
pytestmark = pytest.mark.skipif(
    MOSQUITTO is None, reason="needs a Mosquitto broker to bridge to (Debian: mosquitto)"
)

STATE = "$SYS/broker/connection/there/state"
CONFIG = """
listener {port} 127.0.0.1
allow_anonymous true
persistence false
connection bridge
address 127.0.0.1:{ours}
bridge_protocol_version {version}
remote_clientid there
restart_timeout 1
topic both/# both 2
topic # out 1 theirs/ from-theirs/
topic # in 1 ours/ from-ours/
"""
"""What is not said here is as a bridge has it by default; it would wait 5-30 s to connect again."""


@dataclass
class Bridge:
    """Both brokers, with a client that hears everything on each."""

    ours: RawClient
    theirs: RawClient
    broker: BrokerProcess
    mosquitto: subprocess.Popen[bytes]


@pytest.fixture(scope="module", params=["mqttv311", "mqttv50"])
def bridge(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Bridge]:
    assert MOSQUITTO is not None
    directory = tmp_path_factory.mktemp(request.param)
    port = free_port()
    with BrokerProcess(directory) as broker, RawClient(broker.port) as ours:
        ours.connect(connect_packet("ours"))
        ours.subscribe("#", 0)
        ours.subscribe(STATE, 0)
        settings = directory / "mosquitto.conf"
        settings.write_text(CONFIG.format(port=port, ours=broker.port, version=request.param))
        mosquitto = subprocess.Popen(
            [MOSQUITTO, "-c", settings], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            wait_until(lambda: listens(port))
            assert got(ours) == (STATE, b"1")
            with RawClient(port) as theirs:
                theirs.connect(connect_packet("theirs"))
                theirs.subscribe("#", 0)
                yield Bridge(ours, theirs, broker, mosquitto)
        finally:
            mosquitto.kill()
            mosquitto.wait()
        assert got(ours) == (STATE, b"0"), "its Will"
    assert broker.complaints() == []


def got(client: RawClient) -> tuple[str, bytes]:
    packet = client.expect(Publish)
    return packet.topic, packet.payload


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_a_message_goes_either_way_once_and_does_not_come_back(bridge: Bridge, qos: int) -> None:
    ours, theirs = bridge.ours, bridge.theirs
    for publisher, topic in ((ours, "both/a"), (theirs, "both/b")):
        publisher.send(Publish(topic, b"x", qos, False, False, 1 if qos else 0))
        if qos == 2:
            publisher.send(Ack(PacketType.PUBREL, [1]))
        assert {heard(ours, topic), heard(theirs, topic)} == {b"x"}
    # What came twice, or came back, would be here before these.
    for publisher, topic in ((ours, "both/end"), (theirs, "both/end2")):
        publisher.send(Publish(topic, b"end", 0, False, False, 0))
        assert heard(ours, topic) == heard(theirs, topic) == b"end"


def heard(client: RawClient, topic: str) -> bytes:
    """The payload of the next message, which must be on this topic. Acknowledgements of what the
    client published are passed over; messages come at QoS 0 since it does not answer."""
    while not isinstance(packet := client.receive(), Publish):
        assert packet is not None
    assert packet.topic == topic
    return packet.payload


def test_topics_are_mapped(bridge: Bridge) -> None:
    bridge.theirs.send(Publish("theirs/a", b"1", 0, False, False, 0))
    assert heard(bridge.theirs, "theirs/a") == b"1"
    assert heard(bridge.ours, "from-theirs/a") == b"1"
    bridge.ours.send(Publish("from-ours/a", b"2", 0, False, False, 0))
    assert heard(bridge.ours, "from-ours/a") == b"2"
    assert heard(bridge.theirs, "ours/a") == b"2"
    expect_nothing(bridge.ours)


def test_what_is_retained_here_is_retained_there(bridge: Bridge) -> None:
    bridge.ours.send(Publish("both/kept", b"k", 0, True, False, 0))
    assert heard(bridge.ours, "both/kept") == heard(bridge.theirs, "both/kept") == b"k"
    bridge.theirs.subscribe("both/kept", 0)
    packet = bridge.theirs.expect(Publish)
    assert (packet.payload, packet.retain) == (b"k", True)


def test_the_history_says_that_the_bridge_published_it(bridge: Bridge) -> None:
    bridge.theirs.send(Publish("theirs/h", b"1", 0, False, False, 0))
    heard(bridge.theirs, "theirs/h")
    heard(bridge.ours, "from-theirs/h")
    rows = "SELECT publisher FROM history WHERE topic = ?"
    wait_until(lambda: bridge.broker.query(rows, "from-theirs/h") == [("there",)])
