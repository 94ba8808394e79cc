"""Open files: each connection is one, and the store needs some."""

from __future__ import annotations

import resource

FILES_RESERVED = 100
"""Open files that the rest of the broker may need."""


def connections_possible(wanted: int) -> int:
    """How many connections, at most `wanted`, our open files suffice for (`ulimit -n`).

    The soft limit, which is often 1024 for the sake of old programs, is raised for that.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    files = wanted + FILES_RESERVED
    if hard != resource.RLIM_INFINITY:
        files = min(files, hard)
    if soft != resource.RLIM_INFINITY and soft < files:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (files, hard))
        except (OSError, ValueError):  # macOS has a lower limit that it does not tell.
            files = soft
    return max(1, files - FILES_RESERVED)
