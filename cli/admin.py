"""The broker that has a data directory: HTTP on the Unix socket in it, and whether it is there."""

from __future__ import annotations

import contextlib
import fcntl
import json
import socket
from collections.abc import Mapping, Sequence
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from broker.config import ADMIN_SOCKET, LOCK
from broker.net import unix
from cli import output
from cli.failure import CommandFailed, Exit

REQUEST_TIMEOUT_S = 10.0
WHERE_IT_IS = (
    "say where it keeps its log, on the machine where it runs: --data-dir DIR, or PUBSUB_DATA_DIR"
    " for every command"
)
"""A data directory was looked for in a wrong place, maybe."""
_CODES = {400: Exit.USAGE, 404: Exit.NOTHING_THERE, 503: Exit.STORE_DAMAGED}
"""What ends the command when the broker refuses; else 1."""


def request(
    method: str,
    path: str,
    data_dir: Path,
    asked: Mapping[str, str] | None = None,
    *,
    body: Mapping[str, Any] | None = None,
    timeout_s: float = REQUEST_TIMEOUT_S,
) -> dict[str, Any]:
    """What it answers. `asked` are the parameters of the query, `body` goes as JSON.

    Raises CommandFailed: 69, it does not answer, or by what it refuses; ConfigError: the path is
    long.
    """
    if asked:
        path = f"{path}?{query(asked)}"
    connection = _Connection(unix.reachable(data_dir / ADMIN_SOCKET), timeout_s)
    try:
        with output.waiting(f"waiting for the broker on {data_dir}/ to answer"):
            connection.request(method, path, None if body is None else json.dumps(body))
            answer = connection.getresponse()
            answered = answer.read()
    except (FileNotFoundError, ConnectionRefusedError) as error:
        raise CommandFailed(
            f"no broker is running on {data_dir}/", how_to_start(data_dir), Exit.UNREACHABLE
        ) from error
    except (OSError, HTTPException) as error:
        raise _silent(data_dir, str(error)) from error
    finally:
        connection.close()
    try:
        content = json.loads(answered)
    except ValueError:
        content = None
    if answer.status >= 400:
        if isinstance(content, dict) and "error" in content:
            code = _CODES.get(answer.status, Exit.FAILED)
            raise CommandFailed(content["error"], content.get("remedy", ""), code)
        raise _silent(data_dir, f"{answer.status} {answer.reason}")
    assert isinstance(content, dict)
    return content


def how_to_start(data_dir: Path) -> str:
    """Or where to look, as the broker may have been started in another directory."""
    option = "" if data_dir == Path("data") else f" --data-dir {data_dir}"
    return f"start it with: pubsub broker start{option}; or {WHERE_IT_IS}"


def query(asked: Mapping[str, str] | Sequence[tuple[str, str]]) -> str:
    """As the query of a path. Raises CommandFailed: a byte of the command line is no UTF-8."""
    try:
        return urlencode(asked)
    except UnicodeEncodeError as error:
        raise CommandFailed(f"{error.object!r} is not valid UTF-8", code=Exit.USAGE) from error


def _silent(data_dir: Path, why: str) -> CommandFailed:
    said = f"the broker on {data_dir}/ does not answer: {why}"
    return CommandFailed(said, code=Exit.UNREACHABLE)


class _Connection(HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: str, timeout_s: float) -> None:
        super().__init__("broker", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def is_running(data_dir: Path) -> bool:
    """Whether a broker holds the lock of its data directory: the last that it gives up."""
    with contextlib.suppress(FileNotFoundError), (data_dir / LOCK).open() as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
