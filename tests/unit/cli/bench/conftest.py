from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest

from cli.bench.connection import Loop
from tests.support.scripted_broker import ScriptedBroker


@pytest.fixture
def loop() -> Iterator[Loop]:
    with closing(Loop()) as loop:
        yield loop


@pytest.fixture
def broker() -> Iterator[ScriptedBroker]:
    with closing(ScriptedBroker()) as broker:
        yield broker
