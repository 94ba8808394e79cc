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
class Counters:
    """Since the broker started. `bytes_in` and `bytes_out` went through sockets, `packets` are
    those of MQTT, `evicted` connections that made room for others' unfinished packets,
    `line_errors_left_out` ERRORs not sent to a peer that did not ask for
    answers, `gaps_left_out` ranges of missing offsets that a client's Maximum Packet Size had no
    room for, `repeats` messages not stored again as their `dedup-key` was known,
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
    line_errors_left_out: int = 0
    gaps_left_out: int = 0
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
            "line_errors_left_out": self.line_errors_left_out,
            "gaps_left_out": self.gaps_left_out,
            "removed_unread": self.removed_unread,
            "refused_connects": self.refused_connects,
            "dropped": dict(self.dropped),
        }
