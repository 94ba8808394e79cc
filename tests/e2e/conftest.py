"""What the end-to-end tests share: a broker process for each module, and unused names."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

import pytest

pytest.register_assert_rewrite("tests.e2e.behaviour", "tests.e2e.peer", "tests.e2e.wire")

from tests.e2e.process import Broker  # noqa: E402

_numbers = count(1)


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """Shared by a module's tests, which keep to topics and client identifiers of their own."""
    with Broker(tmp_path_factory.mktemp("broker")) as broker:
        yield broker
        assert broker.stop() == 0
    assert broker.complaints() == []


@pytest.fixture
def own_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """For one test, which may kill it."""
    with Broker(tmp_path_factory.mktemp("broker")) as broker:
        yield broker
    assert broker.complaints() == []


@pytest.fixture
def name() -> str:
    """A topic level and client identifier that no other test uses."""
    return f"test{next(_numbers)}"
