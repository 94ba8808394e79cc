"""Publishes messages as they were: topic, payload, QoS, RETAIN and properties.

At least with QoS 1, so that each is acknowledged. Many are on their way at a time, up to the
broker's Receive Maximum; `done` says how many from the first on are acknowledged without a gap.
"""

from __future__ import annotations

import base64
import struct
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime

from paho.mqtt import MQTTException
from paho.mqtt.properties import Properties

from cli.log.logged import packet_properties_of
from cli.net.address import Address
from cli.net.client import NOT_AUTHORIZED_CODES, Client
from cli.terminal.failure import CommandFailed, ConnectionLost, Exit
from cli.terminal.interrupt import Interrupt

WINDOW_MESSAGES = 1000
UNSENT_BYTES_MAX = 1 << 20
DRAIN_S = 3.0

Fields = Mapping[str, object]
"""As `cli/log/record.py` makes them."""


def payload_of(fields: Fields) -> bytes:
    """Raises ValueError: it is no base64, or no text."""
    if "payload_base64" in fields:
        return base64.b64decode(str(fields["payload_base64"]), validate=True)
    payload = fields.get("payload", "")
    if not isinstance(payload, str):
        raise ValueError("its payload is no text")
    return payload.encode()


class Republisher:
    def __init__(
        self, address: Address, client_id: str, interrupt: Interrupt | None = None
    ) -> None:
        self._client = Client(address, client_id, interrupt)
        self._sent_as: dict[int, tuple[int, str]] = {}
        """By Packet Identifier, the how manieth it is and its topic: what is not acknowledged."""
        self._early: set[int] = set()
        self._sent = 0
        self.done = 0

    def open(self) -> None:
        """Raises CommandFailed."""
        self._client.open(clean_start=True)
        self._window = min(WINDOW_MESSAGES, self._client.receive_max)

    def close(self) -> None:
        self._client.close()

    def send(self, fields: Fields, *, retain: bool | None = None) -> None:
        """Send it once there is room. `retain` goes before what the message has.

        Raises CommandFailed: the broker refused one, or the connection is lost; KeyboardInterrupt;
        ValueError: a field is not as it should be.
        """
        payload, properties = payload_of(fields), _properties_of(fields)
        qos = max(1, int(str(fields.get("qos", 1))))
        if qos > 2:
            raise ValueError(f"its QoS is {qos}")
        size = len(payload) + len(str(fields["topic"]).encode()) + 64
        if (most := self._client.packet_bytes_max) is not None and size > most:
            raise CommandFailed(
                f"a message of {len(payload):,} bytes is more than the broker takes ({most:,})",
                "set packet_bytes_max",
            )
        while len(self._sent_as) >= self._window or self._client.unsent_bytes() > UNSENT_BYTES_MAX:
            self._turn()
        sent = self._client.publish(
            str(fields["topic"]),
            payload,
            qos,
            bool(fields.get("retain")) if retain is None else retain,
            properties,
        )
        self._sent_as[sent.mid] = self._sent, str(fields["topic"])
        self._sent += 1

    def wait(self) -> None:
        """Until all are acknowledged. Raises as `send`."""
        while self._sent_as:
            self._turn()

    def drain(self) -> None:
        """After an interrupt: give the broker a moment to acknowledge what is on its way, which
        would come twice otherwise. A second interrupt raises KeyboardInterrupt."""
        deadline = time.monotonic() + DRAIN_S
        with suppress(CommandFailed):
            while self._sent_as and time.monotonic() < deadline:
                self._turn(0.1, interruptible=False)

    def _turn(self, timeout_s: float = 1.0, *, interruptible: bool = True) -> None:
        try:
            self._client.turn(timeout_s, interruptible=interruptible)
        except ConnectionLost as lost:
            self._take()
            raise CommandFailed(
                f"connection lost ({lost}): {self.done:,} acknowledged,"
                f" {len(self._sent_as):,} sent and not acknowledged",
                "those may or may not be stored",
                Exit.UNREACHABLE,
            ) from lost
        self._take()

    def _take(self) -> None:
        while self._client.acknowledged:
            acknowledged = self._client.acknowledged.popleft()
            number, topic = self._sent_as.pop(acknowledged.packet_id)
            self._early.add(number)
            if acknowledged.reason.is_failure:
                refused = f"the broker refused a message: {acknowledged.reason}"
                if acknowledged.reason.value not in NOT_AUTHORIZED_CODES:
                    raise CommandFailed(refused)
                raise CommandFailed(
                    refused, self._client.address.right_to("publish", topic), Exit.NOT_AUTHORIZED
                )
        while self.done in self._early:
            self._early.discard(self.done)
            self.done += 1


def _properties_of(fields: Fields) -> Properties | None:
    """Raises ValueError."""
    try:
        properties = packet_properties_of(fields)
        if "expires_at" in fields:
            lasts = _seconds(fields["expires_at"]) - _seconds(fields["published_at"])
            properties = properties or packet_properties_of({}, always=True)
            assert properties is not None
            properties.MessageExpiryInterval = max(0, min(round(lasts), (1 << 32) - 1))
        if properties is not None:
            properties.pack()  # type: ignore[no-untyped-call]  # It refuses what cannot be sent.
    except KeyError as error:
        raise ValueError(f"it has no {error.args[0]}") from error
    except (TypeError, struct.error, MQTTException) as error:
        raise ValueError(f"a property is not as it should be: {error}") from error
    return properties


def _seconds(moment: object) -> float:
    return datetime.fromisoformat(str(moment)).timestamp()
