"""Fixtures of the tests that need a broker process; conftest.py in a folder names those it uses."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from itertools import count

import pytest

from broker.mqtt.packets import MQTT_3_1_1, MQTT_5, Connect
from tests.support.broker_process import BrokerProcess
from tests.support.raw_client import Dial, RawClient

_numbers = count(1)


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerProcess]:
    """Shared by a module's tests, which keep to topics and client identifiers of their own."""
    with BrokerProcess(tmp_path_factory.mktemp("broker")) as broker:
        yield broker
        assert broker.stop() == 0
    assert broker.complaints() == []


@pytest.fixture
def own_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerProcess]:
    """For one test, which may kill it. Then wills do not wait for their clients."""
    directory = tmp_path_factory.mktemp("broker")
    with BrokerProcess(directory, {"will_restart_grace_s": 0}) as broker:
        yield broker
    assert broker.complaints() == []


@pytest.fixture
def name() -> str:
    """A topic level and client identifier that no other test uses."""
    return f"test{next(_numbers)}"


@pytest.fixture
def dial(broker: BrokerProcess) -> Iterator[Dial]:
    """Connect to the module's broker, or to that at `port`."""
    with ExitStack() as stack:

        def dial(connect: Connect, *, port: int = 0, present: bool = False) -> RawClient:
            client = stack.enter_context(RawClient(port or broker.port, connect.version))
            connack = client.connect(connect)
            assert (connack.reason_code, connack.session_present) == (0, present)
            return client

        yield dial


@pytest.fixture(params=[MQTT_3_1_1, MQTT_5])
def version(request: pytest.FixtureRequest) -> int:
    version: int = request.param
    return version
