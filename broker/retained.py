"""Retained messages: a topic's last message that was published with RETAIN, for new subscribers.

The store keeps which message that is (S5); here is who gets it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from broker.documents import SubscriptionDocument
from broker.message import Offset, Outgoing
from broker.session import Session, merge_grants
from broker.store import Store
from broker.topics import matches


async def matching(
    store: Store,
    session: Session,
    subscriptions: Sequence[SubscriptionDocument],
    through: Offset,
) -> list[Outgoing]:
    """The retained messages that these subscriptions of one SUBSCRIBE get, oldest first.

    One copy a message [MQTT-3.3.1-9]; none above `through`, the high watermark when they were made:
    those are delivered live. Raises StoreError.
    """
    outgoing: list[Outgoing] = []
    for message in await store.retained([s.filter for s in subscriptions]):
        if message.offset > through:
            continue
        wanting = [
            s
            for s in subscriptions
            if matches(s.filter, message.topic)
            and not (s.no_local and message.publisher == session.client_id)
        ]
        grant = merge_grants(wanting)
        if grant is not None:
            outgoing.append((message, replace(grant, retained=True)))
    return outgoing
