"""The broker and the raw client of the end-to-end tests, and a line on the table at the end."""

from __future__ import annotations

import pytest

from tests.conformance.table import summary
from tests.e2e.conftest import broker, name, own_broker
from tests.e2e.test_flow import dial, version

__all__ = ["broker", "dial", "name", "own_broker", "version"]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    terminalreporter.write_line(summary())
