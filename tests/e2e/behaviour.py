"""What any client library sees of the broker: `Behaviour` with MQTT 3.1.1, `Behaviour5` with 5.0.

A module for a library subclasses both and says which `peer` speaks for it. Nothing sleeps: that a
message does not come is shown by a later one that does (`Peer.received`). (Retained messages have
no place in that order: they are read for the new subscription alone.)
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from typing import Any, ClassVar, Protocol

import pytest

from tests.support.broker_process import BrokerProcess, wait_until
from tests.support.peers.peer import TIMEOUT_S, Message, Options, Peer, Will, payloads
from tests.support.raw_client import publish_many

MIB = 1024 * 1024
SESSION_TAKEN_OVER = 0x8E


class ConnectPeer(Protocol):
    def __call__(self, client_id: str, *, port: int = 0, **options: Any) -> Peer: ...


class Behaviour:
    peer: ClassVar[type[Peer]]
    version: ClassVar[int]

    @pytest.fixture
    def connect(self, broker: BrokerProcess) -> Iterator[ConnectPeer]:
        """Connect to the module's broker, or to that at `port`; whoever is left is disconnected."""
        peers: list[Peer] = []

        def connect(client_id: str, *, port: int = 0, **options: Any) -> Peer:
            if options.pop("durable", False):
                options |= {"clean": False, "expiry_s": 3600 if self.version == 5 else None}
            peer = self.peer(port or broker.port, self.version, Options(client_id, **options))
            peers.append(peer)
            return peer

        yield connect
        for peer in peers:
            peer.disconnect()

    # Messages

    def test_a_message_arrives_with_the_lower_qos_of_publisher_and_subscription(
        self, connect: ConnectPeer, name: str
    ) -> None:
        """[MQTT-3.8.4-8]"""
        publisher = connect(f"{name}-pub")
        for granted in (0, 1, 2):
            subscriber = connect(f"{name}-sub{granted}")
            assert subscriber.subscribe(f"{name}/{granted}", granted) == granted
            for qos in (0, 1, 2):
                publisher.publish(f"{name}/{granted}", b"%d" % qos, qos)
                expected = Message(f"{name}/{granted}", b"%d" % qos, min(qos, granted))
                assert subscriber.receive() == expected
            assert subscriber.received() == []

    def test_whatever_the_bytes(self, connect: ConnectPeer, name: str) -> None:
        subscriber = connect(name)
        subscriber.subscribe(f"{name}/#")
        sent = [
            Message(f"{name}/ä/€/𝄞", bytes(range(256)), 2),
            Message(f"{name}//", b"", 1),
            Message(f"{name}/ space", b"\0\r\n", 0),
        ]
        for message in sent:
            subscriber.send(message)
            assert subscriber.receive() == message

    def test_one_mebibyte(self, connect: ConnectPeer, name: str) -> None:
        subscriber = connect(name)
        subscriber.subscribe(name)
        payload = bytes(range(256)) * (MIB // 256)
        for qos in (0, 1, 2):
            subscriber.publish(name, payload, qos)
            message = subscriber.receive()
            assert message.qos == qos
            assert message.payload == payload

    def test_everybody_who_subscribed_gets_it_once(self, connect: ConnectPeer, name: str) -> None:
        subscribers = [connect(f"{name}-{number}") for number in range(5)]
        for subscriber in subscribers:
            subscriber.subscribe(name)
        subscribers[0].publish(name, b"all", 2)
        for subscriber in subscribers:
            assert payloads(subscriber.received()) == [b"all"]

    def test_five_hundred_topics(self, connect: ConnectPeer, name: str) -> None:
        subscriber, publisher = connect(name), connect(f"{name}-pub")
        topics = [f"{name}/{number}" for number in range(500)]
        for topic in topics:
            assert subscriber.subscribe(topic, 1) == 1
        sent = [Message(topic, topic.encode(), 0) for topic in topics]
        for message in sent:
            publisher.send(message)
        assert subscriber.receive_many(500) == sent

    def test_wildcards(self, connect: ConnectPeer, name: str) -> None:
        """[MQTT-4.7.1-1, 2]"""
        topics = [name, f"{name}/a", f"{name}/b", f"{name}/a/b", f"{name}/a/b/c", f"{name}/a/", "x"]
        wanted = {
            f"{name}/#": topics[:6],
            f"{name}/+": [f"{name}/a", f"{name}/b"],
            f"{name}/+/b": [f"{name}/a/b"],
            f"{name}/+/+": [f"{name}/a/b", f"{name}/a/"],
            f"{name}/a/#": [f"{name}/a", f"{name}/a/b", f"{name}/a/b/c", f"{name}/a/"],
            f"+/+/b/{name}": [],
        }
        subscribers = {}
        for number, filter in enumerate(wanted):
            subscribers[filter] = connect(f"{name}-{number}")
            subscribers[filter].subscribe(filter)
        publisher = connect(f"{name}-pub")
        for topic in topics:
            publisher.publish(topic)
        for filter, subscriber in subscribers.items():
            assert [m.topic for m in subscriber.received()] == wanted[filter], filter

    def test_a_leading_wildcard_does_not_reach_topics_that_begin_with_a_dollar(
        self, connect: ConnectPeer, name: str
    ) -> None:
        """[MQTT-4.7.2-1] Live or retained."""
        early, late = connect(f"{name}-early"), connect(f"{name}-late")
        early.subscribe(f"+/{name}")
        early.subscribe(f"$own/{name}", 0)
        early.publish(f"$own/{name}", b"retained", 1, retain=True)
        assert early.received() == [Message(f"$own/{name}", b"retained", 0)]
        late.subscribe(f"+/{name}")
        assert late.received() == []
        late.subscribe("$own/#")
        assert late.receive().payload == b"retained"
        early.publish(f"$own/{name}", b"", retain=True)

    def test_overlapping_filters_give_one_copy_with_the_highest_qos(
        self, connect: ConnectPeer, name: str
    ) -> None:
        """[MQTT-3.3.4-2]"""
        subscriber = connect(name)
        subscriber.subscribe(f"{name}/#", 0)
        subscriber.subscribe(f"{name}/a", 2)
        subscriber.subscribe(f"{name}/+", 1)
        subscriber.publish(f"{name}/a", b"once", 2)
        assert subscriber.received() == [Message(f"{name}/a", b"once", 2)]

    def test_unsubscribe(self, connect: ConnectPeer, name: str) -> None:
        subscriber = connect(name)
        subscriber.subscribe(f"{name}/a")
        subscriber.subscribe(f"{name}/b")
        subscriber.unsubscribe(f"{name}/a")
        subscriber.unsubscribe(f"{name}/never")
        subscriber.publish(f"{name}/a")
        subscriber.publish(f"{name}/b")
        assert [m.topic for m in subscriber.received()] == [f"{name}/b"]

    # Retained messages

    def test_retained_is_set_replaced_and_removed(self, connect: ConnectPeer, name: str) -> None:
        """[MQTT-3.3.1-5..8]"""
        publisher = connect(f"{name}-pub")
        live = connect(f"{name}-live")
        live.subscribe(name)
        publisher.publish(name, b"first", retain=True)
        publisher.publish(name, b"second", retain=True)
        publisher.publish(name, b"not retained")
        late = connect(f"{name}-late")
        late.subscribe(name)
        assert late.receive() == Message(name, b"second", retain=True)
        assert late.received() == []
        publisher.publish(name, b"", retain=True)
        later = connect(f"{name}-later")
        later.subscribe(name)
        assert later.received() == []
        # For those who were there it is a message like any other.
        assert live.received() == [
            Message(name, payload) for payload in (b"first", b"second", b"not retained", b"")
        ]

    def test_retained_messages_of_a_wildcard(self, connect: ConnectPeer, name: str) -> None:
        publisher = connect(f"{name}-pub")
        for level in ("a", "b", "c/d"):
            publisher.publish(f"{name}/{level}", level.encode(), 2, retain=True)
        late = connect(f"{name}-late")
        late.subscribe(f"{name}/+", 1)
        expected = [Message(f"{name}/{level}", level.encode(), 1, True) for level in ("a", "b")]
        assert late.receive_many(2) == expected
        assert late.received() == []

    # Wills

    def test_a_will_is_published_when_the_connection_is_lost(
        self, connect: ConnectPeer, name: str
    ) -> None:
        """[MQTT-3.1.2-8]"""
        watcher = connect(f"{name}-watcher")
        watcher.subscribe(name)
        lost = connect(f"{name}-lost", will=Will(Message(name, b"gone", 2, retain=True)))
        assert watcher.received() == []
        lost.cut()
        assert watcher.receive() == Message(name, b"gone", 2)
        late = connect(f"{name}-late")
        late.subscribe(name)
        assert late.receive() == Message(name, b"gone", 2, retain=True)

    def test_no_will_after_disconnect(
        self, connect: ConnectPeer, name: str, broker: BrokerProcess
    ) -> None:
        """[MQTT-3.14.4-3]"""
        watcher = connect(f"{name}-watcher")
        watcher.subscribe(name)
        connect(f"{name}-leaves", will=Will(Message(name, b"gone"))).disconnect()
        wait_until(lambda: not broker.query("SELECT 1 FROM wills WHERE topic = ?", name))
        assert watcher.received() == []

    # Sessions

    def test_a_durable_session_misses_nothing(
        self, connect: ConnectPeer, name: str, broker: BrokerProcess
    ) -> None:
        """[MQTT-3.1.2-4, 5]"""
        subscriber = connect(name, durable=True)
        assert subscriber.session_present in (False, None)
        subscriber.subscribe(name, 1)
        subscriber.disconnect()
        sent = [b"%d" % number for number in range(1000)]
        publish_many(broker.port, name, sent, client_id=f"{name}-pub")
        subscriber = connect(name, durable=True)
        assert subscriber.session_present in (True, None)
        assert payloads(subscriber.receive_many(1000)) == sent
        subscriber.publish(name, b"live")
        assert payloads(subscriber.received()) == [b"live"]
        subscriber.disconnect()
        assert connect(name, durable=True).received() == []

    def test_a_lost_connection_resumes_as_well(self, connect: ConnectPeer, name: str) -> None:
        subscriber = connect(name, durable=True)
        subscriber.subscribe(name, 2)
        subscriber.cut()
        connect(f"{name}-pub").publish(name, b"missed", 2)
        subscriber = connect(name, durable=True)
        assert subscriber.received() == [Message(name, b"missed", 2)]

    def test_a_clean_session_ends_with_its_connection(
        self, connect: ConnectPeer, name: str
    ) -> None:
        connect(name).subscribe(name)
        again = connect(name)
        assert again.session_present in (False, None)
        again.publish(name)
        assert again.received() == []

    def test_clean_start_ends_a_durable_session(self, connect: ConnectPeer, name: str) -> None:
        """[MQTT-3.1.2-4]"""
        subscriber = connect(name, durable=True)
        subscriber.subscribe(name)
        subscriber.disconnect()
        connect(f"{name}-pub").publish(name, b"missed")
        connect(name, clean=True).disconnect()
        subscriber = connect(name, durable=True)
        assert subscriber.session_present in (False, None)
        assert subscriber.received() == []

    def test_takeover(self, connect: ConnectPeer, name: str) -> None:
        """[MQTT-3.1.4-3]"""
        old = connect(name, durable=True)
        old.subscribe(name)
        new = connect(name, durable=True)
        code = SESSION_TAKEN_OVER if self.version == 5 else 0
        assert old.ended.get(timeout=TIMEOUT_S) in (code, None)
        assert new.session_present in (True, None)
        new.publish(name, b"for the new one")
        assert payloads(new.received()) == [b"for the new one"]
        assert old.inbox.empty()

    def test_acknowledged_is_kept_and_a_will_published_when_the_broker_is_killed(
        self, connect: ConnectPeer, own_broker: BrokerProcess, name: str
    ) -> None:
        watcher = connect(f"{name}-watcher", port=own_broker.port, durable=True)
        watcher.subscribe(f"{name}-will")
        connect(f"{name}-lost", port=own_broker.port, will=Will(Message(f"{name}-will", b"gone")))
        subscriber = connect(name, port=own_broker.port, durable=True)
        subscriber.subscribe(f"{name}/#", 2)
        subscriber.disconnect()
        publisher = connect(f"{name}-pub", port=own_broker.port)
        publisher.publish(f"{name}/retained", b"retained", 2, retain=True)
        publisher.publish(f"{name}/1", b"one", 1)
        publisher.publish(f"{name}/2", b"two", 2)
        own_broker.kill()
        own_broker.start()
        subscriber = connect(name, port=own_broker.port, durable=True)
        assert sorted(payloads(subscriber.received())) == [b"one", b"retained", b"two"]
        late = connect(f"{name}-late", port=own_broker.port)
        late.subscribe(f"{name}/#")
        assert late.receive() == Message(f"{name}/retained", b"retained", 2, retain=True)
        watcher = connect(f"{name}-watcher", port=own_broker.port, durable=True)
        assert watcher.receive() == Message(f"{name}-will", b"gone")

    # Replay

    def test_replay_by_filter(self, connect: ConnectPeer, name: str) -> None:
        publisher = connect(f"{name}-pub")
        for number in range(5):
            publisher.publish(f"{name}/{number}", b"%d" % number)
        late = connect(name)
        late.subscribe(f"$replay/earliest/{name}/#")
        assert payloads(late.receive_many(5)) == [b"0", b"1", b"2", b"3", b"4"]
        publisher.publish(f"{name}/live", b"live")
        assert payloads(late.received()) == [b"live"]
        last = connect(f"{name}-last")
        last.subscribe(f"$replay/-2/{name}/#")
        assert payloads(last.receive_many(2)) == [b"4", b"live"]
        recent = connect(f"{name}-recent")
        recent.subscribe(f"$replay/@-1h/{name}/#")
        assert recent.receive().payload == b"0"

    def test_a_replay_is_unsubscribed_from_by_the_same_filter(
        self, connect: ConnectPeer, name: str
    ) -> None:
        for filter in (f"$replay/latest/{name}", name):
            subscriber = connect(name)
            subscriber.subscribe(f"$replay/latest/{name}")
            subscriber.publish(name, b"before")
            assert payloads(subscriber.received()) == [b"before"]
            subscriber.unsubscribe(filter)
            subscriber.publish(name, b"after")
            assert subscriber.received() == []

    def test_a_replay_with_an_end_says_so(
        self, connect: ConnectPeer, name: str, broker: BrokerProcess
    ) -> None:
        publisher = connect(f"{name}-pub")
        for payload in (b"one", b"two", b"three"):
            publisher.publish(name, payload)
        [(first,)] = broker.query("SELECT min(offset) FROM history WHERE topic = ?", name)
        late = connect(f"{name}-late")
        late.subscribe(f"$replay/{first}:{first + 1}/{name}")
        assert payloads(late.receive_many(2)) == [b"one", b"two"]
        assert late.receive() == Message("$replay/ended", name.encode(), 0)
        publisher.publish(name, b"live")
        assert late.received() == []

    def test_members_of_a_group_share_and_the_group_waits_when_nobody_is_there(
        self, connect: ConnectPeer, name: str
    ) -> None:
        """[MQTT-4.8.2-1..3] Section 4.8.2: a message goes to one member."""
        members = [connect(f"{name}-{number}") for number in range(2)]
        for member in members:
            assert member.subscribe(f"$share/group/{name}/#", 1) == 1
        publisher = connect(f"{name}-pub")
        for number in range(20):
            publisher.publish(f"{name}/job", b"%d" % number)
        shares = [[m for m in member.received() if m.topic == f"{name}/job"] for member in members]
        assert [len(share) for share in shares] == [10, 10]
        assert len({m.payload for share in shares for m in share}) == 20
        for member in members:
            member.disconnect()
        publisher.publish(f"{name}/job", b"later")
        late = connect(f"{name}-late")
        late.subscribe(f"$share/group/{name}/#", 1)
        assert late.receive().payload == b"later"

    def test_what_a_dying_member_of_a_group_holds_goes_to_the_others(
        self, connect: ConnectPeer, name: str
    ) -> None:
        """Section 4.8.2. The one that it had longest may be why it died: that one comes after a
        pause."""
        dying = connect(f"{name}-dying", acknowledges=False)
        other = connect(f"{name}-other")
        for member in (dying, other):
            member.subscribe(f"$share/group/{name}", 1)
        publisher = connect(f"{name}-pub")
        sent = [b"%d" % number for number in range(20)]
        for payload in sent:
            publisher.publish(name, payload)
        held = payloads(dying.receive_many(10))
        assert sorted(held + payloads(other.receive_many(10))) == sorted(sent)
        dying.cut()
        assert payloads(other.receive_many(10)) == [*held[1:], held[0]]
        assert other.received() == []


class Behaviour5(Behaviour):
    def test_properties_are_passed_on_unchanged(self, connect: ConnectPeer, name: str) -> None:
        """[MQTT-3.3.2-4, 15, 16, 17, 18, 20]"""
        subscriber = connect(name)
        subscriber.subscribe(name)
        message = Message(
            name,
            "ä".encode(),
            payload_format=1,
            content_type="text/plain",
            response_topic=f"{name}/reply",
            correlation=b"\0\xff",
            user=[("z", "1"), ("a", "2"), ("a", "2"), ("a", ""), ("ä", "€")],
        )
        subscriber.send(message)
        assert subscriber.receive() == message

    def test_retained_messages_keep_their_properties(self, connect: ConnectPeer, name: str) -> None:
        message = Message(name, b"x", retain=True, content_type="text/plain", user=[("a", "b")])
        publisher = connect(f"{name}-pub")
        publisher.send(message)
        late = connect(name)
        late.subscribe(name, 1)
        assert late.receive() == message

    def test_retain_handling(self, connect: ConnectPeer, name: str) -> None:
        """[MQTT-3.3.1-9..11]"""
        subscriber = connect(name)
        subscriber.publish(name, b"retained", retain=True)
        for handling, came in ((2, 0), (0, 1), (1, 0), (0, 1)):
            subscriber.subscribe(name, retain_handling=handling)
            assert payloads(subscriber.receive_many(came)) == [b"retained"] * came
            assert subscriber.received() == []
        subscriber.unsubscribe(name)
        subscriber.subscribe(name, retain_handling=1)
        assert subscriber.receive().payload == b"retained"

    def test_retain_as_published(self, connect: ConnectPeer, name: str) -> None:
        """[MQTT-3.3.1-12, 13]"""
        subscriber = connect(name)
        subscriber.subscribe(f"{name}/kept", 1, retain_as_published=True)
        subscriber.subscribe(f"{name}/cleared", 1)
        sent = [
            Message(f"{name}/{level}", retain=retain)
            for level in ("kept", "cleared")
            for retain in (True, False)
        ]
        for message in sent:
            subscriber.send(message)
        assert [m.retain for m in subscriber.received()] == [True, False, False, False]

    def test_overlapping_filters_give_all_subscription_identifiers(
        self, connect: ConnectPeer, name: str
    ) -> None:
        """[MQTT-3.3.4-3..5]"""
        subscriber = connect(name)
        subscriber.subscribe(f"{name}/#", 0, id=7)
        subscriber.subscribe(f"{name}/+", 2, id=268_435_455)
        subscriber.subscribe(f"{name}/a", 1)
        subscriber.publish(f"{name}/a", b"both", 2)
        both = subscriber.receive()
        subscriber.publish(f"{name}/a/b", b"one", 2)
        one = subscriber.receive()
        assert (both.qos, sorted(both.subscription_ids)) == (2, [7, 268_435_455])
        assert (one.qos, one.subscription_ids) == (0, [7])

    def test_no_local(self, connect: ConnectPeer, name: str) -> None:
        """[MQTT-3.8.3-3]"""
        subscriber = connect(name)
        subscriber.subscribe(name, no_local=True)
        subscriber.publish(name, b"own")
        connect(f"{name}-other").publish(name, b"other's")
        assert payloads(subscriber.received()) == [b"other's"]

    def test_a_will_with_properties_waits_for_its_delay(
        self, connect: ConnectPeer, name: str
    ) -> None:
        """[MQTT-3.1.3-9]"""
        watcher = connect(f"{name}-watcher")
        watcher.subscribe(name)
        message = Message(name, b"gone", content_type="text/plain", user=[("a", "b")])
        lost = connect(f"{name}-lost", expiry_s=60, will=Will(message, delay_s=1))
        cut_at = time.monotonic()
        lost.cut()
        assert watcher.receive() == message
        assert time.monotonic() - cut_at >= 0.95

    def test_coming_back_cancels_a_will(
        self, connect: ConnectPeer, name: str, broker: BrokerProcess
    ) -> None:
        """[MQTT-3.1.3-9]"""
        watcher = connect(f"{name}-watcher")
        watcher.subscribe(name)
        will = Will(Message(name, b"gone"), delay_s=1)
        lost = connect(f"{name}-lost", expiry_s=60, will=will)
        lost.cut()
        due = "SELECT 1 FROM will_deadlines WHERE client_id = ? AND due_at_us > 0"
        wait_until(lambda: bool(broker.query(due, f"{name}-lost")))
        back = connect(f"{name}-lost", clean=False, expiry_s=60)
        assert back.session_present in (True, None)
        assert broker.query("SELECT 1 FROM wills WHERE topic = ?", name) == []
        # When the later will is published, the earlier would have been.
        later = Will(Message(name, b"later"), delay_s=1)
        connect(f"{name}-later", expiry_s=60, will=later).cut()
        assert payloads([watcher.receive(), *watcher.received()]) == [b"later"]

    def test_the_end_of_the_session_ends_the_will_delay(
        self, connect: ConnectPeer, name: str
    ) -> None:
        """[MQTT-3.1.2-8]"""
        watcher = connect(f"{name}-watcher")
        watcher.subscribe(name)
        connect(f"{name}-lost", will=Will(Message(name, b"gone"), delay_s=3600)).cut()
        assert watcher.receive() == Message(name, b"gone")

    def test_clean_start_ends_the_session_and_so_the_will_delay(
        self, connect: ConnectPeer, name: str
    ) -> None:
        """[MQTT-3.1.2-8, MQTT-3.1.4-3]"""
        watcher = connect(f"{name}-watcher")
        watcher.subscribe(name)
        will = Will(Message(name, b"gone"), delay_s=3600)
        connect(f"{name}-lost", expiry_s=3600, will=will)
        connect(f"{name}-lost")
        assert watcher.receive() == Message(name, b"gone")

    def test_a_session_expires(
        self, connect: ConnectPeer, name: str, broker: BrokerProcess
    ) -> None:
        """[MQTT-3.1.2-23]"""
        subscriber = connect(name, expiry_s=1)
        subscriber.subscribe(name)
        subscriber.disconnect()
        back = connect(name, clean=False, expiry_s=1)
        assert back.session_present in (True, None)
        back.disconnect()
        wait_until(lambda: not broker.query("SELECT 1 FROM sessions WHERE client_id = ?", name))
        back = connect(name, clean=False, expiry_s=1)
        assert back.session_present in (False, None)
        back.publish(name)
        assert back.received() == []

    def test_message_expiry(self, connect: ConnectPeer, name: str, broker: BrokerProcess) -> None:
        """[MQTT-3.3.2-5, 6]"""
        subscriber = connect(name, durable=True)
        subscriber.subscribe(name)
        subscriber.disconnect()
        publisher = connect(f"{name}-pub")
        publisher.publish(name, b"long-lived", expiry_s=3600)
        publisher.publish(name, b"short-lived", expiry_s=1)
        [(due_us,)] = broker.query("SELECT min(expires_at_us) FROM history WHERE topic = ?", name)
        wait_until(lambda: time.time_ns() // 1000 > due_us)
        [message] = connect(name, durable=True).received()
        assert message.payload == b"long-lived"
        assert message.expiry_s is not None
        assert 3590 <= message.expiry_s < 3600

    def test_a_small_receive_maximum_still_gets_everything_in_order(
        self, connect: ConnectPeer, name: str
    ) -> None:
        subscriber = connect(name, receive_maximum=1)
        subscriber.subscribe(name)
        publisher = connect(f"{name}-pub")
        sent = [b"%d" % number for number in range(50)]
        for payload in sent:
            publisher.publish(name, payload, 1 + len(payload) % 2)
        assert payloads(subscriber.receive_many(50)) == sent

    def test_a_message_too_large_for_the_client_is_left_out(
        self, connect: ConnectPeer, name: str
    ) -> None:
        """[MQTT-3.1.2-24, 25]"""
        subscriber = connect(name, packet_bytes_max=200)
        subscriber.subscribe(name)
        publisher = connect(f"{name}-pub")
        for qos in (0, 1, 2):
            publisher.publish(name, bytes(200), qos)
            publisher.publish(name, bytes(100), qos)
        assert subscriber.receive_many(3) == [Message(name, bytes(100), qos) for qos in (0, 1, 2)]

    def test_topic_alias(self, connect: ConnectPeer, name: str) -> None:
        subscriber = connect(f"{name}-sub")
        subscriber.subscribe(f"{name}/#")
        publisher = connect(name)
        publisher.send(Message(f"{name}/a", b"1"), topic_alias=1)
        publisher.send(Message("", b"2"), topic_alias=1)
        publisher.send(Message(f"{name}/b", b"3"), topic_alias=1)
        publisher.send(Message("", b"4"), topic_alias=1)
        topics = [message.topic for message in subscriber.receive_many(4)]
        assert topics == [f"{name}/a", f"{name}/a", f"{name}/b", f"{name}/b"]

    def test_replay_from_until(
        self, connect: ConnectPeer, name: str, broker: BrokerProcess
    ) -> None:
        publisher = connect(f"{name}-pub")
        for number in range(4):
            publisher.publish(f"{name}/{number}", b"%d" % number)
        [(first,)] = broker.query("SELECT offset FROM history WHERE topic = ?", f"{name}/0")
        late = connect(name)
        late.subscribe(
            f"{name}/#", user=[("from", str(first + 1)), ("until", str(first + 2))], id=5
        )
        assert late.receive_many(2) == [
            Message(f"{name}/{number}", b"%d" % number, subscription_ids=[5]) for number in (1, 2)
        ]
        ended = late.receive()
        assert (ended.topic, ended.payload) == ("$replay/ended", f"{name}/#".encode())

    def test_from_counts_only_for_a_new_subscription(self, connect: ConnectPeer, name: str) -> None:
        publisher = connect(f"{name}-pub")
        publisher.publish(name, b"old")
        late = connect(name, durable=True)
        late.subscribe(name, user=[("from", "earliest")])
        assert late.receive().payload == b"old"
        late.subscribe(name, user=[("from", "earliest")])
        assert late.received() == []
        late.subscribe(name, user=[("from", "earliest"), ("from-mode", "always")])
        assert late.receive().payload == b"old"
        assert late.received() == []

    def test_metadata(self, connect: ConnectPeer, name: str, broker: BrokerProcess) -> None:
        subscriber = connect(name)
        subscriber.subscribe(name, user=[("metadata", "true")])
        connect(f"{name}-pub").publish(name, b"x", user=[("own", "1")])
        [(offset, published_at)] = broker.query(
            "SELECT offset, published_at FROM history WHERE topic = ?", name
        )
        user = subscriber.receive().user
        assert ("own", "1") in user
        words = dict(user)
        assert words["offset"] == str(offset)
        assert words["published-at"] == published_at
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", words["published-at"])
        assert words["publisher"] == f"{name}-pub"

    def test_receipt(self, connect: ConnectPeer, name: str, broker: BrokerProcess) -> None:
        publisher = connect(name)
        receipt = publisher.publish(name, b"x", user=[("receipt", "true")])
        [(offset,)] = broker.query("SELECT offset FROM history WHERE topic = ?", name)
        assert receipt in ([("offset", str(offset))], None)
        assert publisher.publish(name, b"x") in ([], None)
