"""What holds for every run: its options, what is random in it, and the standards at its end."""

from __future__ import annotations

import gc
import os
import random
from functools import partial
from threading import Thread

import pytest
from hypothesis import settings

from tests.conformance.table import summary

WORKERS_PER_CORE = 2

pytest.register_assert_rewrite("tests.support", "tests.e2e.behaviour")

# A test that fails before it closes its store leaves threads behind. Were they not daemons, the end
# of Python would wait for them for ever.
pytest.MonkeyPatch().setattr("aiosqlite.core.Thread", partial(Thread, daemon=True))

# Commands that tests run are not to find the brokers of whoever runs the tests.
os.environ["XDG_CONFIG_HOME"] = "/nonexistent"
for _name in ("URL", "USER", "PASSWORD_FILE", "CAFILE"):
    os.environ.pop(f"PUBSUB_{_name}", None)

settings.register_profile("here", deadline=None, print_blob=True, max_examples=50)
settings.register_profile("ci", settings.get_profile("here"), derandomize=True, database=None)
settings.register_profile("quick", settings.get_profile("here"), max_examples=10)
settings.register_profile("soak", settings.get_profile("here"), max_examples=1000)
settings.load_profile("ci" if "CI" in os.environ else "here")
"""New examples in each run, those that once failed first; in CI the same ones each time. `make
quick` tries fewer, `make soak` many more: `tests/support/trials.py`. No deadline: a machine that is
busy is not a fault."""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """`-n logical`: a worker for each core, and one for when another waits for the disk. `-n auto`:
    more, for tests with processes of their own, which wait most of the time: for a process that
    starts, for an answer, for a timer."""
    cores = os.cpu_count() or 1
    return cores + 1 if config.option.numprocesses == "logical" else WORKERS_PER_CORE * cores


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--cycles", type=int, default=10, help="kills per crash test")
    parser.addoption("--seed", type=int, default=None, help="repeat the crash test of this seed")


gc.disable()


def pytest_collection_finish() -> None:
    """What is collected stays: the cycle collector need not look at it again and again, neither
    while that happens nor later."""
    gc.enable()
    gc.collect()
    gc.freeze()


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


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Here, as only this conftest is known to the process that prints for several workers."""
    passed = terminalreporter.getreports("passed")
    if any(report.nodeid.startswith("tests/conformance/") for report in passed):
        terminalreporter.write_line(summary())
