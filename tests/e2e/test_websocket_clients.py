"""MQTT over WebSocket: real clients see what they see over TCP.

In MQTT 5, which has all that 3.1.1 has: over TCP both clients are tried with both versions, and
what carries the bytes knows of neither.
"""

from __future__ import annotations

from tests.e2e.behaviour import Behaviour5
from tests.support.peers.mqttjs import NEEDS_MQTTJS, MqttJsPeer, WithNode
from tests.support.peers.paho import PahoPeer


class MqttJsOverWebSocket(MqttJsPeer):
    over = {"protocol": "ws", "path": "/mqtt"}  # noqa: RUF012


class TestMqttJs5(WithNode, Behaviour5):
    pytestmark = NEEDS_MQTTJS
    peer = MqttJsOverWebSocket
    version = 5


class PahoOverWebSocket(PahoPeer):
    transport = "websockets"


class TestPaho5(Behaviour5):
    peer = PahoOverWebSocket
    version = 5
