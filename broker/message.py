"""Message: what was published, and what the log knows about it. Everything speaks of messages.

A message is shared by all who deliver it, so it is read-only by custom once it is in the log
(`frozen=True` would make building one several times dearer).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import NamedTuple, NewType

Offset = NewType("Offset", int)
"""A place in the log: rises in commit order, never reused, gaps allowed. 0 is before the first."""

PacketIdentifier = NewType("PacketIdentifier", int)
"""1..65535, names one unfinished exchange within a session. 0 stands for none (QoS 0)."""

WallUs = NewType("WallUs", int)
"""Microseconds since the epoch (UTC), as the wall clock had it: it may be set, also back."""

ServedUs = NewType("ServedUs", int)
"""Microseconds on a clock that stands still while no broker runs on the log, see `log_time.py`."""

AgedUs = NewType("AgedUs", int)
"""Microseconds on a clock that also goes on while none runs, but cannot be set, see there too."""

Monotonic = NewType("Monotonic", float)
"""Seconds of a clock that nobody can set. Its zero is this process's own: no use on a disk."""

NOT_STORED = Offset(0)

NOT_SEEN = WallUs(0)
"""When a client was last there, if that is not known."""

PAYLOAD_FORMAT_INDICATOR, CORRELATION_DATA, USER_PROPERTY = 0x01, 0x09, 0x26
"""The properties of a message that are not one text. (MQTT 5, section 2.2.2.2)"""

MESSAGE_BYTES = 200
"""About the bytes of memory that a message takes beside topic, payload and properties, its places
in queues included (CPython 3.11 to 3.14)."""


@dataclass(slots=True, init=False)
class Message:
    """One application message.

    `publisher` is the client identifier it came from. `published_at_us` is what the wall clock had,
    in microseconds since the epoch (UTC); `expires_at_us` is aged time, or the same as
    `published_at_us` if the interval is 0. `properties` are the MQTT 5 properties to pass on
    unchanged, encoded, without their length and without Message Expiry Interval, Topic Alias and
    Subscription Identifier. `offset` is `NOT_STORED` until the log has committed the message.
    `size` is of payload and properties, since either may be as large as a packet.
    """

    topic: str
    payload: bytes
    qos: int
    retain: bool
    publisher: str
    published_at_us: int
    expires_at_us: int | None = None
    properties: bytes = b""
    offset: Offset = NOT_STORED
    size: int = field(init=False, repr=False, compare=False)

    def __init__(
        self,
        topic: str,
        payload: bytes,
        qos: int,
        retain: bool,
        publisher: str,
        published_at_us: int,
        expires_at_us: int | None = None,
        properties: bytes = b"",
        offset: Offset = NOT_STORED,
    ) -> None:
        """Written out, since `__post_init__` would be one more call for each message."""
        self.topic = topic
        self.payload = payload
        self.qos = qos
        self.retain = retain
        self.publisher = publisher
        self.published_at_us = published_at_us
        self.expires_at_us = expires_at_us
        self.properties = properties
        self.offset = offset
        self.size = len(payload) + len(properties) if properties else len(payload)

    def has_expired(self, now_us: int) -> bool:
        """Whether its Message Expiry Interval has passed. [MQTT-3.3.2-5]"""
        at_us = self.expires_at_us
        return at_us is not None and (at_us <= now_us or at_us == self.published_at_us)

    @property
    def cost(self) -> int:
        """About how many bytes of memory it takes; see `cost_of`."""
        return MESSAGE_BYTES + len(self.topic) + self.size


def with_user_properties(properties: bytes, pairs: Sequence[tuple[str, str]]) -> bytes:
    """`Message.properties` with these User Properties behind."""
    added = bytearray()
    for pair in pairs:
        added.append(USER_PROPERTY)
        for text in pair:
            encoded = text.encode()
            added += len(encoded).to_bytes(2) + encoded
    return properties + bytes(added)


def texts_among(properties: bytes) -> list[str]:
    """Content Type, Response Topic and User Properties in `Message.properties`."""
    texts: list[str] = []
    position = 0
    while position < len(properties):
        identifier = properties[position]
        position += 1
        if identifier == PAYLOAD_FORMAT_INDICATOR:
            position += 1
            continue
        for _ in range(2 if identifier == USER_PROPERTY else 1):
            start = position + 2
            position = start + int.from_bytes(properties[position:start])
            if identifier != CORRELATION_DATA:
                texts.append(properties[start:position].decode())
    return texts


def cost_of(messages: Sequence[Message]) -> int:
    """About how many bytes of memory these messages take: a million empty ones take 200 MB.

    Every limit on messages in memory counts this. The cost is not kept with each message: that
    would take memory, too.
    """
    count = len(messages)
    if count == 1:
        return MESSAGE_BYTES + len(messages[0].topic) + messages[0].size
    topics = [message.topic for message in messages]
    if count and topics.count(topics[0]) == count:  # As it is most of the time, and quick.
        characters = count * len(topics[0])
    else:
        characters = sum(map(len, topics))
    return characters + sum([message.size for message in messages]) + MESSAGE_BYTES * count


class Lease(NamedTuple):
    """A message of a shared subscription that one member has: the group, by its whole filter, and
    the Packet Identifier under which the group's own session keeps it in flight; 0: none, since the
    message at `offset` is a retry of the group.

    It was leased at `leased_at`, as attempt number `attempt`; 0: it was taken back."""

    group: str
    packet_id: int
    offset: Offset = NOT_STORED
    attempt: int = 1
    leased_at: Monotonic = Monotonic(0.0)


@dataclass(slots=True, frozen=True)
class Grant:
    """How one subscriber gets a message: its matching subscriptions, merged into one copy.

    `qos` is the highest granted QoS among them [MQTT-3.3.4-2]; `subscription_ids` are all their
    Subscription Identifiers [MQTT-3.3.4-3]. `retained` marks a message that is sent because it was
    retained when the subscription was made, and so keeps RETAIN = 1 [MQTT-3.3.1-8]. `metadata` asks
    for User Properties `offset`, `published-at` and `publisher`, and `attempt` of a lease, on the
    way out (MQTT 5 only).
    `missing` are offsets before this message that are damaged or were removed by retention, told as
    User Property `gap` (MQTT 5 only).
    `replay` is the Topic Filter of the replay that the message is from, or empty; `lease` is what
    ends when a message of a shared subscription is acknowledged. `caught_up` marks the first live
    message after a replay, by User Property `caught-up: true` (MQTT 5 only).
    """

    qos: int
    retain_as_published: bool = False
    subscription_ids: tuple[int, ...] = ()
    retained: bool = False
    metadata: bool = False
    missing: tuple[range, ...] = ()
    replay: str = ""
    lease: Lease | None = None
    caught_up: bool = False

    def __hash__(self) -> int:
        """Hash only the fields that mostly differ: a topic's routes are hashed with the grant of
        each session, and hashing all fields would take 28 ms for 20,000 sessions."""
        return hash((self.qos, self.subscription_ids))


Outgoing = tuple[Message, Grant]
"""A message on its way to one subscriber. A tuple, since one is built per routed message."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def rfc3339(time_us: int) -> str:
    """Microseconds since the epoch as `2025-03-14T10:30:00.000000Z`."""
    time = _EPOCH + timedelta(microseconds=time_us)
    return time.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
