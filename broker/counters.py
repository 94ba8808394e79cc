"""Counters: what the broker did, and each message that it did not deliver, with a reason (P5)."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass(slots=True)
class Traffic:
    """How many packets of every type went by, each acknowledgement of a run counted."""

    received: int = 0
    sent: int = 0


@dataclass(slots=True)
class LeftOut:
    """`line_errors` are ERRORs not sent to a peer that did not ask for answers, `gap_notes` ranges
    of missing offsets that a client's Maximum Packet Size had no room for."""

    line_errors: int = 0
    gap_notes: int = 0


@dataclass(slots=True)
class OfGroups:
    """`attempts_failed` are deliveries by groups that were refused, took too long or lost their
    worker, `dead_letters` those after which the group gave up."""

    attempts_failed: int = 0
    dead_letters: int = 0


@dataclass(slots=True)
class Counters:
    """Since the broker started. `bytes_in` and `bytes_out` went through sockets, `packets` are
    those of MQTT, `evicted` connections that made room for others' unfinished packets,
    `repeats` messages not stored again as their `dedup-key` was known,
    `removed_unread` messages that retention removed though somebody wanted them,
    `payload_bytes_in` is of `messages_in`, `payload_bytes_out` of `messages_out`.
    `dropped` counts deliveries given up, by reason; each reason is one that MQTT or the operator
    ordered: "expired", "packet too large for the client", ...
    """

    connections: int = 0
    connects: int = 0
    refused_connects: int = 0
    protocol_errors: int = 0
    evicted: int = 0
    left_out: LeftOut = field(default_factory=LeftOut)
    removed_unread: int = 0
    commits: int = 0
    append_failures: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    packets: Traffic = field(default_factory=Traffic)
    messages_in: int = 0
    payload_bytes_in: int = 0
    messages_out: int = 0
    payload_bytes_out: int = 0
    redeliveries: int = 0
    repeats: int = 0
    groups: OfGroups = field(default_factory=OfGroups)
    dropped: Counter[str] = field(default_factory=Counter)

    def told(self) -> dict[str, object]:
        """What `pubsub broker status` has of it."""
        return {
            "messages_in": self.messages_in,
            "messages_out": self.messages_out,
            "redeliveries": self.redeliveries,
            "repeats": self.repeats,
            "commits": self.commits,
            "append_failures": self.append_failures,
            "protocol_errors": self.protocol_errors,
            "evicted": self.evicted,
            "line_errors_left_out": self.left_out.line_errors,
            "gaps_left_out": self.left_out.gap_notes,
            "removed_unread": self.removed_unread,
            "refused_connects": self.refused_connects,
            "attempts_failed": self.groups.attempts_failed,
            "dead_letters": self.groups.dead_letters,
            "dropped": dict(self.dropped),
        }
