"""paho-mqtt, the client of the Eclipse project, with MQTT 3.1.1 and 5.0."""

from __future__ import annotations

from tests.e2e.behaviour import Behaviour, Behaviour5
from tests.support.peers.paho import PahoPeer


class TestPaho311(Behaviour):
    peer = PahoPeer
    version = 4


class TestPaho5(Behaviour5):
    peer = PahoPeer
    version = 5
