"""What happened in a crash test, as seen from outside the broker: the evidence `checker.py` judges.

Everything is counted in *epochs*: epoch n is the time between kill n and kill n + 1. What a client
wrote in epoch n can have reached the broker in that epoch only, so an acknowledgement "in epoch n"
may or may not have been committed when kill n + 1 came, and one of a later epoch was not.

Where more than one client is concerned, `at` orders what they saw and did: one count for them all.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from itertools import count
from typing import NamedTuple


class Key(NamedTuple):
    """Names a message, whatever path it takes: its publisher and that publisher's count."""

    publisher: str
    sequence: int

    def __str__(self) -> str:
        return f"{self.publisher}#{self.sequence}"


def encode_payload(key: Key, qos: int, size: int) -> bytes:
    """At least `size` bytes that say which message this is."""
    return f"{key.publisher} {key.sequence} {qos} ".encode().ljust(size, b".")


def decode_payload(payload: bytes) -> tuple[Key, int]:
    """The key and the QoS it was published with."""
    publisher, sequence, qos, _ = payload.split(b" ", 3)
    return Key(publisher.decode(), int(sequence)), int(qos)


@dataclass(slots=True)
class Published:
    """`acknowledged_in`: the epoch in which the publisher saw the first PUBACK or PUBREC. `sent`
    counts how often it was sent, at most once in each connection."""

    topic: str
    qos: int
    acknowledged_in: int | None = None
    at: int = 0
    sent: int = 1


@dataclass(slots=True)
class Delivery:
    """One PUBLISH that reached a subscriber.

    `held_for` is the message for which the client still held this Packet Identifier (QoS 2): the
    client then answers and does not process the message again [MQTT3-4.3.3-2].
    `acknowledged_in` is the epoch in which it wrote the PUBACK or PUBREC.
    """

    key: Key
    topic: str
    qos: int
    packet_id: int
    dup: bool
    epoch: int
    connection: int
    held_for: Key | None = None
    acknowledged_in: int | None = None
    at: int = 0


@dataclass(slots=True)
class Connected:
    """A CONNACK, that came `at`; `connection` counts the client's from 1.

    `ended_at` is when the client knew, or decided, that nothing more would be answered. `clean`:
    the broker had then read all that the client ever wrote, or reads it before it ends.
    """

    client: str
    connection: int
    epoch: int
    session_present: bool
    durable: bool = True
    at: int = 0
    ended_at: int | None = None
    clean: bool = False


@dataclass(slots=True)
class Unsubscribed:
    """A member left its group, at this moment."""

    client: str
    at: int


@dataclass(slots=True)
class Stored:
    """A row of the view `history`."""

    offset: int
    key: Key
    topic: str
    qos: int


@dataclass(slots=True)
class Cursor:
    """A row of the table `cursors`, read while the broker was dead, after `epoch` ended.

    It claims that all at or below `offset` is acknowledged, and all in (offset, sent_through] that
    is not in `inflight`: the offsets that await their PUBACK or PUBREC.
    """

    client: str
    epoch: int
    offset: int
    sent_through: int
    inflight: frozenset[int] = frozenset()


@dataclass(slots=True)
class History:
    """The record of one run. `subscriptions`: client -> Topic Filter -> requested QoS; `groups`:
    Shared Subscription -> member -> requested QoS. `killed`: the epochs that a kill ended."""

    epoch: int = 0
    killed: set[int] = field(default_factory=set)
    subscriptions: dict[str, dict[str, int]] = field(default_factory=dict)
    groups: dict[str, dict[str, int]] = field(default_factory=lambda: defaultdict(dict))
    published: dict[Key, Published] = field(default_factory=dict)
    deliveries: dict[str, list[Delivery]] = field(default_factory=lambda: defaultdict(list))
    connects: list[Connected] = field(default_factory=list)
    unsubscribed: list[Unsubscribed] = field(default_factory=list)
    cursors: list[Cursor] = field(default_factory=list)
    log: dict[int, Stored] = field(default_factory=dict)
    unexpected: list[str] = field(default_factory=list)
    """What the broker sent and a conforming one never does."""
    unfinished: list[str] = field(default_factory=list)
    """Exchanges still open after the drain."""
    _moments: count[int] = field(default_factory=lambda: count(1))

    def now(self) -> int:
        """The next `at`."""
        return next(self._moments)
