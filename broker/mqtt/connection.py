"""Connection: the rules of one Network Connection, server side, without I/O and without a clock.

    receive_data(data, now) ─▶ events          send(packet), send_publishes(...) ─▶ data_to_send()

- `now` is in seconds of one monotonic clock, the caller's.
- Legality is checked before any effect. A broken rule never raises: the right answer is queued
  (CONNACK before the connection was accepted, DISCONNECT after; 3.1.1 has none to send), and
  `Closed` is the last event, after those of the good packets before it. Later data is ignored.
- CONNECT comes first and once. [MQTT-3.1.0-1, 2] After the `Connect` event call `accept` or
  `close`; a client need not wait for it, so that events may follow in the same list: drop them if
  you closed.
- DISCONNECT is the last event, too; packets before it may still be answered. The caller closes the
  socket once `closed` is set and `data_to_send` is sent.
- PINGREQ is answered here, but nothing before CONNACK. [MQTT-3.2.0-1] What an event asks of the
  session is not known here.

The client is held to our Receive Maximum here; its own, `receive_maximum`, is for the session to
keep to. Topic Aliases towards us are resolved, so that an event has its topic.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import assert_never

from broker.counters import Traffic
from broker.errors import ClientIdentifierNotValid, PeerError, ProtocolViolation
from broker.message import Grant, Message, Monotonic, Outgoing
from broker.mqtt.authentication import Authentication, Methods
from broker.mqtt.decode import Decoder
from broker.mqtt.encode import encode
from broker.mqtt.fields import PACKET_BYTES_MAX
from broker.mqtt.keep_alive import KeepAlive
from broker.mqtt.limits import Limits
from broker.mqtt.outgoing import TopicAliases, encode_aliased, encode_publishes, fits
from broker.mqtt.packets import (
    MQTT_5,
    RECEIVE_MAXIMUM_DEFAULT,
    Ack,
    Auth,
    Connack,
    Connect,
    Disconnect,
    FromClient,
    FromServer,
    PacketType,
    Pingreq,
    Pingresp,
    Properties,
    Publish,
    RefusedPublish,
    Suback,
    Subscribe,
    Unsuback,
    Unsubscribe,
)
from broker.mqtt.properties import Property
from broker.mqtt.reasons import (
    ERROR,
    ReasonCode,
    connack_refusal,
    connect_return_code,
    disconnect_reason,
)
from broker.topics import SHARE_PREFIX, is_shared


@dataclass(slots=True)
class Closed:
    """The connection ended otherwise than by DISCONNECT: by a broken rule, or in `expire`."""

    reason_code: int
    reason: str


ControlEvent = Connect | RefusedPublish | Ack | Subscribe | Unsubscribe | Disconnect | Closed
"""Every event but a PUBLISH. AUTH is none: the exchange that it belongs to is carried on here."""

Event = Publish | ControlEvent


class Connection:
    """See the module."""

    def __init__(
        self,
        now: Monotonic,
        limits: Limits,
        methods: Methods | None = None,
        traffic: Traffic | None = None,
    ) -> None:
        self.client_id = ""
        """The client identifier, an assigned one included; empty before CONNECT."""
        self.closed = False
        self.receive_maximum = RECEIVE_MAXIMUM_DEFAULT
        """QoS 1 and 2 messages that the client will have unacknowledged. [MQTT-3.3.4-9]"""
        self.packet_bytes_max = PACKET_BYTES_MAX
        """The client's Maximum Packet Size."""
        self._limits = limits
        self._decoder = Decoder(limits)
        self.unfinished = self._decoder.unfinished
        self._opened_at = now
        self.keep_alive = KeepAlive(now)
        self._accepted = False
        self._early_pings = 0
        """PINGREQ of a client that did not wait for CONNACK."""
        self._left = False
        """The client has closed the connection, by DISCONNECT."""
        self._problem_information = True
        self._bridge = False
        self._session_expires = False
        self._aliases: TopicAliases | None = None
        """Towards the client, if it takes any."""
        self._methods = methods or {}
        self._authentication: Authentication | None = None
        """None where CONNECT names no method, which is the rule."""
        self._traffic = traffic or Traffic()
        self.queued: list[bytes] = []
        """What `data_to_send` gives next."""

    @property
    def version(self) -> int:
        """4 for MQTT 3.1.1, 5 for MQTT 5; 0 until CONNECT told."""
        return self._decoder.version or 0

    def receive_data(self, data: bytes, now: Monotonic) -> list[Event]:
        """The events that `data` completes, in order. Any chunking gives the same. While `has_more`
        says so, call it again before others are kept waiting: `data` may be empty."""
        events: list[Event] = []
        if self.closed:
            return events
        decoder = self._decoder
        decoder.feed(data)
        try:
            while (packet := decoder.next(events)) is not None:
                self.keep_alive.last_packet_at = now
                self._receive(packet, events)
                if self.closed:
                    return events
            if self._authentication is not None:
                self._authentication.check(events)
        except PeerError as error:
            refusal = error
            if self._authentication is not None and self._authentication.pending:
                refusal = self._authentication.too_early(events) or error
                events.clear()
            self.close(refusal.reason_code, refusal.reason)
            events.append(Closed(refusal.reason_code, refusal.reason))
        finally:
            self._traffic.received += len(events)
        if events:
            self.keep_alive.last_packet_at = now
        elif decoder.publish_begun:
            self.keep_alive.publish_grew(now)
        return events

    @property
    def has_more(self) -> bool:
        """Whether a packet with many Topic Filters has arrived and is not read to its end."""
        return self._decoder.reading is not None and not self.closed

    def _receive(self, packet: FromClient | RefusedPublish, events: list[Event]) -> None:
        """Check what the standard asks of any packet but PUBLISH, then make it an event."""
        if self._authentication is not None:
            self._authentication.check([*events, packet])
        match packet:
            case Ack():
                self._traffic.received += len(packet.packet_ids) - 1
            case Publish() | RefusedPublish():
                pass
            case Pingreq():
                self._traffic.received += 1
                if self._accepted:
                    self.send(Pingresp())  # [MQTT-3.12.4-1]
                else:
                    self._early_pings += 1
                return
            case Subscribe():
                self._check_subscribe(packet)
            case Unsubscribe():
                if not packet.filters:  # [MQTT-3.10.3-2]
                    raise ProtocolViolation("UNSUBSCRIBE has no Topic Filter")
            case Connect():
                self._connect(packet)
                if self._authentication is not None:
                    self._authenticate(self._authentication.begin(), events)
                    return
            case Disconnect():
                if packet.session_expiry_s and not self._session_expires:
                    raise ProtocolViolation("DISCONNECT extends a session that ends with CONNECT")
                self.closed = self._left = True
            case Auth():
                if self._authentication is None:  # [MQTT-4.12.0-6]
                    raise ProtocolViolation("AUTH without an Authentication Method in CONNECT")
                answer = self._authentication.receive(packet, accepted=self._accepted)
                self._authenticate(answer, events)
                return
            case _:
                assert_never(packet)
        events.append(packet)

    def _connect(self, connect: Connect) -> None:
        if connect.packet_bytes_max is not None:
            self.packet_bytes_max = connect.packet_bytes_max
        self._problem_information = connect.request_problem_information
        authentication = None
        if connect.authentication_method is not None:
            authentication = Authentication(connect, self._methods)
        if not connect.client_id and connect.version != MQTT_5 and not connect.clean_start:
            raise ClientIdentifierNotValid(  # [MQTT3-3.1.3-8]
                "an empty client identifier needs Clean Session = 1"
            )
        if connect.client_id.startswith(SHARE_PREFIX):  # [MQTT-3.1.3-8]
            raise ClientIdentifierNotValid(
                f"client identifiers with {SHARE_PREFIX} are those of groups"
            )
        self.client_id = connect.client_id
        self.keep_alive.interval_s = connect.keep_alive_s
        self._bridge = connect.bridge
        self.receive_maximum = connect.receive_maximum
        if connect.topic_alias_maximum:
            self._aliases = TopicAliases(connect.topic_alias_maximum)
        self._authentication = authentication
        self._session_expires = bool(connect.session_expiry_s)
        if connect.version == MQTT_5:
            self._decoder.publishes.hold_to_receive_maximum()

    def _authenticate(self, answer: Auth | Connect, events: list[Event]) -> None:
        """Ask the client for more, or let it in."""
        if isinstance(answer, Auth):
            self.send(answer)
        else:
            events.append(answer)

    def _check_subscribe(self, subscribe: Subscribe) -> None:
        if not subscribe.requests:  # [MQTT-3.8.3-2]
            raise ProtocolViolation("SUBSCRIBE has no Topic Filter")
        for request in subscribe.requests if self._bridge else ():
            if not is_shared(request.filter):
                request.no_local = request.retain_as_published = True

    def accept(self, connack: Connack) -> None:
        """Queue the CONNACK that accepts the client; the limits that hold here are added to it.

        A Server Keep Alive, Assigned Client Identifier or Maximum Packet Size in it takes effect.
        [MQTT-3.2.2-21, MQTT-3.2.2-16]
        """
        assert self.version
        assert not self._accepted
        assert connack.reason_code == 0
        properties = connack.properties
        keep_alive = self.keep_alive
        keep_alive.interval_s = properties.get(Property.SERVER_KEEP_ALIVE, keep_alive.interval_s)
        self.client_id = properties.get(Property.ASSIGNED_CLIENT_IDENTIFIER, self.client_id)
        self._accepted = True
        if (stricter := properties.get(Property.MAXIMUM_PACKET_SIZE)) is not None:
            self._limits = self._limits.with_packets(stricter)
            self._decoder.limit(self._limits)
        properties = properties | self._limits.announced()
        if self._authentication is not None:
            properties |= self._authentication.connack_properties()
        self.send(replace(connack, properties=properties))
        for _ in range(self._early_pings):
            self.send(Pingresp())

    def send(self, packet: FromServer) -> None:
        """Queue a packet. What the client did not want to read of it, or is too long for it, is
        left out. [MQTT-3.1.2-29, MQTT-3.2.2-19, 20, MQTT-3.4.2-2, 3]

        A packet that is still larger than the client accepts ends the connection.
        """
        if self.closed and not self._left:
            return
        packets = 1
        if isinstance(packet, Ack):
            packets = len(packet.packet_ids)
            if self._decoder.version == MQTT_5:
                self._restore_quota(packet)
        if not self._problem_information and not isinstance(packet, Connack | Publish | Disconnect):
            packet = _bare(packet)
        encoded = encode(packet, self.version)
        limit = packets * self.packet_bytes_max
        if len(encoded) > limit:
            encoded = encode(_bare(packet), self.version)
            if len(encoded) > limit:
                self.closed = True
                return
        self._traffic.sent += packets
        self.queued.append(encoded)

    def send_publishes(
        self,
        outgoing: Sequence[Outgoing],
        packet_ids: Sequence[int],
        *,
        dup: bool = False,
        now_us: int,
    ) -> list[int]:
        """Queue messages as `encode_publishes` says; the indexes of those too large for the client.

        `now_us` is aged time, for the Message Expiry Interval.
        """
        limit = self.packet_bytes_max
        if (aliases := self._aliases) is not None:
            encoded, left_out = encode_aliased(
                aliases, outgoing, packet_ids, dup=dup, now_us=now_us, packet_bytes_max=limit
            )
        else:
            encoded, left_out = encode_publishes(
                self.version, outgoing, packet_ids, dup=dup, now_us=now_us, packet_bytes_max=limit
            )
        if not self.closed:
            self._traffic.sent += len(outgoing) - len(left_out)
            self.queued.append(encoded)
        return left_out

    def fits(self, message: Message, grant: Grant, now_us: int) -> bool:
        """Whether `send_publishes` would send this: it is not too large."""
        limit = self.packet_bytes_max
        return fits(self.version, self._aliases, message, grant, now_us, limit)

    def data_to_send(self) -> bytes:
        """Everything queued since the last call, to be sent as it is."""
        data = b"".join(self.queued)
        self.queued.clear()
        return data

    def deadline(self) -> Monotonic | None:
        """When to call `expire`: the end of the connect timeout, then of the client's silence, see
        `KeepAlive`. None: never."""
        if self.closed:
            return None
        if not self._accepted:
            return Monotonic(self._opened_at + self._limits.connect_timeout_s)
        return self.keep_alive.deadline()

    def expire(self, now: Monotonic) -> Closed | None:
        """Close the connection if its deadline has come."""
        deadline = self.deadline()
        if deadline is None or now < deadline:
            return None
        if self._accepted:
            closed = Closed(ReasonCode.KEEP_ALIVE_TIMEOUT, "no packet for 1.5 times the keep alive")
        elif self._authentication is not None and self._authentication.pending:
            closed = Closed(ReasonCode.NOT_AUTHORIZED, "the client did not authenticate in time")
        elif self.version:
            closed = Closed(ReasonCode.SERVER_UNAVAILABLE, "CONNECT could not be answered in time")
        else:
            closed = Closed(ReasonCode.PROTOCOL_ERROR, "no CONNECT in time")
        self.close(closed.reason_code, closed.reason)
        return closed

    def close(self, reason_code: int, reason: str = "", reference: str = "") -> None:
        """End the connection from our side; what is queued, and the answer, is still to be sent.

        `reason` goes to an MQTT 5 client as Reason String, `reference` as Server Reference: where
        it is to go on. Of no effect when closed already.
        """
        if self.closed:
            return
        version = self.version
        if self._accepted:
            if version == MQTT_5:
                code = disconnect_reason(reason_code)
                self.send(Disconnect(code, None, reason or None, [], reference or None))
        elif version == MQTT_5:
            properties: Properties = {Property.REASON_STRING: reason} if reason else {}
            if reference:
                properties[Property.SERVER_REFERENCE] = reference
            self.send(Connack(False, connack_refusal(reason_code), properties))
        elif version and connect_return_code(reason_code) is not None:
            self.send(Connack(False, reason_code))
        self.closed = True
        self.unfinished.clear()

    def _restore_quota(self, ack: Ack) -> None:
        """An acknowledgement that ends an exchange lets the client begin another. [MQTT-4.9.0-2]"""
        ends = ack.type in (PacketType.PUBACK, PacketType.PUBCOMP) or (
            ack.type == PacketType.PUBREC and ack.reason_code >= ERROR
        )
        if ends:
            self._decoder.publishes.acknowledged(len(ack.packet_ids))


def _bare(packet: FromServer) -> FromServer:
    """`packet` without Reason String and User Properties."""
    match packet:
        case Ack() | Disconnect() | Auth():
            return replace(packet, reason_string=None, user_properties=[])
        case Connack() | Suback() | Unsuback():
            dropped = (Property.REASON_STRING, Property.USER_PROPERTY)
            kept = {key: value for key, value in packet.properties.items() if key not in dropped}
            return replace(packet, properties=kept)
        case Publish() | Pingresp():
            return packet
        case _:
            assert_never(packet)
