"""MQTT.js, with MQTT 3.1.1 and 5.0."""

from __future__ import annotations

from tests.e2e.behaviour import Behaviour, Behaviour5
from tests.support.peers.mqttjs import NEEDS_MQTTJS, MqttJsPeer, WithNode

pytestmark = NEEDS_MQTTJS


class TestMqttJs311(WithNode, Behaviour):
    peer = MqttJsPeer
    version = 4


class TestMqttJs5(WithNode, Behaviour5):
    peer = MqttJsPeer
    version = 5
