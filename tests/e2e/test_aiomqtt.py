"""aiomqtt, with MQTT 3.1.1 and 5.0."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import Any

from aiomqtt import Client, MqttError, ProtocolVersion
from aiomqtt import Will as AiomqttWill

from tests.e2e.behaviour import Behaviour5
from tests.support.peers.paho import (
    connect_properties,
    publish_properties,
    received,
    subscribe_options,
    subscribe_properties,
    will_properties,
)
from tests.support.peers.peer import (
    AsyncPeer,
    Message,
    Options,
    Subscription,
    UserProperties,
    WithEventLoop,
)


class AiomqttPeer(AsyncPeer):
    def __init__(self, port: int, version: int, options: Options) -> None:
        super().__init__(port, version, options)
        self.run(self._connect())

    async def _connect(self) -> None:
        options, version = self.options, self.version
        will = None
        if options.will is not None:
            message = options.will.message
            properties = will_properties(options.will) if version == 5 else None
            will = AiomqttWill(
                message.topic, message.payload, message.qos, message.retain, properties
            )
        how: dict[str, Any] = (
            {"clean_session": options.clean}
            if version == 4
            else {"clean_start": options.clean, "properties": connect_properties(options)}
        )
        self._client = Client(
            "127.0.0.1",
            self.port,
            identifier=options.client_id,
            protocol=ProtocolVersion(version),
            will=will,
            **how,
        )
        self._client._client.manual_ack_set(not options.acknowledges)
        await self._client.__aenter__()
        self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        try:
            async for message in self._client.messages:
                self.inbox.put(received(message))
        except MqttError:
            self.ended.put(None)

    def subscribe_to(self, subscription: Subscription) -> int:
        [code] = self.run(self._subscribe(subscription))
        return int(getattr(code, "value", code))

    async def _subscribe(self, subscription: Subscription) -> Any:
        if self.version == 4:
            return await self._client.subscribe(subscription.filter, subscription.qos)
        return await self._client.subscribe(
            subscription.filter,
            options=subscribe_options(subscription),
            properties=subscribe_properties(subscription),
        )

    def unsubscribe(self, filter: str) -> None:
        self.run(self._client.unsubscribe(filter))

    def send(self, message: Message, *, topic_alias: int | None = None) -> UserProperties | None:
        self.run(
            self._client.publish(
                message.topic,
                message.payload,
                message.qos,
                message.retain,
                publish_properties(message, topic_alias) if self.version == 5 else None,
            )
        )
        return None

    def disconnect(self) -> None:
        self.run(self._disconnect())

    async def _disconnect(self) -> None:
        self._reading.cancel()
        with contextlib.suppress(MqttError):
            await self._client.__aexit__(None, None, None)

    def cut(self) -> None:
        self.run(self._cut())

    async def _cut(self) -> None:
        sock = self._client._client.socket()
        assert isinstance(sock, socket.socket)
        sock.shutdown(socket.SHUT_RDWR)
        await self._reading


class TestAiomqtt5(WithEventLoop, Behaviour5):
    """Not with 3.1.1: its protocol is that of paho, which `test_paho.py` tries with both."""

    peer = AiomqttPeer
    version = 5
