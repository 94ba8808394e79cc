"""gmqtt, with MQTT 3.1.1 and 5.0."""

from __future__ import annotations

import asyncio
from typing import Any

from gmqtt import Client
from gmqtt import Message as GmqttMessage
from gmqtt import Subscription as GmqttSubscription
from gmqtt.storage import PersistentStorage

from tests.e2e.behaviour import Behaviour, Behaviour5
from tests.support.peers.peer import (
    AsyncPeer,
    Message,
    Options,
    Subscription,
    UserProperties,
    WithEventLoop,
)

NO_RECONNECT = {"reconnect_retries": -2}
"""With 0 it tries once, and -1 is for ever."""


class GmqttPeer(AsyncPeer):
    def __init__(self, port: int, version: int, options: Options) -> None:
        super().__init__(port, version, options)
        self._answers: dict[int, asyncio.Future[int]] = {}
        self.run(self._connect())

    async def _connect(self) -> None:
        options = self.options
        will = None
        if options.will is not None:
            delay = {"will_delay_interval": options.will.delay_s}
            will = gmqtt_message(options.will.message, **delay)
        self._unacknowledged = PersistentStorage()
        self._client = Client(
            options.client_id,
            options.clean,
            # Otherwise it acknowledges what a coroutine has handled, and `_on_message` is none.
            optimistic_acknowledgement=options.acknowledges,
            will_message=will,
            persistent_storage=self._unacknowledged,
            **stated(
                session_expiry_interval=options.expiry_s,
                receive_maximum=options.receive_maximum,
                maximum_packet_size=options.packet_bytes_max,
            ),
        )
        self._client.set_config(NO_RECONNECT)
        self._client.on_connect = self._on_connect
        self._client.on_disconnect = self._on_disconnect
        self._client.on_message = self._on_message
        self._client.on_subscribe = self._on_subscribe
        self._client.on_unsubscribe = self._on_unsubscribe
        await self._client.connect("127.0.0.1", self.port, version=self.version)

    def subscribe_to(self, subscription: Subscription) -> int:
        return self.run(self._subscribe(subscription))

    async def _subscribe(self, subscription: Subscription) -> int:
        options = GmqttSubscription(
            subscription.filter,
            subscription.qos,
            subscription.no_local,
            subscription.retain_as_published,
            subscription.retain_handling,
            subscription.id,
        )
        user = {"user_property": subscription.user} if subscription.user else {}
        return await self._answer(self._client.subscribe(options, **user))

    def unsubscribe(self, filter: str) -> None:
        self.run(self._unsubscribe(filter))

    async def _unsubscribe(self, filter: str) -> None:
        await self._answer(self._client.unsubscribe(filter))

    def send(self, message: Message, *, topic_alias: int | None = None) -> UserProperties | None:
        self.run(self._publish(gmqtt_message(message, topic_alias=topic_alias)))
        return None

    async def _publish(self, message: GmqttMessage) -> None:
        self._client.publish(message)
        await self._unacknowledged.wait_empty()

    def disconnect(self) -> None:
        self.run(self._client.disconnect())

    def cut(self) -> None:
        self.run(self._client._connection.close())

    async def _answer(self, packet_id: int) -> int:
        self._answers[packet_id] = self.loop.create_future()
        return await self._answers[packet_id]

    def _on_connect(self, client: Client, session_present: int, code: int, _: Any) -> None:
        self.session_present = bool(session_present)

    def _on_disconnect(self, client: Client, packet: bytes) -> None:
        self.ended.put(packet[0] if packet else 0)

    def _on_message(
        self, client: Client, topic: str, payload: bytes, qos: int, properties: dict[str, Any]
    ) -> None:
        self.inbox.put(received(topic, payload, qos, properties))

    def _on_subscribe(
        self, client: Client, packet_id: int, codes: tuple[int, ...], properties: Any
    ) -> None:
        self._answers.pop(packet_id).set_result(codes[0])

    def _on_unsubscribe(self, client: Client, packet_id: int, codes: tuple[int, ...]) -> None:
        self._answers.pop(packet_id).set_result(0)


_GMQTT_NAMES = {
    "message_expiry_interval": "expiry_s",
    "payload_format_id": "payload_format",
    "content_type": "content_type",
    "response_topic": "response_topic",
    "correlation_data": "correlation",
}


def stated(**properties: Any) -> dict[str, Any]:
    return {name: value for name, value in properties.items() if value is not None}


def gmqtt_message(message: Message, **properties: Any) -> GmqttMessage:
    for theirs, ours in _GMQTT_NAMES.items():
        properties[theirs] = getattr(message, ours)
    return GmqttMessage(
        message.topic,
        message.payload,
        message.qos,
        message.retain,
        **stated(**properties, user_property=message.user or None),
    )


def received(topic: str, payload: bytes, qos: int, properties: dict[str, Any]) -> Message:
    """gmqtt has a list of the values of each property."""
    message = Message(topic, payload, qos, bool(properties["retain"]))
    for theirs, ours in _GMQTT_NAMES.items():
        if theirs in properties:
            [value] = properties[theirs]
            setattr(message, ours, value)
    message.user = properties.get("user_property", [])
    message.subscription_ids = properties.get("subscription_identifier", [])
    return message


class TestGmqtt311(WithEventLoop, Behaviour):
    peer = GmqttPeer
    version = 4


class TestGmqtt5(WithEventLoop, Behaviour5):
    peer = GmqttPeer
    version = 5
