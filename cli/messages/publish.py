"""`pubsub pub`: publishes, and succeeds when the broker has acknowledged every message.

- Messages are sent ahead of their acknowledgements, up to the broker's Receive Maximum.
- One message that was sent when the connection broke may or may not be stored: that is said, and it
  is not sent again.
- Lines of standard input go on after a lost connection. The session outlives it, so what was not
  acknowledged is sent again with DUP: QoS 2 is stored once, QoS 1 maybe twice, and that is said.
- A message larger than the broker takes is refused here: the broker would end the connection, and
  those on their way with it.
"""

from __future__ import annotations

import math
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.reasoncodes import ReasonCode

from broker.errors import TopicNameInvalid
from broker.plural import counted
from broker.topics import refuse_control_characters, validate_name
from cli.net.address import Address
from cli.net.client import (
    NO_MATCHING_SUBSCRIBERS,
    NOT_AUTHORIZED_CODES,
    QUOTA_EXCEEDED,
    Acknowledged,
    Client,
    packet_properties,
)
from cli.net.reconnect import reconnect
from cli.net.stdin import VARINT_MAX, Lines
from cli.terminal import output
from cli.terminal.failure import CommandFailed, ConnectionLost, Exit
from cli.terminal.interrupt import Interrupt
from cli.terminal.reading import read

WINDOW_MESSAGES = 1000
UNSENT_BYTES_MAX = 1 << 20
SESSION_EXPIRY_S = 3600
"""How long a broker remembers which messages it has of a publisher that is to come back."""
RECEIPT = ("receipt", "true")
DEDUP_KEY, DEDUP = "dedup-key", "dedup"
TOO_LARGE = "too large"
NO_PROPERTIES = packet_properties(PacketTypes.PUBLISH)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    address: Address
    client_id: str
    qos: int
    retain: bool
    json: bool
    user_properties: tuple[tuple[str, str], ...] = ()
    receipt: bool = False
    dedup_key: str | None = None
    expiry_s: int | None = None


class Publisher:
    """Publishes in order, counts what was acknowledged, and reports each message with --json.

    `resumes`: after a lost connection `open_again` goes on.
    """

    def __init__(
        self, options: Options, interrupt: Interrupt | None = None, *, resumes: bool = False
    ) -> None:
        self._options = options
        self._session_expiry_s = SESSION_EXPIRY_S if resumes and options.qos else 0
        self._client = Client(options.address, options.client_id, interrupt)
        properties = list(options.user_properties)
        if options.dedup_key is not None:
            properties.append((DEDUP_KEY, options.dedup_key))
        if options.json or options.receipt or options.dedup_key is not None:
            properties.append(RECEIPT)
        self._properties = (
            packet_properties(PacketTypes.PUBLISH, properties)
            if properties or options.expiry_s is not None
            else None
        )
        if self._properties is not None and options.expiry_s is not None:
            self._properties.MessageExpiryInterval = options.expiry_s
        self._unacknowledged: dict[int, tuple[str, int]] = {}  # topic and bytes, by Packet Id
        self.taken = 0
        self.unwanted = False
        """Whether the broker said of any that nobody is subscribed to its topic."""
        self.refused: Counter[str] = Counter()
        self.largest_refused = 0
        """Bytes of the largest packet that was more than the broker takes."""
        self.exit_code = Exit.OK
        self.remedy = ""
        """The right that was missing."""

    @property
    def packet_bytes_max(self) -> int | None:
        return self._client.packet_bytes_max

    def open(self) -> None:
        self._client.open(clean_start=True, session_expiry_s=self._session_expiry_s)
        self._window = min(WINDOW_MESSAGES, self._client.receive_max)

    def open_again(self) -> None:
        """Connect, and send again what was not acknowledged. [MQTT-4.4.0-1] Says what that means.

        Raises CommandFailed: the broker does not take so much at once any more.
        """
        qos, again = self._options.qos, len(self._unacknowledged)
        resumed = self._client.open(clean_start=not qos, session_expiry_s=self._session_expiry_s)
        self._window = min(WINDOW_MESSAGES, self._client.receive_max)
        if not qos:
            self._unacknowledged.clear()  # Nobody acknowledges them.
            output.note("reconnected; QoS 0 that was on its way is lost")
            return
        if again > self._client.receive_max:
            raise CommandFailed(
                f"the broker takes {self._client.receive_max:,} at once now: {self._said()}"
            )
        if not again:
            output.note("reconnected")
            return
        if qos == 2 and resumed:
            stored = "stored once"
        else:
            stored = "stored twice if the broker had it, marked as a duplicate (DUP)"
        output.note(f"reconnected; {counted(again, 'message')} sent again: each is {stored}")

    def close(self) -> None:
        self._client.close(end_session=self._session_expiry_s > 0)

    def ready(self) -> bool:
        """Whether one more message may be sent now."""
        return (
            len(self._unacknowledged) < self._window
            and self._client.unsent_bytes() < UNSENT_BYTES_MAX
        )

    def finished(self) -> bool:
        return not self._unacknowledged and not self._client.unsent_bytes()

    def send(self, topic: str, payload: bytes) -> None:
        """Send it, or count it as refused: it is larger than the broker takes."""
        options = self._options
        size = self._packet_bytes(topic, payload)
        if self.packet_bytes_max is not None and size > self.packet_bytes_max:
            self.refused[TOO_LARGE] += 1
            self.largest_refused = max(self.largest_refused, size)
            self.exit_code = Exit.FAILED
            if options.json:
                output.data(
                    output.json_line(
                        {
                            "topic": topic,
                            "qos": options.qos,
                            "bytes": len(payload),
                            "error": f"a packet of {size} bytes; the broker takes"
                            f" {self.packet_bytes_max}",
                        }
                    )
                )
            return
        sent = self._client.publish(topic, payload, options.qos, options.retain, self._properties)
        self._unacknowledged[sent.mid] = (topic, len(payload))

    def _packet_bytes(self, topic: str, payload: bytes) -> int:
        """Of the PUBLISH, its header included. [MQTT 5, section 3.3]"""
        properties = self._properties or NO_PROPERTIES
        rest = 2 + len(topic.encode()) + (2 if self._options.qos else 0)
        rest += len(properties.pack()) + len(payload)  # type: ignore[no-untyped-call]  # paho leaves it so
        length_bytes = 1
        while rest >= 1 << 7 * length_bytes:
            length_bytes += 1
        return 1 + length_bytes + rest

    def turn(self, timeout_s: float, *also: Lines) -> None:
        """Raises ConnectionLost."""
        try:
            self._client.turn(timeout_s, also)
        finally:
            self._report()

    def in_doubt(self, lost: ConnectionLost) -> CommandFailed:
        """What to say when nothing is sent again."""
        return CommandFailed(f"connection lost ({lost}): {self._said()}", code=Exit.UNREACHABLE)

    def given_up(self, why: str, code: Exit) -> CommandFailed:
        return CommandFailed(f"{why}: {self._said()}", code=code)

    def _said(self) -> str:
        unknown = len(self._unacknowledged)
        if not unknown:
            return f"{self.taken:,} acknowledged, nothing else was sent"
        which = "that one" if unknown == 1 else "those"
        return (
            f"{self.taken:,} acknowledged, {unknown:,} sent and not acknowledged; {which} may or"
            " may not be stored"
        )

    def _report(self) -> None:
        options, lines = self._options, []
        while self._client.acknowledged:
            acknowledged = self._client.acknowledged.popleft()
            topic, size = self._unacknowledged.pop(acknowledged.packet_id)
            reason = acknowledged.reason
            if reason.is_failure:
                self.refused[_said(reason, acknowledged.said)] += 1
                not_authorized = reason.value in NOT_AUTHORIZED_CODES
                self.exit_code = Exit.NOT_AUTHORIZED if not_authorized else Exit.FAILED
                if not_authorized:
                    self.remedy = options.address.right_to("publish", topic)
            else:
                self.taken += 1
                self.unwanted |= reason.value == NO_MATCHING_SUBSCRIBERS
                self._tell(acknowledged)
            if options.json:
                lines.append(output.json_line(self._receipt(acknowledged, topic, size)))
        if lines:
            output.data(b"".join(lines))

    def _tell(self, acknowledged: Acknowledged) -> None:
        """What the options asked the broker to say."""
        options, said = self._options, acknowledged.user_properties
        if not options.qos:
            return  # Nothing acknowledges it.
        offset = said.get("offset")
        if options.receipt and not options.json:
            if offset is not None:
                output.data(f"{offset}\n".encode())
            else:
                output.note("accepted; the broker names no offset (a delayed message has none yet)")
        if options.dedup_key is not None:
            if DEDUP not in said:
                output.note(
                    "the broker keeps no keys for this topic, so a repeat is stored again:"
                    " it needs a [[dedup]] with a filter that matches"
                )
            elif said[DEDUP] == "repeat":
                where = "" if offset is None else f", at offset {offset}"
                output.note(f"the broker had it already{where}: it is not stored again")

    def _receipt(self, acknowledged: Acknowledged, topic: str, size: int) -> dict[str, object]:
        receipt: dict[str, object] = {"topic": topic, "qos": self._options.qos, "bytes": size}
        if acknowledged.reason.is_failure:
            receipt["error"] = str(acknowledged.reason)
        elif "offset" in acknowledged.user_properties:
            receipt["offset"] = int(acknowledged.user_properties["offset"])
        if DEDUP in acknowledged.user_properties:
            receipt["repeat"] = acknowledged.user_properties[DEDUP] == "repeat"
        return receipt


def _said(reason: ReasonCode, why: str) -> str:
    if why:
        return f"{reason} ({why})"
    if reason.value == QUOTA_EXCEEDED:
        return f"{reason}: the broker's disk is full, or you have reached a limit that it sets"
    return str(reason)


def publish(options: Options, topic: str, read_payload: Callable[[], bytes]) -> None:
    """One message. What it says is read before the broker is asked for."""
    _check(topic)
    payload = read_payload()
    publisher = Publisher(options)
    publisher.open()
    try:
        publisher.send(topic, payload)
        with output.waiting("sent; waiting for the broker to have it on its disk"):
            while not publisher.finished():
                publisher.turn(1.0)
    except ConnectionLost as lost:
        raise publisher.in_doubt(lost) from lost
    finally:
        publisher.close()
    _conclude(publisher, topic)


def publish_lines(options: Options, topic: str, *, away_s_max: float | None = None) -> None:
    """A message per line of standard input. The first connection must succeed; when one is lost, it
    goes on with the next. `away_s_max`: give up (27) when that took longer; None: never."""
    _check(topic)
    lines = Lines(sys.stdin.fileno())
    with Interrupt() as interrupt:
        publisher = Publisher(options, interrupt, resumes=True)
        publisher.open()
        try:
            while not (lines.ended and not lines.waiting and publisher.finished()):
                try:
                    _send_lines(publisher, topic, lines)
                except ConnectionLost as lost:
                    _come_back(publisher, lost, interrupt, away_s_max)
        except KeyboardInterrupt:
            raise publisher.given_up("stopped", Exit.FAILED) from None
        finally:
            publisher.close()
    _conclude(publisher, topic)


def _send_lines(publisher: Publisher, topic: str, lines: Lines) -> None:
    """One turn."""
    while lines.waiting and publisher.ready():
        publisher.send(topic, lines.waiting.popleft())
    if lines.ended or lines.waiting:
        publisher.turn(1.0)
    else:
        publisher.turn(1.0, lines)
        if lines.readable():
            lines.read()


def _come_back(
    publisher: Publisher, lost: ConnectionLost, interrupt: Interrupt, away_s_max: float | None
) -> None:
    deadline = math.inf if away_s_max is None else time.monotonic() + away_s_max
    output.note(f"connection lost ({lost}); reconnecting")
    if not reconnect(
        publisher.open_again, lost, interrupt, lambda s: min(s, deadline - time.monotonic())
    ):
        raise publisher.given_up(f"the broker was away for {away_s_max:g} s", Exit.TIMEOUT)


def read_file(path: Path) -> bytes:
    """Raises CommandFailed (2): it cannot be read, or no packet can hold it."""
    return read(path, VARINT_MAX)


def read_stdin() -> bytes:
    """Raises CommandFailed (2): no packet can hold it."""
    whole = sys.stdin.buffer.read(VARINT_MAX + 1)
    if len(whole) > VARINT_MAX:
        raise CommandFailed(
            "standard input is longer than MQTT can carry (256 MB)", code=Exit.USAGE
        )
    return whole


def _check(topic: str) -> None:
    try:
        validate_name(topic)
        refuse_control_characters(topic)
    except TopicNameInvalid as error:
        raise CommandFailed(f"{topic!r}: {error}", code=Exit.USAGE) from error


def _conclude(publisher: Publisher, topic: str) -> None:
    """Raises CommandFailed if the broker refused any."""
    if publisher.unwanted:
        output.hint(f"accepted; nobody is subscribed to {output.escaped(topic)} now")
    if publisher.refused == {TOO_LARGE: 1} and not publisher.taken:
        raise CommandFailed(_too_large(publisher), "it was not sent", publisher.exit_code)
    if publisher.refused:
        reasons = ", ".join(
            reason if count == 1 else f"{reason} ({count:,} times)"
            for reason, count in publisher.refused.items()
        )
        if publisher.largest_refused:
            reasons += f"; the largest is {_too_large(publisher)}"
        refused = publisher.refused.total()
        total = refused + publisher.taken
        verb = "was" if refused == 1 else "were"
        which = "the message was" if total == 1 else f"{refused:,} of {total:,} messages {verb}"
        raise CommandFailed(
            f"{which} not accepted: {reasons}", publisher.remedy, publisher.exit_code
        )


def _too_large(publisher: Publisher) -> str:
    return (
        f"a packet of {publisher.largest_refused:,} bytes,"
        f" and the broker takes at most {publisher.packet_bytes_max:,} (packet_bytes_max)"
    )
