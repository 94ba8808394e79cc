"""Core dumps: the broker leaves none. In its memory are messages, passwords and the keys of TLS."""

from __future__ import annotations

import ctypes
import resource
import sys

PR_SET_DUMPABLE = 4
"""See prctl(2). The limit alone does not hold where a program takes core dumps (core_pattern)."""


def forbid() -> None:
    """Of this process and those that it starts. Nobody but root can look into it with a debugger
    then."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
