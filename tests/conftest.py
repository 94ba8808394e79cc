"""Options of the test run."""

from __future__ import annotations

import random

import pytest

pytest.register_assert_rewrite("tests.support", "tests.e2e.behaviour")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--cycles", type=int, default=20, help="kills per crash test")
    parser.addoption("--seed", type=int, default=None, help="repeat the crash test of this seed")


@pytest.fixture
def cycles(request: pytest.FixtureRequest) -> int:
    cycles: int = request.config.getoption("--cycles")
    return cycles


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """Drives every random choice of a crash test; what is printed is shown when the test fails."""
    seed: int | None = request.config.getoption("--seed")
    if seed is None:
        seed = random.randrange(1 << 32)
    print(f"repeat with: pytest tests/crash --seed {seed}")
    return seed
