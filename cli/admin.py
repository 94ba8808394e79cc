"""The broker that has a data directory: HTTP on the Unix socket in it, and whether it is there."""

from __future__ import annotations

import contextlib
import fcntl
from pathlib import Path
from typing import Any

import httpx

from broker.config import ADMIN_SOCKET, LOCK
from broker.net import unix
from cli.failure import CommandFailed, Exit

REQUEST_TIMEOUT_S = 10.0


def request(method: str, path: str, data_dir: Path) -> dict[str, Any]:
    """What it answers. Raises CommandFailed (69) if it does not, ConfigError: the path is long."""
    transport = httpx.HTTPTransport(uds=unix.reachable(data_dir / ADMIN_SOCKET))
    with httpx.Client(
        transport=transport, base_url="http://broker", timeout=REQUEST_TIMEOUT_S
    ) as client:
        try:
            answer = client.request(method, path).raise_for_status().json()
        except httpx.ConnectError as error:
            start = "pubsub broker start"
            if data_dir != Path("data"):
                start += f" --data-dir {data_dir}"
            raise CommandFailed(
                f"no broker is running on {data_dir}/", f"start it with: {start}", Exit.UNREACHABLE
            ) from error
        except httpx.HTTPError as error:
            raise CommandFailed(
                f"the broker on {data_dir}/ does not answer: {error}", code=Exit.UNREACHABLE
            ) from error
    assert isinstance(answer, dict)
    return answer


def is_running(data_dir: Path) -> bool:
    """Whether a broker holds the lock of its data directory: the last that it gives up."""
    with contextlib.suppress(FileNotFoundError), (data_dir / LOCK).open() as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
