"""Unread: what one session still has to get, as stretches of the log that a store can measure.

That is what it was sent and has not acknowledged; every message above its place that matches any of
its filters, once; and what its replays have not come to. It is *exact* but for this: messages that
No Local keeps from it, or that have expired, are counted, as the figures of the log do not say that
of them. Retained messages that a new subscription is still to get are not counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from broker.message import Offset
from broker.session.in_flight import OFFSET_MAX
from broker.session.session import Session
from broker.store import Amount, Stretch
from broker.topics import is_shared

STARTS_MAX = 50
"""Subscriptions that begin above the session's place are told apart at this many places. Of more,
those that begin last count from the last but as many: then it is not exact."""


@dataclass(slots=True)
class Unread:
    beside: list[Offset] = field(default_factory=list)
    """In flight, or to be tried again: whatever the place is."""
    plus: list[Stretch] = field(default_factory=list)
    minus: list[Stretch] = field(default_factory=list)
    exact: bool = True

    def between(self, filters: Sequence[str], after: Offset, through: Offset = OFFSET_MAX) -> None:
        """Messages that match, above `after` and up to `through`."""
        if not filters or after >= through:
            return
        key = tuple(sorted(filters))
        self.plus.append(Stretch(key, after))
        if through < OFFSET_MAX:
            self.minus.append(Stretch(key, through))

    def total(self, in_flight: Amount, plus: Sequence[Amount], minus: Sequence[Amount]) -> Amount:
        """From how much these are."""
        messages = in_flight.messages + sum([amount.messages for amount in plus])
        size = in_flight.bytes + sum([amount.bytes for amount in plus])
        messages -= sum([amount.messages for amount in minus])
        size -= sum([amount.bytes for amount in minus])
        times = [a.oldest_at_us for a in (in_flight, *plus) if a.oldest_at_us is not None]
        return Amount(messages, size, min(times) if messages and times else None)


def unread_of(session: Session) -> Unread:
    """Of this session, as it is now."""
    unread = Unread([entry.offset for entry in session.in_flight.unfinished()])
    place = session.supply.told_through()
    starts: dict[Offset, list[str]] = {}
    for topic_filter, subscription in session.subscriptions.items():
        start, until = subscription.start_offset, subscription.until_offset
        if is_shared(topic_filter):
            continue
        if subscription.replaying:
            unread.between([topic_filter], start, OFFSET_MAX if until is None else until)
        else:
            starts.setdefault(max(start, place), []).append(topic_filter)
    places = sorted(starts)
    if len(places) > STARTS_MAX:
        unread.exact = False
        for late in places[STARTS_MAX:]:
            starts[places[STARTS_MAX - 1]] += starts.pop(late)
        del places[STARTS_MAX:]
    filters: list[str] = []
    for begin, end in pairwise([*places, OFFSET_MAX]):
        filters += starts[begin]
        unread.between(filters, begin, end)
    for part in session.standing.served().ranges():  # It was handed these already.
        first, last = max(part.start - 1, place), part.stop - 1
        if filters and first < last:
            unread.minus.append(Stretch(tuple(sorted(filters)), Offset(first)))
            unread.plus.append(Stretch(tuple(sorted(filters)), Offset(last)))
    return unread
