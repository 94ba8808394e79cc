"""Overview: who is subscribed, how far each has come, and how much of the log waits for it.

Of a subscriber that is connected the state is in memory, of all others in the log; a log that no
broker has open is looked at in the same way. All figures of one page are of the same end of the
log, which is its high watermark when the page was begun.

Who has a session that ends with its connection is listed while it is subscribed to anything.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from broker.documents import NOT_YET, SessionDocument, SubscriptionDocument
from broker.documents.queues import RetryDocument
from broker.errors import StoreCorrupt
from broker.message import Offset, WallUs, rfc3339
from broker.registry.administration import Permit, concerned, everything, not_found
from broker.registry.faces import Owner
from broker.registry.loading import Documents, load
from broker.registry.sessions import Sessions
from broker.registry.unread import Unread, unread_of
from broker.session.in_flight import PACKET_IDENTIFIER_MAX
from broker.session.session import Session
from broker.store import Amount, Stretch
from broker.topics import is_shared

PAGE_MAX = 1000
"""Subscribers of one page."""
PAGE_FILTERS_MAX = 100_000
"""Their filters; beyond, the page ends earlier."""
FILTERS_SHOWN_MAX = 20
"""Filters of each that a page names. One that is looked at alone has all."""
SHOWN_MAX = 100
"""Exchanges, and members, that are named of one that is looked at alone."""
AT_ONCE_MAX = 50
"""Sessions in memory that are looked at in one turn of the loop."""


class Source(Documents, Protocol):
    """A store, or what reads the log of a broker that does not run."""

    async def scan(self, kind: type[SessionDocument]) -> list[SessionDocument]:
        """As `Store.scan`."""
        ...

    async def measure(self, stretches: Sequence[Stretch], through: Offset) -> list[Amount]:
        """As `Store.measure`."""
        ...

    async def amount(self, offsets: Sequence[Offset]) -> Amount:
        """As `Store.amount`."""
        ...


Shown = Callable[[Iterable[str]], Awaitable[bool]]
"""Whether a subscriber with these Topic Filters is to be seen."""


async def everybody(_: Iterable[str]) -> bool:
    return True


@dataclass(slots=True)
class Row:
    """One subscriber. `cursor`: everything of it up to here is acknowledged. `lag`: what is not,
    see `unread`; `exact`: whether that is so to the message. `members`: how many a group has now.
    `damaged`: why nothing more is known.
    """

    id: str
    connected: bool = False
    address: str = ""
    last_seen_us: WallUs | None = None
    session_expiry_s: int | None = None
    filters: Sequence[str] = ()
    filter_count: int = 0
    cursor: Offset | None = None
    lag: Amount | None = None
    exact: bool = True
    in_flight: int = 0
    redelivered: int = 0
    missed: int = 0
    members: int | None = None
    damaged: str = ""

    def record(self, now_us: WallUs) -> dict[str, object]:
        """As it is shown. `now_us` is what the wall clock has."""
        if self.damaged:
            return {"id": self.id, "damaged": self.damaged}
        assert self.lag is not None
        since_us = self.lag.oldest_at_us
        return {
            "id": self.id,
            "kind": "group" if is_shared(self.id) else "subscriber",
            "connected": self.connected,
            "address": self.address or None,
            "last_seen": rfc3339(self.last_seen_us) if self.last_seen_us else None,
            "members": self.members,
            "filters": [*self.filters],
            "filter_count": self.filter_count,
            "cursor": self.cursor,
            "lag": self.lag.messages,
            "lag_bytes": self.lag.bytes,
            "lag_s": None if since_us is None else max(0, round((now_us - since_us) / 1e6, 1)),
            "exact": self.exact,
            "in_flight": self.in_flight,
            "redeliveries": self.redelivered,
            "gaps": self.missed,
            "session_expiry_s": self.session_expiry_s,
        }


@dataclass(slots=True)
class Page:
    """In the order of the names. `next`: ask for those after this; None: these were the last."""

    rows: list[Row]
    through: Offset
    next: str | None


class Overview:
    def __init__(self, source: Source, sessions: Sessions | None = None) -> None:
        """`sessions`: of the broker that runs."""
        self._source = source
        self._sessions = sessions

    async def page(self, after: str = "", limit: int = PAGE_MAX, shown: Shown = everybody) -> Page:
        """Subscribers whose names come after `after`. Raises StoreError."""
        names = heapq.nsmallest(
            limit + 1, [name for name in await self._names() if name > after or not after]
        )
        through = self._source.high_watermark
        rows: list[Row] = []
        unread: list[Unread] = []
        filters = looked_at = 0
        for name in names[:limit]:
            looked_at += 1
            found = await self._look(name, shown)
            if found is not None:
                rows.append(found[0])
                unread.append(found[1])
                filters += sum([len(s.filters) for s in found[1].plus])
            if looked_at % AT_ONCE_MAX == 0:
                await asyncio.sleep(0)
            if filters > PAGE_FILTERS_MAX:
                break
        await self._measure(rows, unread, through)
        return Page(rows, through, names[looked_at - 1] if looked_at < len(names) else None)

    async def one(
        self, name: str, now_us: WallUs, permit: Permit = everything
    ) -> dict[str, object]:
        """The record of this subscriber, and more of it. Raises NotFound, NotAuthorized,
        StoreError."""
        through = self._source.high_watermark
        retries = await self._retries(name)
        found = await self._find(name)
        if found is None:
            await permit(())
            raise not_found(name, await self._names())
        session, owner = found
        row = self._row(session, owner, filters_max=len(session.subscriptions))
        more = {
            "created": rfc3339(session.tally.created_at_us),
            "subscriptions": [
                _subscription(session.subscriptions[topic_filter]) for topic_filter in row.filters
            ],
            "in_flight_first": [
                {"offset": e.offset, "packet_id": e.packet_id, "stage": e.stage.name.lower()}
                for e in session.in_flight.unfinished()[:SHOWN_MAX]
            ],
        }
        if owner is not None and owner.member_names is not None:
            more["member_names"] = sorted(owner.member_names)[:SHOWN_MAX]
        unread = unread_of(session)
        unread.beside += retries
        await permit(concerned(name, session))
        await self._measure([row], [unread], through)
        return row.record(now_us) | {"high_watermark": through} | more

    async def _names(self) -> Iterable[str]:
        if self._sessions is not None:
            return {*self._sessions.owners, *self._sessions.kept}
        return [document.client_id for document in await self._source.scan(SessionDocument)]

    async def _look(self, name: str, shown: Shown) -> tuple[Row, Unread] | None:
        try:
            retries = await self._retries(name)
            found = await self._find(name)
        except StoreCorrupt as error:
            return (Row(name, damaged=str(error)), Unread()) if await shown(()) else None
        if found is None or not (found[0].durable or found[0].subscriptions):
            return None
        row, unread, filters = self._row(*found), unread_of(found[0]), concerned(name, found[0])
        unread.beside += retries
        return (row, unread) if await shown(filters) else None

    async def _retries(self, name: str) -> list[Offset]:
        """What a group is to try again later, beside its window."""
        if not is_shared(name):
            return []
        rows = await self._source.scan_together([RetryDocument], (name,))
        return [row.offset for row in rows if isinstance(row, RetryDocument)]

    async def _find(self, name: str) -> tuple[Session, Owner | None] | None:
        """Nothing is awaited after the session in memory was looked at."""
        if self._sessions is not None:
            session = self._sessions.in_memory.get(name)
            if session is not None:
                return session, self._sessions.owners.get(name)
        session = await load(self._source, name, inflight_max=PACKET_IDENTIFIER_MAX)
        return None if session is None else (session, None)

    def _row(
        self, session: Session, owner: Owner | None, *, filters_max: int = FILTERS_SHOWN_MAX
    ) -> Row:
        tally, members = session.tally, None if owner is None else owner.member_names
        return Row(
            session.client_id,
            connected=owner is not None,
            address="" if owner is None else owner.address,
            last_seen_us=tally.last_seen_us or None,
            session_expiry_s=session.session_expiry_s,
            filters=sorted(session.subscriptions)[:filters_max],
            filter_count=len(session.subscriptions),
            cursor=session.cursor(),
            in_flight=len(session.in_flight),
            redelivered=tally.redelivered,
            missed=tally.missed,
            members=None if members is None else len(members),
        )

    async def _measure(
        self, rows: Sequence[Row], unread: Sequence[Unread], through: Offset
    ) -> None:
        """All in one pass over the figures of the log."""
        stretches = [s for each in unread for s in (*each.plus, *each.minus)]
        amounts = iter(await self._source.measure(stretches, through))
        for row, each in zip(rows, unread, strict=True):
            plus = [next(amounts) for _ in each.plus]
            minus = [next(amounts) for _ in each.minus]
            in_flight = await self._source.amount(each.beside) if each.beside else Amount()
            if not row.damaged:
                row.lag = each.total(in_flight, plus, minus)
                row.exact = each.exact


def _subscription(subscription: SubscriptionDocument) -> dict[str, object]:
    return {
        "filter": subscription.filter,
        "qos": subscription.qos,
        "subscription_id": subscription.subscription_id,
        "no_local": subscription.no_local,
        "metadata": subscription.metadata,
        "after": subscription.start_offset if subscription.start_offset < NOT_YET else None,
        "until": subscription.until_offset,
        "replaying": subscription.replaying,
    }
