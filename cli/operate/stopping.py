"""Asks a broker to stop, and waits until its data directory is free."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from broker.plural import counted
from cli.operate.admin import Where, is_running, request
from cli.operate.remote import Remote
from cli.terminal import output
from cli.terminal.failure import CommandFailed

POLL_S = 0.05
LOOK_S = 1.0
"""A stop that takes longer is asked what it waits for."""
LOOK_AGAIN_S = 0.2
"""How often, while its disk takes nothing: the last answer is what the command ends with."""


def stop(where: Where, timeout: float, path: str = "/stop") -> None:
    """Asked by this path. Of a broker elsewhere nothing more is known. Raises CommandFailed."""
    request("POST", path, where)
    if isinstance(where, Remote):
        output.note(f"{where} stops; it takes no more connections")
    else:
        _wait(where, timeout)


def _wait(data_dir: Path, timeout: float) -> None:
    now = time.monotonic()
    deadline, look_at = now + timeout, now + LOOK_S
    waiting: dict[str, Any] = {}
    told = ""
    with output.waiting("waiting for the broker to end"):
        while is_running(data_dir):
            now = time.monotonic()
            if now > deadline:
                raise CommandFailed(
                    f"the broker on {data_dir}/ has not stopped within {timeout:g} s",
                    "it finishes what it has acknowledged; look again with: pubsub broker status",
                )
            if now >= look_at:
                waiting = _waiting(data_dir) or waiting
                look_at = now + (LOOK_AGAIN_S if waiting.get("disk") else LOOK_S)
                if waiting.get("disk") and told != (told := _what(waiting)):
                    output.note(
                        f"the broker waits: its disk is {waiting['disk']}, {told} not stored"
                    )
            time.sleep(POLL_S)
    if waiting.get("disk"):
        raise CommandFailed(
            f"stopped; {_what(waiting)} not stored, as the disk was {waiting['disk']}:"
            " no client was told that they are"
        )
    output.note("stopped")


def _waiting(data_dir: Path) -> dict[str, Any]:
    """What it has not stored; {}: it does not say, as it is about to end."""
    try:
        waiting = request("GET", "/status", data_dir).get("waiting", {})
    except CommandFailed:
        return {}
    assert isinstance(waiting, dict)
    return waiting


def _what(waiting: dict[str, Any]) -> str:
    messages = counted(waiting["messages"], "message")
    return f"{messages} and changes of {counted(waiting['sessions'], 'session')} are"
