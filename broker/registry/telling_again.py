"""Telling again: missing offsets that a session was told of in an earlier run of the broker, by
messages that it has not acknowledged.

The log does not keep who was told what. But a cursor stays before what is missing until the message
that tells of it is acknowledged (`InFlightWindow.tells`), so what is missing between the cursor and
what was sent is found again, and the next of the unfinished messages tells of it. A client may hear
of it twice so, but in no case of nothing. (P5)
"""

from __future__ import annotations

import logging
from bisect import bisect_right

from broker.errors import StoreError
from broker.message import Offset
from broker.session.exchange import Stage
from broker.session.outbox import bounded
from broker.session.session import Session
from broker.store import Store
from broker.topics import is_shared

LOOKS_MAX = 20
MESSAGES_PER_LOOK = 1000
BYTES_PER_LOOK = 1 << 20

logger = logging.getLogger(__name__)


async def tell_again(store: Store, session: Session) -> None:
    """The session was loaded, for the first time in this run."""
    cursor, sent_through = session.gaps.restored_at, session.position.through
    tellers = sorted(
        entry.offset
        for entry in session.in_flight.unfinished()
        if not entry.aside and entry.stage is not Stage.RELEASED
    )
    lacks = store.missing_before > cursor + 1 or store.removing.has_unread
    if not tellers or not lacks or cursor >= sent_through:
        return
    try:
        missing = await _missing(store, session, Offset(cursor + 1), sent_through)
    except StoreError as error:  # No reason to refuse the client.
        logger.error("client %r: nothing is told again as missing: %s", session.client_id, error)
        return
    by_teller: dict[Offset, list[range]] = {}
    for part in missing:
        if (at := bisect_right(tellers, part.start)) < len(tellers):
            by_teller.setdefault(tellers[at], []).append(part)
    session.was_told({offset: bounded(parts) for offset, parts in by_teller.items()}, missing)


async def _missing(store: Store, session: Session, first: Offset, last: Offset) -> list[range]:
    filters = [
        topic_filter
        for topic_filter, subscription in session.subscriptions.items()
        if not (subscription.replaying or is_shared(topic_filter))
    ]
    low = store.missing_before
    missing = [range(first, min(low, last + 1))] if low > first else []
    position = Offset(max(first, low))
    for _ in range(LOOKS_MAX):
        if position > last:
            break
        read = await store.read(
            position, last, filters, limit=MESSAGES_PER_LOOK, bytes_max=BYTES_PER_LOOK
        )
        missing += [part for part in (*read.removed, *read.damaged) if part.start >= position]
        position = read.next
    return sorted(missing, key=lambda part: part.start)
