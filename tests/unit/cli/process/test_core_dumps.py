"""The broker leaves no core dump."""

from __future__ import annotations

import subprocess
import sys

import pytest

SCRIPT = """
import ctypes, resource
from cli.process.core_dumps import forbid
forbid()
print(resource.getrlimit(resource.RLIMIT_CORE), ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="prctl is Linux's")
def test_neither_the_limit_nor_the_process_allows_one() -> None:
    said = subprocess.run(
        [sys.executable, "-c", SCRIPT], stdout=subprocess.PIPE, timeout=30, check=True
    ).stdout
    assert said == b"(0, 0) 0\n"
