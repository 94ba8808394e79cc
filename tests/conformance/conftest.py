"""A line on the table of statements at the end of the run."""

from __future__ import annotations

import pytest

from tests.conformance.table import summary
from tests.support.fixtures import broker, dial, name, own_broker, version

__all__ = ["broker", "dial", "name", "own_broker", "version"]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    terminalreporter.write_line(summary())
