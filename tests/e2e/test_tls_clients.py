"""MQTT over TLS, and over WebSocket in TLS: real clients see what they see over TCP."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from paho.mqtt.client import Client

from tests.e2e.behaviour import Behaviour5
from tests.support.peers.mqttjs import NEEDS_MQTTJS, MqttJsPeer, WithNode
from tests.support.peers.paho import PahoPeer
from tests.support.peers.peer import Options
from tests.support.tls_broker import TlsBroker


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TlsBroker]:
    with TlsBroker(tmp_path_factory.mktemp("broker")) as broker:
        SecurePaho.ca = str(broker.network.ca)
        SecureMqttJs.over["ca"] = broker.network.ca.read_text()
        yield broker
        assert broker.stop() == 0
    assert broker.complaints() == []


@pytest.fixture
def own_broker(tmp_path_factory: pytest.TempPathFactory, broker: TlsBroker) -> Iterator[TlsBroker]:
    """With the same certificates."""
    with TlsBroker(tmp_path_factory.mktemp("broker"), network=broker.network) as own:
        yield own
    assert own.complaints() == []


class SecurePaho(PahoPeer):
    ca = ""

    def __init__(self, port: int, version: int, options: Options) -> None:
        super().__init__(TlsBroker.tls_ports[port], version, options)

    def secure(self, client: Client) -> None:
        client.tls_set(ca_certs=self.ca)


class SecureWebPaho(SecurePaho):
    transport = "websockets"


class SecureMqttJs(MqttJsPeer):
    over = {"protocol": "wss", "path": "/mqtt", "ca": ""}  # noqa: RUF012

    def __init__(self, port: int, version: int, options: Options) -> None:
        super().__init__(TlsBroker.tls_ports[port], version, options)


class TestPaho5(Behaviour5):
    peer = SecurePaho
    version = 5


class TestPahoOverWebSocket5(Behaviour5):
    peer = SecureWebPaho
    version = 5


class TestMqttJsOverWebSocket5(WithNode, Behaviour5):
    pytestmark = NEEDS_MQTTJS
    peer = SecureMqttJs
    version = 5
