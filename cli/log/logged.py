"""A message of the log as one that was received or is to be sent, in the words of paho."""

from __future__ import annotations

import base64
from collections.abc import Mapping

from paho.mqtt.client import MQTTMessage
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from broker.message import Message
from cli.log.properties import named
from cli.net.client import packet_properties

PAHO_NAMES = {
    "payload_format": "PayloadFormatIndicator",
    "content_type": "ContentType",
    "response_topic": "ResponseTopic",
    "correlation_data": "CorrelationData",
    "correlation_data_base64": "CorrelationData",
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
        received.properties = packet_properties_of(named(message.properties))
    return received


def packet_properties_of(
    fields: Mapping[str, object], *, always: bool = False
) -> Properties | None:
    """Of a PUBLISH, from fields as `cli/log/properties.py` names them; None: there are none.

    Raises ValueError: correlation_data_base64 is no base64, user_properties are no pairs.
    """
    pairs = fields.get("user_properties", ())
    present = [name for name in PAHO_NAMES if name in fields]
    if not (present or pairs or always):
        return None
    if not isinstance(pairs, (list, tuple)):
        raise ValueError("its user_properties are no pairs")
    properties = packet_properties(PacketTypes.PUBLISH, [(name, text) for name, text in pairs])
    for name in present:
        value = fields[name]
        if name == "correlation_data_base64":
            value = base64.b64decode(str(value), validate=True)
        elif name == "correlation_data":
            value = str(value).encode()
        setattr(properties, PAHO_NAMES[name], value)
    return properties
