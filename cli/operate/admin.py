"""The broker that is administered: HTTP on the Unix socket of its data directory, or to one
elsewhere; and whether it is there."""

from __future__ import annotations

import contextlib
import fcntl
import json
import socket
from collections.abc import Mapping, Sequence
from http.client import HTTPConnection, HTTPException, HTTPResponse
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from broker.config import ADMIN_SOCKET, LOCK
from broker.net import unix
from cli.operate.remote import Remote
from cli.terminal import output
from cli.terminal.failure import CommandFailed, Exit

REQUEST_TIMEOUT_S = 10.0
WHERE_IT_IS = (
    "say where it keeps its log, on the machine where it runs: --data-dir DIR, or PUBSUB_DATA_DIR"
    " for every command"
)
"""A data directory was looked for in a wrong place, maybe."""
SAID_MAX = 100
"""Characters of an answer that is none of ours."""
_CODES = {400: Exit.USAGE, 404: Exit.NOTHING_THERE, 503: Exit.STORE_DAMAGED}
"""What ends the command when the broker refuses; else 1."""


Where = Path | Remote
"""A data directory, or a broker elsewhere."""


def request(
    method: str,
    path: str,
    where: Where,
    asked: Mapping[str, str] | None = None,
    *,
    body: Mapping[str, Any] | None = None,
    timeout_s: float = REQUEST_TIMEOUT_S,
) -> dict[str, Any]:
    """What it answers. `asked` are the parameters of the query, `body` goes as JSON.

    Raises CommandFailed: 69, it does not answer, 77, who asks has no right to, or by what else it
    refuses; ConfigError: the path is long.
    """
    if asked:
        path = f"{path}?{query(asked)}"
    headers: Mapping[str, str] = {}
    if isinstance(where, Remote):
        connection, headers = where.connection(timeout_s), where.headers
    else:
        connection = _Connection(unix.reachable(where / ADMIN_SOCKET), timeout_s)
    try:
        with output.waiting(f"waiting for {_named(where)} to answer"):
            content = None if body is None else json.dumps(body)
            connection.request(method, path, content, headers)
            answer = connection.getresponse()
            answered = answer.read()
    except (OSError, HTTPException) as error:
        raise _unanswered(where, error) from error
    finally:
        connection.close()
    return _content(where, answer, answered)


def _content(where: Where, answer: HTTPResponse, answered: bytes) -> dict[str, Any]:
    try:
        content = json.loads(answered)
    except ValueError:
        content = None
    if answer.status >= 400:
        if not isinstance(content, dict) or "error" not in content:
            said = answered.decode(errors="replace").partition("\n")[0][:SAID_MAX]
            said = output.escaped(f"{answer.status} {answer.reason}: {said}".rstrip(": "))
            raise _unanswered(where, HTTPException(said))
        why, remedy = content["error"], content.get("remedy", "")
        if isinstance(where, Remote) and answer.status in (401, 403):
            raise where.refused(answer.status, why, remedy)
        raise CommandFailed(why, remedy, _CODES.get(answer.status, Exit.FAILED))
    if not isinstance(content, dict):
        raise _unanswered(where, HTTPException("it does not speak of what was asked"))
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


def _unanswered(where: Where, error: OSError | HTTPException) -> CommandFailed:
    if isinstance(where, Remote):
        return where.failed(error)
    if isinstance(error, FileNotFoundError | ConnectionRefusedError):
        return CommandFailed(
            f"no broker is running on {where}/", how_to_start(where), Exit.UNREACHABLE
        )
    return CommandFailed(f"{_named(where)} does not answer: {error}", code=Exit.UNREACHABLE)


def _named(where: Where) -> str:
    return str(where) if isinstance(where, Remote) else f"the broker on {where}/"


class _Connection(HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: str, timeout_s: float) -> None:
        super().__init__("broker", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def without_broker(where: Where) -> Path | None:
    """The data directory, if no broker has it; None: ask the broker."""
    return None if isinstance(where, Remote) or is_running(where) else where


def is_running(data_dir: Path) -> bool:
    """Whether a broker holds the lock of its data directory: the last that it gives up."""
    with contextlib.suppress(FileNotFoundError), (data_dir / LOCK).open() as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
