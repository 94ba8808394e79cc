"""A message of the log as one that was received, for what is written of received ones (`-F`)."""

from __future__ import annotations

import base64

from paho.mqtt.client import MQTTMessage
from paho.mqtt.packettypes import PacketTypes

from broker.message import Message
from cli.client import packet_properties
from cli.properties import named

PAHO_NAMES = {
    "payload_format": "PayloadFormatIndicator",
    "content_type": "ContentType",
    "response_topic": "ResponseTopic",
}


class LoggedMessage(MQTTMessage):
    """`logged` is what the log knows of it; a message that was received has that in its
    properties, if anywhere."""

    __slots__ = ("logged",)

    def __init__(self, message: Message) -> None:
        super().__init__(0, message.topic.encode())
        self.logged = message
        self.payload = message.payload
        self.qos = message.qos
        self.retain = message.retain


def as_received(message: Message) -> LoggedMessage:
    received = LoggedMessage(message)
    if message.properties:
        fields = named(message.properties)
        found = packet_properties(PacketTypes.PUBLISH)
        for name, value in fields.items():
            if name == "user_properties":
                assert isinstance(value, list)
                for pair in value:
                    found.UserProperty = tuple(pair)
            elif name == "correlation_data_base64":
                found.CorrelationData = base64.b64decode(str(value))
            elif name == "correlation_data":
                found.CorrelationData = str(value).encode()
            else:
                setattr(found, PAHO_NAMES[name], value)
        received.properties = found
    return received
