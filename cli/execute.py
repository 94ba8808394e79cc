"""`pubsub sub --exec`: a command for each message, and the message whose command failed.

A message whose command failed is not acknowledged and tried again here, after growing pauses. The
messages behind it wait, since acknowledgements must keep the order [MQTT-4.6.0-2]; those of QoS 0
do not, and the other members of a group get theirs. When the worker leaves, the broker gives the
message to another member, or sends it at the next start.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from dataclasses import dataclass

from paho.mqtt.client import MQTTMessage

from cli import output
from cli.client import Client
from cli.failure import ConnectionLost
from cli.format import metadata

RETRY_FIRST_S = 1.0
RETRY_MAX_S = 60.0
TERMINATE_TIMEOUT_S = 5.0
TURN_S = 1.0
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


def execute(command: str, message: MQTTMessage, client: Client) -> str:
    """Run the command and keep the connection; how it failed, "" if it succeeded.

    A first interrupt is for the caller to see afterwards: the command is waited for. A second one
    raises KeyboardInterrupt and terminates it.
    """
    known = {"topic": message.topic, "qos": message.qos, "retain": int(message.retain)}
    environment = {
        f"PUBSUB_{name.upper()}": str(value) for name, value in (known | metadata(message)).items()
    }
    try:
        process = subprocess.Popen(
            command, shell=True, stdin=subprocess.PIPE, env=os.environ | environment
        )
    except OSError as error:
        return f"could not be started ({error.strerror})"
    try:
        _wait(process, bytes(message.payload), client)
    except KeyboardInterrupt:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(TERMINATE_TIMEOUT_S)
        raise
    if process.returncode < 0:
        return f"was ended by signal {-process.returncode}"
    return f"ended with exit code {process.returncode}" if process.returncode else ""


def _wait(process: subprocess.Popen[bytes], payload: bytes | None, client: Client) -> None:
    connected = True
    while True:
        try:
            process.communicate(payload, timeout=TURN_S)
            return
        except subprocess.TimeoutExpired:
            payload = None
        if connected:
            try:
                client.turn(0, interruptible=False)
            except ConnectionLost:
                connected = False  # the next turn says it again
