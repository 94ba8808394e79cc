"""Answers to a client's questions about the session that it resumes.

No packet of MQTT tells a client what it is subscribed to, or how much it missed. A client of MQTT 5
asks with User Properties of its CONNECT, and the CONNACK that says Session Present answers:

    tell: subscriptions    `subscription` for each Topic Filter, and `subscriptions`, their number
    tell: unread           `unread`: messages sent and not acknowledged, and those in the log; where
                           counting would read too much of the log, `unread-at-least` instead

`pubsub sub` names filters that its command no longer has, and what `--fresh` discards.
"""

from __future__ import annotations

import logging

from broker.errors import StoreError
from broker.log.log import Log
from broker.message import Offset
from broker.mqtt.packets import Connect, UserProperties
from broker.session.session import Session
from broker.topics import is_shared

logger = logging.getLogger(__name__)

SUBSCRIPTIONS = ("tell", "subscriptions")
UNREAD = ("tell", "unread")
FILTERS_BYTES_MAX = 1 << 16
"""Topic Filters of one CONNACK; `subscriptions` still says how many there are."""
READS_MAX = 32
"""Reads of the log for one count, each of at most 1,000 messages and about 1 MiB."""


async def report(packet: Connect, session: Session, log: Log) -> UserProperties:
    """The User Properties that answer what `packet` asks about `session`, just opened."""
    told: UserProperties = []
    if SUBSCRIPTIONS in packet.user_properties:
        size = 0
        for topic_filter in session.subscriptions:
            size += len(topic_filter.encode())
            if size > FILTERS_BYTES_MAX:
                break
            told.append(("subscription", topic_filter))
        told.append(("subscriptions", str(len(session.subscriptions))))
    if UNREAD in packet.user_properties:
        try:
            count, complete = await _unread(session, log)
        except StoreError as error:
            logger.warning("client %r: unread messages not counted: %s", session.client_id, error)
        else:
            told.append(("unread" if complete else "unread-at-least", str(count)))
    return told


async def _unread(session: Session, log: Log) -> tuple[int, bool]:
    """How many messages the session still has to get, and whether all of them were counted."""
    count = len(session.in_flight)
    first, end = Offset(session.position.through + 1), log.high_watermark
    filters = [f for f, s in session.subscriptions.items() if not (s.replaying or is_shared(f))]
    if not filters:
        return count, True
    for _ in range(READS_MAX):
        if first > end:
            break
        read = await log.store.read(first, end, filters)
        unread = [m for m in read.messages if session.grants.of(m) is not None]
        count += sum([session.grants.rights.may_receive(message.topic) for message in unread])
        first = read.next
    return count, first > end
