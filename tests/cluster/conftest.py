"""Three nodes for each test: what is killed in one is not there in the next."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from broker.store.shared.jetstream import JetStreamLog
from tests.support.nodes import Nodes, Pair, broker_on, new_log, running_nodes


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[Nodes]:
    with running_nodes(tmp_path) as nodes:
        yield nodes


@pytest.fixture
def log(nodes: Nodes) -> JetStreamLog:
    return asyncio.run(new_log(nodes))


@pytest.fixture
def brokers(log: JetStreamLog, tmp_path: Path) -> Iterator[Pair]:
    with broker_on(log, tmp_path, "a") as a, broker_on(log, tmp_path, "b") as b:
        yield a, b
