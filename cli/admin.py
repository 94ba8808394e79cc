"""`pubsub broker status` and `stop`: HTTP to the running broker, on the Unix socket it opened."""

from __future__ import annotations

import contextlib
import fcntl
import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx

from broker.config import ADMIN_SOCKET, LOCK
from broker.net import unix
from cli import output
from cli.failure import CommandFailed, Exit

REQUEST_TIMEOUT_S = 10.0
POLL_S = 0.05


def status(data_dir: Path, *, as_json: bool) -> None:
    answer = _request("GET", "/status", data_dir)
    if as_json:
        output.text(json.dumps(answer) + "\n")
        return
    rows = list(_flat(answer))
    width = max(len(name) for name, _ in rows)
    output.text("".join(f"{name:<{width}}  {output.escaped(value)}\n" for name, value in rows))


def stop(data_dir: Path, *, timeout_s: float) -> None:
    """Returns when the broker has given its data directory up."""
    _request("POST", "/stop", data_dir)
    deadline = time.monotonic() + timeout_s
    while _in_use(data_dir):
        if time.monotonic() > deadline:
            raise CommandFailed(
                f"the broker on {data_dir}/ has not stopped within {timeout_s:g} s",
                "it finishes what it has acknowledged; look again with: pubsub broker status",
            )
        time.sleep(POLL_S)
    output.note("stopped")


def _request(method: str, path: str, data_dir: Path) -> dict[str, Any]:
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


def _in_use(data_dir: Path) -> bool:
    """Whether a broker holds the lock of its data directory: the last that it gives up."""
    with contextlib.suppress(FileNotFoundError), (data_dir / LOCK).open() as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _flat(answer: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in answer.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", str(value)
