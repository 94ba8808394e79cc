"""paho-mqtt, the client of the Eclipse project."""

from __future__ import annotations

import os
import socket
from queue import Queue
from typing import Any, ClassVar, Literal

from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

from tests.support.peers.peer import (
    TIMEOUT_S,
    Message,
    Options,
    Peer,
    Subscription,
    UserProperties,
    Will,
)


class PahoPeer(Peer):
    host = "127.0.0.1"
    transport: ClassVar[Literal["tcp", "websockets", "unix"]] = "tcp"

    def __init__(self, port: int, version: int, options: Options) -> None:
        super().__init__(port, version, options)
        self._answers: dict[int, Queue[Any]] = {}
        self._connected: Queue[tuple[bool, int]] = Queue()
        self._client = Client(
            CallbackAPIVersion.VERSION2,
            options.client_id,
            protocol=MQTTProtocolVersion(version),
            transport=self.transport,
            reconnect_on_failure=False,
            clean_session=options.clean if version == 4 else None,
            manual_ack=not options.acknowledges,
        )
        self._client.on_connect = self._on_connect
        self._client.on_disconnect = self._on_disconnect
        self._client.on_message = self._on_message
        self._client.on_subscribe = self._on_subscribe
        self._client.on_unsubscribe = self._on_unsubscribe
        self._client.on_publish = self._on_publish
        if options.will is not None:
            message = options.will.message
            self._client.will_set(
                message.topic,
                message.payload,
                message.qos,
                message.retain,
                will_properties(options.will) if version == 5 else None,
            )
        self.secure(self._client)
        if version == 4:
            self._client.connect(self.host, port)
        else:
            self._client.connect(
                self.host, port, clean_start=options.clean, properties=connect_properties(options)
            )
        self._client.loop_start()
        self.session_present, reason_code = self._connected.get(timeout=TIMEOUT_S)
        assert reason_code == 0

    def secure(self, client: Client) -> None:
        """Before it connects."""

    def subscribe_to(self, subscription: Subscription) -> int:
        if self.version == 4:
            _, packet_id = self._client.subscribe(subscription.filter, subscription.qos)
        else:
            _, packet_id = self._client.subscribe(
                subscription.filter,
                options=subscribe_options(subscription),
                properties=subscribe_properties(subscription),
            )
        assert packet_id is not None
        code: int = self._answer(packet_id)
        return code

    def unsubscribe(self, filter: str) -> None:
        _, packet_id = self._client.unsubscribe(filter)
        assert packet_id is not None
        self._answer(packet_id)

    def send(self, message: Message, *, topic_alias: int | None = None) -> UserProperties | None:
        properties = publish_properties(message, topic_alias) if self.version == 5 else None
        info = self._client.publish(
            message.topic, message.payload, message.qos, message.retain, properties
        )
        answer: Properties | None = self._answer(info.mid)
        return list(getattr(answer, "UserProperty", []))

    def disconnect(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def cut(self) -> None:
        # Over WebSocket it is a wrapper that knows no shutdown.
        connection = self._client.socket()
        assert connection is not None
        with socket.socket(fileno=os.dup(connection.fileno())) as raw:
            raw.shutdown(socket.SHUT_RDWR)
        self._client.loop_stop()

    def _answer(self, packet_id: int) -> Any:
        return self._answers.setdefault(packet_id, Queue()).get(timeout=TIMEOUT_S)

    def _on_connect(self, client: Client, userdata: Any, flags: Any, code: Any, _: Any) -> None:
        self._connected.put((flags.session_present, code.value))

    def _on_disconnect(self, client: Client, userdata: Any, flags: Any, code: Any, _: Any) -> None:
        self.ended.put(code.value if flags.is_disconnect_packet_from_server else 0)

    def _on_message(self, client: Client, userdata: Any, message: MQTTMessage) -> None:
        self.inbox.put(received(message))

    def _on_subscribe(
        self, client: Client, userdata: Any, packet_id: int, codes: Any, _: Any
    ) -> None:
        self._answers.setdefault(packet_id, Queue()).put(codes[0].value)

    def _on_unsubscribe(
        self, client: Client, userdata: Any, packet_id: int, codes: Any, _: Any
    ) -> None:
        self._answers.setdefault(packet_id, Queue()).put(None)

    def _on_publish(
        self, client: Client, userdata: Any, packet_id: int, code: Any, properties: Any
    ) -> None:
        self._answers.setdefault(packet_id, Queue()).put(properties)


def connect_properties(options: Options) -> Properties:
    properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
    if options.expiry_s is not None:
        properties.SessionExpiryInterval = options.expiry_s
    if options.receive_maximum is not None:
        properties.ReceiveMaximum = options.receive_maximum
    if options.packet_bytes_max is not None:
        properties.MaximumPacketSize = options.packet_bytes_max
    return properties


def will_properties(will: Will) -> Properties:
    properties = Properties(PacketTypes.WILLMESSAGE)  # type: ignore[no-untyped-call]
    set_message_properties(properties, will.message)
    properties.WillDelayInterval = will.delay_s
    return properties


def subscribe_options(subscription: Subscription) -> SubscribeOptions:
    return SubscribeOptions(
        subscription.qos,
        subscription.no_local,
        subscription.retain_as_published,
        subscription.retain_handling,
    )


def subscribe_properties(subscription: Subscription) -> Properties:
    properties = Properties(PacketTypes.SUBSCRIBE)  # type: ignore[no-untyped-call]
    if subscription.id is not None:
        properties.SubscriptionIdentifier = subscription.id
    if subscription.user:
        properties.UserProperty = subscription.user
    return properties


def publish_properties(message: Message, topic_alias: int | None = None) -> Properties:
    properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
    set_message_properties(properties, message)
    if topic_alias is not None:
        properties.TopicAlias = topic_alias
    return properties


_PAHO_NAMES = {
    "MessageExpiryInterval": "expiry_s",
    "PayloadFormatIndicator": "payload_format",
    "ContentType": "content_type",
    "ResponseTopic": "response_topic",
    "CorrelationData": "correlation",
    "UserProperty": "user",
}


def set_message_properties(properties: Properties, message: Message) -> None:
    for theirs, ours in _PAHO_NAMES.items():
        value = getattr(message, ours)
        if value not in (None, []):
            setattr(properties, theirs, value)


def received(message: Any) -> Message:
    """A message as paho gives it; aiomqtt's have the same attributes."""
    ours = Message(str(message.topic), message.payload, message.qos, bool(message.retain))
    for theirs, name in _PAHO_NAMES.items():
        if hasattr(message.properties, theirs):
            setattr(ours, name, getattr(message.properties, theirs))
    ours.subscription_ids = list(getattr(message.properties, "SubscriptionIdentifier", []))
    return ours
