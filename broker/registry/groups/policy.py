"""Policy: how often and how soon a group tries a message again, and how long a member may have it.

A group made by `$share/...` has the defaults, and there a refusal is final: MQTT says that the
message goes to nobody else then [MQTT-4.8.2-6]. Of a group made by `pubsub group create` an
operator has said otherwise: a refusal is one failed attempt.
"""

from __future__ import annotations

from dataclasses import dataclass

from broker.documents import SubscriptionDocument
from broker.documents.queues import (
    ATTEMPTS_MAX,
    BACKOFF_FIRST_MS,
    BACKOFF_MAX_MS,
    LEASE_MS,
    GroupDocument,
)
from broker.message import Offset


@dataclass(slots=True, frozen=True)
class Policy:
    attempts_max: int = ATTEMPTS_MAX
    backoff_first_s: float = BACKOFF_FIRST_MS / 1000
    backoff_max_s: float = BACKOFF_MAX_MS / 1000
    lease_s: float = LEASE_MS / 1000
    refusals_are_final: bool = True

    @classmethod
    def of(cls, document: GroupDocument | None) -> Policy:
        """None: nobody made the group by a command."""
        if document is None:
            return DEFAULT
        return cls(
            document.attempts_max,
            document.backoff_first_ms / 1000,
            document.backoff_max_ms / 1000,
            document.lease_ms / 1000,
            refusals_are_final=False,
        )

    def backoff_s(self, attempts: int) -> float:
        """How long to wait after so many failed attempts: twice as long each time."""
        doublings = min(max(0, attempts - 1), 62)
        return min(self.backoff_first_s * 2.0**doublings, self.backoff_max_s)


DEFAULT = Policy()


def subscription_of(name: str, topic_filter: str, start: Offset) -> SubscriptionDocument:
    """How a group gets the messages that it shares out."""
    return SubscriptionDocument(
        name,
        topic_filter,
        qos=1,
        no_local=False,
        retain_as_published=False,
        retain_handling=2,
        subscription_id=None,
        start_offset=start,
    )
