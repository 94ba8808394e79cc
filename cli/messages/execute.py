"""`pubsub sub --exec`: a command for each message, and the message whose command failed.

The command gets the payload on its standard input and what is known of the message in its
environment. It runs in a process group of its own, so that a Ctrl-C ends nothing half done, and
that an end by us ends all that it has started.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from dataclasses import dataclass
from typing import Protocol

from paho.mqtt.client import MQTTMessage

from cli.messages.format import metadata
from cli.terminal import output

RETRY_FIRST_S = 1.0
RETRY_MAX_S = 60.0
TERMINATE_TIMEOUT_S = 5.0
GRACE_S = 30.0
TURN_S = 0.5
"""How often the connection has its turn while a command runs."""


@dataclass(slots=True)
class Failed:
    """A message that is tried again at monotonic second `due`."""

    message: MQTTMessage
    due: float
    pause_s: float


def put_off(message: MQTTMessage, reason: str, before: Failed | None, now: float) -> Failed | None:
    """Tell that the command failed, and when it is tried again; None: never, at QoS 0.

    `before`: what failed last; the pause doubles if that is the same message.
    """
    offset = metadata(message).get("offset")
    at = f", offset {offset}" if offset is not None else ""
    what = f"--exec {reason} on a message to {output.escaped(message.topic)}{at}"
    if message.qos == 0:
        output.error(f"{what}; at QoS 0 it is not tried again")
        return None
    pause_s = RETRY_FIRST_S
    if before is not None and before.message is message:
        pause_s = min(before.pause_s * 2, RETRY_MAX_S)
    output.error(f"{what}; it is not acknowledged, and tried again in {pause_s:g} s")
    return Failed(message, now + pause_s, pause_s)


@dataclass(slots=True, frozen=True)
class Command:
    """`timeout_s`: of one run, None: none. `grace_s`: after a first interrupt."""

    text: str
    timeout_s: float | None = None
    grace_s: float = GRACE_S


class Connection(Protocol):
    """What is kept while a command runs."""

    def turn(self) -> None:
        """Let the connection have its turn, or try to get it back. Raises KeyboardInterrupt at a
        second interrupt."""
        ...

    @property
    def interrupted(self) -> bool:
        """Whether we are asked to stop."""
        ...


def execute(
    command: Command,
    message: MQTTMessage,
    connection: Connection,
    attempt: int = 1,
) -> str:
    """Run the command and keep the connection; how it failed, "" if it succeeded.

    A first interrupt is for the caller to see afterwards: the command is waited for, `grace_s` at
    most. Then, and at a second one, it is terminated, with all that it has started: raises
    KeyboardInterrupt.
    """
    known = {"topic": message.topic, "qos": message.qos, "retain": int(message.retain)}
    environment = {
        f"PUBSUB_{name.upper()}": str(value)
        for name, value in (known | metadata(message) | {"attempt": attempt}).items()
    }
    try:
        process = subprocess.Popen(
            command.text,
            shell=True,
            stdin=subprocess.PIPE,
            env=os.environ | environment,
            process_group=0,  # A Ctrl-C is for us alone.
        )
    except OSError as error:
        return f"could not be started ({error.strerror})"
    try:
        if not _wait(process, bytes(message.payload), connection, command):
            _terminate(process)
            return f"took longer than {command.timeout_s:g} s"
    except KeyboardInterrupt:
        _terminate(process)
        raise
    if process.returncode < 0:
        return f"was ended by signal {-process.returncode}"
    return f"ended with exit code {process.returncode}" if process.returncode else ""


def _wait(
    process: subprocess.Popen[bytes],
    payload: bytes | None,
    connection: Connection,
    command: Command,
) -> bool:
    """Until it ends; False: it takes too long."""
    began = time.monotonic()
    asked_at: float | None = None
    while True:
        try:
            process.communicate(payload, timeout=_turn_s(began, command))
            return True
        except subprocess.TimeoutExpired:
            payload = None
        now = time.monotonic()
        if command.timeout_s is not None and now - began >= command.timeout_s:
            return False
        connection.turn()
        if connection.interrupted:
            asked_at = now if asked_at is None else asked_at
            if now - asked_at >= command.grace_s:
                output.error(f"--exec is ended: it did not end within {command.grace_s:g} s")
                raise KeyboardInterrupt


def _turn_s(began: float, command: Command) -> float:
    if command.timeout_s is None:
        return TURN_S
    return min(TURN_S, max(0.001, began + command.timeout_s - time.monotonic()))


def _terminate(process: subprocess.Popen[bytes]) -> None:
    """With everything that it has started."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=TERMINATE_TIMEOUT_S)
            return
