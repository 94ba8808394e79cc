"""Client: an ordinary MQTT 5 client (paho) that the commands drive one turn at a time.

Three things differ from paho as it comes, and need its protected methods (a test names them):

- It acknowledges when told to. paho sends PUBACK and PUBREC when it has received; we only after
  the message was written out. paho's own `manual_ack` delays PUBCOMP in place of PUBREC, by when
  the broker has forgotten the message, so a killed subscriber would lose it.
- It reads and writes in bursts. paho reads a packet with three system calls and sends each
  acknowledgement with one; 100,000 small messages are then mostly system calls.
- It has paho decode only messages with more than User Properties: `user_properties.py` says why.
"""

from __future__ import annotations

import select
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, Literal, Protocol

from paho.mqtt import client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from cli.net.address import Address, first_that_answers, other_broker
from cli.net.burst import BurstSocket, burst_of
from cli.net.user_properties import OnlyUserProperties, only_user_properties, user_properties_of
from cli.terminal import output
from cli.terminal.failure import ConnectionLost
from cli.terminal.interrupt import Interrupt

ANSWER_TIMEOUT_S = 10.0
SUCCESS, NO_MATCHING_SUBSCRIBERS, NO_SUBSCRIPTION_EXISTED = 0x00, 0x10, 0x11
NOT_AUTHORIZED_CODES = (0x86, 0x87)  # Bad User Name or Password; Not authorized
SESSION_TAKEN_OVER, QUOTA_EXCEEDED, ADMINISTRATIVE_ACTION = 0x8E, 0x97, 0x98
FAILURES = 0x80
"""Reason Codes from here on refuse."""

UserProperties = Sequence[tuple[str, str]]


class HasFileno(Protocol):
    def fileno(self) -> int: ...


@dataclass(slots=True)
class Acknowledged:
    """What the broker said to a message of ours. 0x80 and above: it did not take it."""

    packet_id: int
    reason: ReasonCode
    user_properties: Mapping[str, str]
    said: str = ""
    """Its Reason String."""


class Client(mqtt.Client):
    def __init__(
        self, address: Address, client_id: str, interrupt: Interrupt | None = None
    ) -> None:
        super().__init__(CallbackAPIVersion.VERSION2, client_id=client_id, protocol=mqtt.MQTTv5)
        self.max_inflight_messages = 0  # whoever publishes keeps to the broker's Receive Maximum
        if address.username is not None or address.password is not None:
            self.username_pw_set(address.username, address.password)
        if (will := address.will) is not None:
            self.will_set(will.topic, will.payload, will.qos, will.retain)
        if address.debug:
            self.on_log = lambda _client, _userdata, _level, said: output.note(
                output.one_line(said)
            )
        self.arrived: deque[mqtt.MQTTMessage] = deque()
        """Received and not yet taken. Acknowledge what you take, in this order [MQTT-4.6.0-2]."""
        self.acknowledged: deque[Acknowledged] = deque()
        self._told: dict[str, Properties | None] = {}  # by the last CONNACK and SUBACK
        self.address = address.brokers()[0]
        self._interrupt = interrupt
        self._burst: BurstSocket | None = None
        self._received: list[mqtt.MQTTMessage | int] = []  # an int: Packet Identifier, QoS 2
        self._taken: set[int] = set()  # Packet Identifiers of QoS 2 messages not yet released
        self._session_present: bool | None = None
        self._refused: ReasonCode | None = None
        self._lost: ConnectionLost | None = None
        self._answers: dict[int, list[ReasonCode]] = {}
        self.on_connect = self._connected
        self.on_disconnect = self._disconnected
        self.on_message = self._message
        self.on_publish = self._published
        self.on_subscribe = self._answered
        self.on_unsubscribe = self._answered

    @property
    def receive_max(self) -> int:
        """QoS 1 and 2 messages that the broker allows us to have unacknowledged."""
        return int(getattr(self._told.get("CONNACK"), "ReceiveMaximum", 65_535))

    @property
    def packet_bytes_max(self) -> int | None:
        """Maximum Packet Size that the broker takes, if it said so. [MQTT-3.2.2-15]"""
        return getattr(self._told.get("CONNACK"), "MaximumPacketSize", None)

    @property
    def session_report(self) -> UserProperties:
        """What the broker told of the session; nothing if it is another than ours."""
        return getattr(self._told.get("CONNACK"), "UserProperty", ())

    def granted(self) -> Mapping[str, str]:
        """User Properties of the last SUBACK."""
        return user_properties_of(self._told.get("SUBACK"))

    def open(
        self,
        *,
        clean_start: bool,
        session_expiry_s: int = 0,
        receive_max: int | None = None,
        user_properties: UserProperties = (),
    ) -> bool:
        """Connect (again) and wait for CONNACK; whether the broker had a session for us. Of several
        brokers it is the first that answers.

        Raises CommandFailed: nobody there (69), not authorised (77), refused otherwise (1).
        """
        properties = packet_properties(PacketTypes.CONNECT, user_properties)
        properties.SessionExpiryInterval = session_expiry_s
        if receive_max is not None:
            properties.ReceiveMaximum = receive_max
        return first_that_answers(self.address, partial(self._open, properties, clean_start))

    def _open(self, properties: Properties, clean_start: bool, address: Address) -> bool:
        self.address = address
        self._session_present = self._refused = self._lost = None
        self._received.clear()
        try:
            with self._told_waiting():
                where = address.host, address.port, address.keep_alive_s
                self.connect(*where, clean_start=clean_start, properties=properties)
                self._wait(lambda: self._session_present is not None, "CONNECT")
        except (OSError, ConnectionLost) as error:
            if self._refused is not None:
                why = getattr(self._told.get("CONNACK"), "ReasonString", None)
                refused = f"{self._refused}: {why}" if why else str(self._refused)
                no_right = self._refused.value in NOT_AUTHORIZED_CODES
                other = other_broker(self._refused.value, self._told.get("CONNACK"))
                raise self.address.refused(refused, not_authorized=no_right, other=other) from None
            said = self._burst and self._burst.failure
            raise self.address.unanswered(said or error) from error
        if not self._session_present:
            self._taken.clear()
        return bool(self._session_present)

    def turn(
        self, timeout_s: float, also: Sequence[HasFileno] = (), *, interruptible: bool = True
    ) -> list[HasFileno]:
        """Send what waits, then receive at most one burst; which of `also` can be read.

        Returns after `timeout_s` at the latest. Raises ConnectionLost, and KeyboardInterrupt if an
        interrupt was requested and the turn is `interruptible`: both only between two packets.
        """
        burst = self._burst
        if self._lost is not None or burst is None or self.socket() is None:
            raise self._lost or ConnectionLost("not connected")
        watched: list[HasFileno] = [burst, *also]
        interrupt = self._interrupt if interruptible else None
        if interrupt is not None:
            interrupt.check()
            watched.append(interrupt)
        burst.flush()
        if self.arrived or self.acknowledged:
            timeout_s = 0  # there is something to do already
        readable, _, _ = select.select(watched, [burst] if burst.unsent else [], [], timeout_s)
        if burst in readable:
            burst.fill()
            while burst.pending() and self.socket() is not None:
                self.loop_read()
        self.loop_misc()
        burst.flush()
        self._take_received()
        if self._lost is not None:
            raise self._lost
        if interrupt is not None:
            interrupt.check()
        return [one for one in also if one in readable]

    def subscribe_to(
        self,
        filters: Sequence[str],
        qos: int,
        *,
        new_only: bool = False,
        user_properties: UserProperties = (),
    ) -> list[ReasonCode]:
        """Subscribe and wait; a Reason Code per filter. `new_only`: retained messages only then."""
        options = SubscribeOptions(
            qos=qos,
            retainHandling=SubscribeOptions.RETAIN_SEND_IF_NEW_SUB
            if new_only
            else SubscribeOptions.RETAIN_SEND_ON_SUBSCRIBE,
        )
        _, packet_id = self.subscribe(
            [(filter_, options) for filter_ in filters],
            properties=packet_properties(PacketTypes.SUBSCRIBE, user_properties),
        )
        return self._answer(packet_id, "SUBSCRIBE")

    def unsubscribe_from(self, filters: Sequence[str]) -> list[ReasonCode]:
        _, packet_id = self.unsubscribe(list(filters))
        return self._answer(packet_id, "UNSUBSCRIBE")

    def acknowledge(self, messages: Iterable[mqtt.MQTTMessage]) -> None:
        """Say that these are taken care of; sent with the next turn, or by `close`."""
        for message in messages:
            if message.qos == 1:
                super()._send_puback(message.mid)
            elif message.qos == 2:
                self._taken.add(message.mid)
                super()._send_pubrec(message.mid)

    def refuse(self, message: mqtt.MQTTMessage, packet: bytes) -> None:
        """Say so by this PUBACK; sent as by `acknowledge`."""
        self._packet_queue(mqtt.PUBACK, packet, message.mid, 1)

    def close(self, *, end_session: bool = False) -> None:
        """Send what waits and DISCONNECT; the session is kept for as long as it was asked for."""
        if self._session_present is not None and self._lost is None:
            properties = packet_properties(PacketTypes.DISCONNECT)
            if end_session:
                properties.SessionExpiryInterval = 0
            self.disconnect(properties=properties)
        if self._burst is not None:
            self._burst.close()

    def unsent_bytes(self) -> int:
        return len(self._burst.unsent) if self._burst is not None else 0

    def _answer(self, packet_id: int | None, what: str) -> list[ReasonCode]:
        assert packet_id is not None
        with output.waiting(f"waiting for the broker to answer {what}"):
            self._wait(lambda: packet_id in self._answers, what)
        return self._answers.pop(packet_id)

    def _told_waiting(self) -> AbstractContextManager[None]:
        """Only the first time: of a lost connection a person is told otherwise."""
        if "CONNACK" in self._told:
            return nullcontext()
        return output.waiting(f"waiting for an answer from {self.address}")

    def _wait(self, done: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + ANSWER_TIMEOUT_S
        while not done():
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                raise ConnectionLost(f"no answer to {what} within {ANSWER_TIMEOUT_S:.0f} s")
            self.turn(left_s)

    # What paho calls, from within `turn`.

    def _connected(
        self,
        _client: mqtt.Client,
        _userdata: Any,
        flags: mqtt.ConnectFlags,
        reason: ReasonCode,
        properties: Properties | None,
    ) -> None:
        self._told["CONNACK"] = properties
        if reason.is_failure:
            self._refused = reason
        else:
            self._session_present = flags.session_present

    def _disconnected(
        self,
        _client: mqtt.Client,
        _userdata: Any,
        flags: mqtt.DisconnectFlags,
        reason: ReasonCode,
        properties: Properties | None,
    ) -> None:
        if flags.is_disconnect_packet_from_server:
            said = getattr(properties, "ReasonString", None) or str(reason)
            self._lost = ConnectionLost(f"the broker ended it: {said}", reason.value)
            self.address = self.address.after(reason.value, properties)
        else:
            self._lost = ConnectionLost("closed by the other side")

    def _message(self, _client: mqtt.Client, _userdata: Any, message: mqtt.MQTTMessage) -> None:
        if message.qos == 2:  # PUBREL: it was taken when it arrived
            self._taken.discard(message.mid)
        else:
            self._received.append(message)

    def _published(
        self,
        _client: mqtt.Client,
        _userdata: Any,
        packet_id: int,
        reason: ReasonCode,
        properties: Properties | None,
    ) -> None:
        said = getattr(properties, "ReasonString", "")
        its = user_properties_of(properties)
        self.acknowledged.append(Acknowledged(packet_id, reason, its, said))

    def _answered(
        self,
        _client: mqtt.Client,
        _userdata: Any,
        packet_id: int,
        reasons: list[ReasonCode],
        properties: Properties | None,
    ) -> None:
        self._answers[packet_id] = reasons
        self._told["SUBACK"] = properties

    def _take_received(self) -> None:
        for received in self._received:
            if not isinstance(received, int):
                self.arrived.append(received)
            elif received in self._taken:  # sent again, since our PUBREC did not arrive
                super()._send_pubrec(received)
            else:
                self.arrived.append(self._in_messages[received])
        self._received.clear()

    # paho's protected methods that this changes.

    def _handle_publish(self) -> MQTTErrorCode:
        """Take a message with no properties but User Properties; paho has the others, and QoS 2."""
        qos = (self._in_packet["command"] >> 1) & 3
        packet = self._in_packet["packet"]
        name_end = 2 + int.from_bytes(packet[:2])
        properties_at = name_end + (2 if qos else 0)
        found = None if qos == 2 else only_user_properties(packet, properties_at)
        if found is None:
            return super()._handle_publish()
        pairs, payload_at = found
        message = mqtt.MQTTMessage(
            int.from_bytes(packet[name_end:properties_at]), bytes(packet[2:name_end])
        )
        message.qos = qos
        message.retain = bool(self._in_packet["command"] & 1)
        message.payload = bytes(packet[payload_at:])
        if pairs:
            message.properties = OnlyUserProperties(pairs)
        self._received.append(message)
        return MQTTErrorCode.MQTT_ERR_SUCCESS

    def _handle_pubackcomp(self, cmd: Literal["PUBACK", "PUBCOMP"]) -> MQTTErrorCode:
        """Take an acknowledgement without properties; paho has the others."""
        packet = self._in_packet["packet"]
        packet_id = int.from_bytes(packet[:2])
        reason_code = packet[2] if len(packet) > 2 else SUCCESS
        if (
            len(packet) > 3
            or reason_code not in (SUCCESS, NO_MATCHING_SUBSCRIBERS)
            or packet_id not in self._out_messages
        ):
            return super()._handle_pubackcomp(cmd)
        return self._do_on_publish(packet_id, *_acknowledgement(cmd, reason_code))

    def _handle_pubrec(self) -> MQTTErrorCode:
        """One that refuses ends the exchange [MQTT-4.3.3-4]; paho would send PUBREL."""
        packet = self._in_packet["packet"]
        packet_id = int.from_bytes(packet[:2])
        if len(packet) < 3 or packet[2] < FAILURES or packet_id not in self._out_messages:
            return super()._handle_pubrec()
        reason = ReasonCode(PacketTypes.PUBREC, identifier=packet[2])
        return self._do_on_publish(packet_id, reason, packet_properties(PacketTypes.PUBREC))

    def _create_socket(self) -> BurstSocket:
        self._burst = None
        self._burst = burst_of(self.address, self._create_socket_connection(), ANSWER_TIMEOUT_S)
        return self._burst

    def _send_puback(self, mid: int) -> MQTTErrorCode:
        return MQTTErrorCode.MQTT_ERR_SUCCESS

    def _send_pubrec(self, mid: int) -> MQTTErrorCode:
        self._received.append(mid)
        return MQTTErrorCode.MQTT_ERR_SUCCESS


@lru_cache
def _acknowledgement(cmd: str, reason_code: int) -> tuple[ReasonCode, Properties]:
    packet_type = PacketTypes.PUBACK if cmd == "PUBACK" else PacketTypes.PUBCOMP
    return ReasonCode(packet_type, identifier=reason_code), packet_properties(packet_type)


def packet_properties(packet_type: int, user_properties: UserProperties = ()) -> Properties:
    properties = Properties(packet_type)  # type: ignore[no-untyped-call]  # paho leaves it so
    for pair in user_properties:
        properties.UserProperty = pair
    return properties
