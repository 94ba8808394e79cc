"""Worker: what becomes of a message whose command (`--exec`) succeeded or failed.

- It is acknowledged when the command succeeded.
- Failed, in a group that `pubsub group create` made: it is refused, and the broker tries it again.
- Failed, in a group that `$share/...` made: there a refusal is final [MQTT-4.8.2-6]. So it is tried
  again here, after growing pauses, and refused after ATTEMPTS_MAX: then it is a dead letter.
- Failed, in no group: it is tried again here until it succeeds. Nobody else could have it.

While one is tried again here the messages behind it wait, since acknowledgements must keep the
order [MQTT-4.6.0-2]; those of QoS 0 do not.

A connection that breaks while a command runs is got back meanwhile. The broker keeps the message
for us then (after a clean stop of it), and it is acknowledged when it comes again, not done twice.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from paho.mqtt.client import PUBACK, MQTTMessage

from broker.topics import is_shared
from cli.messages.execute import Command, Connection, Failed, execute, put_off
from cli.messages.format import metadata
from cli.net.client import Client
from cli.net.user_properties import user_properties_of
from cli.terminal import output
from cli.terminal.failure import CommandFailed, ConnectionLost
from cli.terminal.interrupt import Interrupt

ATTEMPTS_MAX = 5
RECONNECT_S = 2.0
"""Pause between two attempts to connect while a command runs."""
REFUSED = 0x80
REASON_STRING = 0x1F
REFUSALS = "refusals"
"""User Property of a SUBACK that says whether the broker tries again what is refused."""

Key = tuple[object, ...]


class Worker(Connection):
    def __init__(
        self,
        client: Client,
        interrupt: Interrupt,
        command: Command,
        filters: tuple[str, ...],
        reconnect: Callable[[], None],
    ) -> None:
        self.failed: Failed | None = None
        """The message that is tried again here."""
        self._client = client
        self._interrupt = interrupt
        self._command = command
        self._shared = bool(filters) and all(map(is_shared, filters))
        self._reconnect = reconnect
        self._tries = 0
        """Of the message in `failed`."""
        self._connected = True
        self._connect_at = 0.0
        self._last: Key | None = None
        """What was acknowledged last: it is not known whether that arrived ..."""
        self._maybe_done: Key | None = None
        """... and the connection was lost since."""

    @property
    def connected(self) -> bool:
        """Whether the connection on which the last message came is still there."""
        return self._connected

    @property
    def interrupted(self) -> bool:
        return self._interrupt.requested

    def lost(self) -> None:
        """The connection is gone. The broker sends again what was not acknowledged, to us or to
        another of the group."""
        self.failed, self._tries = None, 0
        self._maybe_done, self._last = self._maybe_done or self._last, None

    def deal_with(self, message: MQTTMessage) -> bool:
        """Run the command. Whether the message is done; if not, it was refused, or is kept."""
        key = key_of(message)
        maybe, self._maybe_done = self._maybe_done, None
        self._connected = True
        if maybe is not None and maybe == key:
            self._acknowledge(message, key)
            return True
        again = self.failed is not None and self.failed.message is message
        self._tries = self._tries + 1 if again else 1
        told = user_properties_of(message.properties).get("attempt", "")
        tried = int(told) if told.isdigit() else 1
        reason = execute(self._command, message, self, tried + self._tries - 1)
        if not reason:
            self._forget(message)
            self._acknowledge(message, key)
            return True
        self._interrupt.check()  # What was asked to stop is not to blame.
        if not self._connected:
            self._forget(message)
            output.error(f"--exec {reason}; the broker sends the message again")
        elif self._is_refused(message):
            self._forget(message)
            on = output.escaped(message.topic)
            output.error(f"--exec {reason} on a message to {on}; it is refused")
            self._client.refuse(message, refusal(message.mid, reason.removeprefix("ended with ")))
        else:
            self.failed = put_off(message, reason, self.failed, time.monotonic()) or self.failed
        return False

    def _is_refused(self, message: MQTTMessage) -> bool:
        if message.qos != 1 or not self._shared:
            return False
        retried = self._client.granted().get(REFUSALS) == "retried"
        return retried or self._tries >= ATTEMPTS_MAX

    def _forget(self, message: MQTTMessage) -> None:
        if self.failed is not None and self.failed.message is message:
            self.failed, self._tries = None, 0

    def _acknowledge(self, message: MQTTMessage, key: Key | None) -> None:
        if self._connected:
            self._client.acknowledge([message])
            self._last = key
        else:
            self._maybe_done = key  # It comes again, under another Packet Identifier.

    def turn(self) -> None:
        try:
            if self._connected:
                self._client.turn(0, interruptible=False)
            elif time.monotonic() >= self._connect_at and not self._interrupt.requested:
                self._connect_at = time.monotonic() + RECONNECT_S
                self._reconnect()
                self._connect_at = float("inf")
            elif self._connect_at == float("inf"):
                self._client.turn(0, interruptible=False)
        except ConnectionLost:
            self._connected = False
            self._connect_at = time.monotonic() + RECONNECT_S
        except (CommandFailed, KeyboardInterrupt):  # An interrupt is looked at by who waits.
            self._connect_at = time.monotonic() + RECONNECT_S


def key_of(message: MQTTMessage) -> Key | None:
    """What tells a message of the log from all others; None: the broker does not say."""
    known = metadata(message)
    if "offset" not in known:
        return None
    return (*sorted(known.items()), message.topic, bytes(message.payload))


def refusal(packet_id: int, reason: str) -> bytes:
    """A PUBACK with Reason Code 0x80 and a Reason String."""
    encoded = reason.encode()[:200]
    properties = bytes([REASON_STRING]) + len(encoded).to_bytes(2) + encoded
    length = _varint(len(properties))
    body = packet_id.to_bytes(2) + bytes([REFUSED]) + length + properties
    return bytes([PUBACK]) + _varint(len(body)) + body


def _varint(number: int) -> bytes:
    assert number < 1 << 14
    return bytes([number]) if number < 128 else bytes([number & 127 | 128, number >> 7])
