"""mosquitto_pub and mosquitto_sub as processes, with MQTT 3.1.1 and 5.0."""

from __future__ import annotations

import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from queue import Queue

import pytest

from broker.mqtt.packets import Publish
from tests.support.broker_process import BrokerProcess, wait_until
from tests.support.raw_client import RawClient, connect_packet, publish_many

pytestmark = [
    pytest.mark.skipif(
        shutil.which(program) is None, reason=f"needs {program} (Debian: mosquitto-clients)"
    )
    for program in ("mosquitto_pub", "mosquitto_sub")
]

TIMEOUT_S = 10.0
FORMAT = "MESSAGE\t%t\t%q\t%r\t%x\t%C\t%R\t%D\t%F\t%P\t%S\t%E"
"""Distinguishes messages from what `-d` prints."""


@dataclass(slots=True)
class PrintedMessage:
    """One line of mosquitto_sub. `extra` has what was sent beside the payload: content type,
    response topic, correlation data, format indicator, user properties, identifiers, expiry."""

    topic: str
    qos: int
    retain: bool
    payload: bytes
    extra: list[str]


class Sub:
    """A mosquitto_sub that has subscribed. As a context manager it is ended with SIGTERM, upon
    which it disconnects."""

    def __init__(self, broker: BrokerProcess, version: str, *arguments: str) -> None:
        command = ["mosquitto_sub", "-p", str(broker.port), "-V", version, "-d", "-F", FORMAT]
        self.process = subprocess.Popen(
            ["stdbuf", "-oL", *command, *arguments], stdout=subprocess.PIPE, text=True
        )
        self.inbox: Queue[PrintedMessage] = Queue()
        self._subscribed: Queue[str] = Queue()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        self.subscribed()

    def subscribed(self) -> None:
        """Returns when it has subscribed once more than when this was called last."""
        assert self._subscribed.get(timeout=TIMEOUT_S), "it ended"

    def __enter__(self) -> Sub:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.wait()

    def wait(self) -> None:
        """Returns when it has ended."""
        self.process.wait(TIMEOUT_S)
        self._reader.join(TIMEOUT_S)
        assert self.process.stdout is not None
        self.process.stdout.close()

    def kill(self) -> None:
        """Lose the connection without a DISCONNECT."""
        self.process.kill()
        self.wait()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("MESSAGE\t"):
                _, topic, qos, retain, payload, *extra = line.rstrip("\n").split("\t")
                self.inbox.put(
                    PrintedMessage(topic, int(qos), retain == "1", bytes.fromhex(payload), extra)
                )
            elif line.startswith("Subscribed"):
                self._subscribed.put(line)
        self._subscribed.put("")

    def receive(self) -> PrintedMessage:
        return self.inbox.get(timeout=TIMEOUT_S)

    def receive_many(self, number: int) -> list[PrintedMessage]:
        return [self.receive() for _ in range(number)]

    def received(self, fence: str) -> list[bytes]:
        """Payloads up to that of `fence`, which must have been published."""
        return list(iter(lambda: self.receive().payload, fence.encode()))


@pytest.fixture(params=["mqttv311", "mqttv5"])
def version(request: pytest.FixtureRequest) -> str:
    version: str = request.param
    return version


@pytest.fixture
def v5() -> str:
    return "mqttv5"


def pub(broker: BrokerProcess, version: str, topic: str, *arguments: str, qos: int = 2) -> None:
    """Returns when it is published: QoS 1 and 2 acknowledged."""
    command = ["mosquitto_pub", "-p", str(broker.port), "-V", version, "-t", topic, "-q", str(qos)]
    subprocess.run([*command, *arguments], check=True, timeout=TIMEOUT_S)


def test_every_qos(broker: BrokerProcess, version: str, name: str) -> None:
    """[MQTT-3.8.4-8]"""
    for granted in (0, 1, 2):
        with Sub(broker, version, "-t", name, "-q", str(granted)) as sub:
            for qos in (0, 1, 2):
                pub(broker, version, name, "-m", f"{qos}", qos=qos)
                message = sub.receive()
                assert (message.payload, message.qos) == (b"%d" % qos, min(qos, granted))
            assert sub.inbox.empty()


def test_from_one_version_to_the_other(broker: BrokerProcess, name: str) -> None:
    with Sub(broker, "mqttv5", "-t", name) as new, Sub(broker, "mqttv311", "-t", name) as old:
        pub(broker, "mqttv311", name, "-m", "from 3.1.1")
        pub(broker, "mqttv5", name, "-m", "from 5", "-D", "publish", "user-property", "a", "b")
        assert [m.payload for m in new.receive_many(2)] == [b"from 3.1.1", b"from 5"]
        assert [m.payload for m in old.receive_many(2)] == [b"from 3.1.1", b"from 5"]


def test_wildcards_and_overlapping_filters(broker: BrokerProcess, version: str, name: str) -> None:
    """[MQTT-4.7.1-1, 2, MQTT-3.3.4-2]"""
    filters = ("-t", f"{name}/+/x", "-t", f"{name}/#", "-t", f"{name}/a/x", "-T", f"{name}/b")
    with Sub(broker, version, *filters, "-q", "1") as sub:
        topics = [name, f"{name}/a", f"{name}/a/x", f"{name}/a/x/y", f"{name}/end"]
        for topic in topics:
            pub(broker, version, topic, "-m", "once")
        assert [message.topic for message in sub.receive_many(5)] == topics


def test_unsubscribe(broker: BrokerProcess, version: str, name: str) -> None:
    arguments = ("-t", f"{name}/#", "-t", f"{name}/a", "-U", f"{name}/#", "-q", "1")
    with Sub(broker, version, *arguments) as sub:
        # The UNSUBSCRIBE was sent before the SUBSCRIBE was answered, and is answered in order.
        wait_until(lambda: subscriptions(broker, version, sub, name) == 1)


def subscriptions(broker: BrokerProcess, version: str, sub: Sub, name: str) -> int:
    """Over how many of two filters `sub` is reached."""
    pub(broker, version, f"{name}/x", "-m", "by wildcard", qos=1)
    pub(broker, version, f"{name}/a", "-m", "end", qos=1)
    return len(sub.received("end")) + 1


def test_retained(broker: BrokerProcess, version: str, name: str) -> None:
    """[MQTT-3.3.1-5..8]"""
    for payload in ("first", "second"):
        pub(broker, version, name, "-r", "-m", payload)
    with Sub(broker, version, "-t", name) as late:
        message = late.receive()
        assert (message.payload, message.retain) == (b"second", True)
        pub(broker, version, name, "-r", "-m", "live")
        message = late.receive()
        assert (message.payload, message.retain) == (b"live", False)
    pub(broker, version, name, "-r", "-n")
    with Sub(broker, version, "-t", name) as later:
        pub(broker, version, name, "-m", "end")
        assert later.received("end") == []


def test_a_will(broker: BrokerProcess, version: str, name: str) -> None:
    """[MQTT-3.1.2-8, MQTT-3.14.4-3]"""
    will = ("--will-topic", name, "--will-payload", "gone", "--will-qos", "1")
    with Sub(broker, version, "-t", name, "-q", "1") as watcher:
        leaving = Sub(broker, version, "-t", f"{name}/other", "-C", "1", *will)
        pub(broker, version, f"{name}/other", "-m", "end")
        leaving.wait()
        pub(broker, version, name, "-m", "end")
        assert watcher.received("end") == []
        Sub(broker, version, "-t", f"{name}/other", *will).kill()
        assert watcher.receive().payload == b"gone"


def test_disconnect_with_will(broker: BrokerProcess, v5: str, name: str) -> None:
    """This is how it answers SIGTERM. [MQTT-3.14.4-3]"""
    will = ("--will-topic", name, "--will-payload", "gone")
    with Sub(broker, v5, "-t", name) as watcher:
        with Sub(broker, v5, "-t", f"{name}/other", *will):
            pass
        assert watcher.receive().payload == b"gone"


def test_a_will_waits_for_its_delay(broker: BrokerProcess, v5: str, name: str) -> None:
    """[MQTT-3.1.3-9]"""
    will = ("--will-topic", name, "--will-payload", "gone")
    delay = ("-D", "will", "will-delay-interval", "1")
    with Sub(broker, v5, "-t", name) as watcher:
        killed_at = time.monotonic()
        Sub(broker, v5, "-t", f"{name}/other", "-i", name, "-x", "60", *will, *delay).kill()
        assert watcher.receive().payload == b"gone"
        assert time.monotonic() - killed_at >= 0.95


def test_a_thousand_offline_messages_in_order(
    broker: BrokerProcess, version: str, name: str
) -> None:
    durable = ("-c", "-i", name, "-t", name, "-q", "1")
    with Sub(broker, version, *durable):
        pass
    lines = [b"%d" % number for number in range(1000)]
    subprocess.run(
        ["mosquitto_pub", "-p", str(broker.port), "-V", version, "-t", name, "-q", "1", "-l"],
        input=b"\n".join(lines) + b"\n",
        check=True,
        timeout=TIMEOUT_S,
    )
    with Sub(broker, version, *durable) as sub:
        assert [message.payload for message in sub.receive_many(1000)] == lines
    with Sub(broker, version, *durable) as sub:
        pub(broker, version, name, "-m", "end")
        assert sub.received("end") == []


def test_a_session_expires(broker: BrokerProcess, v5: str, name: str) -> None:
    """[MQTT-3.1.2-23]"""
    with Sub(broker, v5, "-c", "-i", name, "-x", "1", "-t", name, "-q", "1"):
        pass
    pub(broker, v5, name, "-m", "missed")
    wait_until(lambda: not broker.query("SELECT 1 FROM sessions WHERE client_id = ?", name))
    with Sub(broker, v5, "-c", "-i", name, "-x", "1", "-t", name, "-q", "1") as sub:
        pub(broker, v5, name, "-m", "end")
        assert sub.received("end") == []


def test_it_comes_back_after_the_kill_of_the_broker(
    own_broker: BrokerProcess, version: str, name: str
) -> None:
    with Sub(own_broker, version, "-c", "-i", name, "-t", name, "-q", "2") as sub:
        own_broker.kill()
        own_broker.start()
        sub.subscribed()
        pub(own_broker, version, name, "-m", "after the kill")
        assert sub.receive().payload == b"after the kill"


def test_one_mebibyte(broker: BrokerProcess, version: str, name: str, tmp_path: Path) -> None:
    payload = bytes(range(256)) * 4096
    file = tmp_path / "payload"
    file.write_bytes(payload)
    with Sub(broker, version, "-t", name, "-q", "2") as sub:
        pub(broker, version, name, "-f", str(file))
        assert sub.receive().payload == payload


def test_five_hundred_topics(broker: BrokerProcess, version: str, name: str) -> None:
    """All in one SUBSCRIBE."""
    topics = [f"{name}/{number}" for number in range(500)]
    with (
        Sub(broker, version, *[word for topic in topics for word in ("-t", topic)]) as sub,
        RawClient(broker.port) as client,
    ):
        client.connect(connect_packet(name))
        client.send(*[Publish(topic, topic.encode(), 0, False, False, 0) for topic in topics])
        received = sub.receive_many(500)
    assert [(m.topic, m.payload) for m in received] == [(t, t.encode()) for t in topics]


def test_what_a_dying_member_of_a_group_holds_goes_to_the_others(
    broker: BrokerProcess, version: str, name: str
) -> None:
    """It holds what it was sent while it is stopped. Section 4.8.2. The one that it had longest may
    be why it died: that one comes after a pause."""
    shared = ("-t", f"$share/group/{name}", "-q", "1")
    with Sub(broker, version, *shared) as other:
        dying = Sub(broker, version, *shared)
        dying.process.send_signal(signal.SIGSTOP)
        try:
            sent = [b"%d" % number for number in range(20)]
            publish_many(broker.port, name, sent, client_id=f"{name}-pub")
            own = [message.payload for message in other.receive_many(10)]
            assert other.inbox.empty()
        finally:
            dying.kill()
        held = [payload for payload in sent if payload not in own]
        assert [message.payload for message in other.receive_many(10)] == [*held[1:], held[0]]


def properties(packet: str, **values: str | list[tuple[str, str]]) -> Iterator[str]:
    """As arguments of the programs."""
    for name, value in values.items():
        for each in value if isinstance(value, list) else [(value,)]:
            yield from ("-D", packet, name.replace("_", "-"), *each)


def test_properties_are_passed_on_unchanged(broker: BrokerProcess, v5: str, name: str) -> None:
    """[MQTT-3.3.2-4, 15, 16, 17, 18, 20]"""
    sent = properties(
        "publish",
        content_type="text/plain",
        response_topic="reply/here",
        correlation_data="request 1",
        payload_format_indicator="1",
        user_property=[("z", "1"), ("a", "2"), ("z", "1")],
    )
    with Sub(broker, v5, "-t", name) as sub:
        pub(broker, v5, name, "-m", "x", *sent)
        expected = ["text/plain", "reply/here", "request 1", "1", "z:1 a:2 z:1", "", ""]
        assert sub.receive().extra == expected


def test_subscription_identifier(broker: BrokerProcess, v5: str, name: str) -> None:
    identifier = properties("subscribe", subscription_identifier="5")
    with Sub(broker, v5, "-t", f"{name}/#", "-t", f"{name}/+", *identifier) as sub:
        pub(broker, v5, f"{name}/a", "-m", "x")
        assert sub.receive().extra[5] == "5"


def test_message_expiry(broker: BrokerProcess, v5: str, name: str) -> None:
    """[MQTT-3.3.2-5, 6]"""
    durable = ("-c", "-i", name, "-t", name, "-q", "1")
    with Sub(broker, v5, *durable):
        pass
    pub(broker, v5, name, "-m", "long", *properties("publish", message_expiry_interval="3600"))
    pub(broker, v5, name, "-m", "short", *properties("publish", message_expiry_interval="1"))
    [(due_us,)] = broker.query("SELECT min(expires_at_us) FROM history WHERE topic = ?", name)
    wait_until(lambda: time.time_ns() // 1000 > due_us)
    with Sub(broker, v5, *durable) as sub:
        message = sub.receive()
        assert message.payload == b"long"
        assert 3590 <= int(message.extra[6]) < 3600


def test_receive_maximum(broker: BrokerProcess, v5: str, name: str) -> None:
    one = properties("connect", receive_maximum="1")
    with Sub(broker, v5, "-t", name, "-q", "2", *one) as sub:
        pub(broker, v5, name, "-m", "again", "--repeat", "20")
        assert [message.payload for message in sub.receive_many(20)] == [b"again"] * 20


def test_maximum_packet_size(broker: BrokerProcess, v5: str, name: str) -> None:
    """[MQTT-3.1.2-24, 25]"""
    small = properties("connect", maximum_packet_size="100")
    with Sub(broker, v5, "-t", name, *small) as sub:
        pub(broker, v5, name, "-m", "x" * 200)
        pub(broker, v5, name, "-m", "end")
        assert sub.received("end") == []


def test_topic_alias(broker: BrokerProcess, v5: str, name: str) -> None:
    with Sub(broker, v5, "-t", name) as sub:
        pub(broker, v5, name, "-m", "x", "--repeat", "3", *properties("publish", topic_alias="1"))
        assert [message.topic for message in sub.receive_many(3)] == [name] * 3


def test_replay_by_filter(broker: BrokerProcess, version: str, name: str) -> None:
    for number in range(3):
        pub(broker, version, f"{name}/{number}", "-m", f"{number}")
    with Sub(broker, version, "-t", f"$replay/earliest/{name}/#", "-q", "1") as sub:
        pub(broker, version, f"{name}/end", "-m", "end")
        assert sub.received("end") == [b"0", b"1", b"2"]


def test_replay_by_property_with_metadata(broker: BrokerProcess, v5: str, name: str) -> None:
    for number in range(3):
        pub(broker, v5, name, "-m", f"{number}", "-i", f"{name}-pub")
    [(first,)] = broker.query("SELECT min(offset) FROM history WHERE topic = ?", name)
    words = [("from", str(first + 1)), ("until", str(first + 1)), ("metadata", "true")]
    with Sub(broker, v5, "-t", name, *properties("subscribe", user_property=words)) as sub:
        message = sub.receive()
        assert message.payload == b"1"
        assert f"offset:{first + 1}" in message.extra[4]
        assert f"publisher:{name}-pub" in message.extra[4]
        assert sub.receive().topic == "$replay/ended"
