"""Retained: reads what is retained for new subscriptions of a session.

- Many topics take seconds to search, and many messages to send. Live messages go in between, on
  each topic after what is retained there. (`session.owed` has the order.)
- What the client did not take before it left is looked for again when it is back: how far it came
  is kept with each subscription.
"""

from __future__ import annotations

import asyncio
import logging
from array import array
from bisect import bisect_right
from collections.abc import Sequence

from broker import tasks
from broker.delivery.readers import READ_BYTES_MAX, READ_MESSAGES_MAX, Reader
from broker.errors import StoreCorrupt
from broker.message import Offset
from broker.session.owed import BLOCKING_MAX
from broker.store import Read

logger = logging.getLogger(__name__)

LONG_SEARCH_S = 0.05
"""Live messages wait so long for a search for what is retained; then they go in between."""
LOOK_AT_LIVE_S = 0.01
MANY_RETAINED = 500
"""Retained messages beyond which live ones go in between, after each so many."""


class Retained(Reader):
    """What is retained for new subscriptions, once; of what does not wait in the session yet it
    keeps the offsets, eight bytes each. (P7) Offers a part only when the one before was taken."""

    def has_room(self) -> bool:
        return not self.session.owed.waiting

    async def run(self) -> None:
        session, delivery = self.session, self.delivery
        owing = session.owed.begin_read()
        after = min([s.retained_after for s in owing], default=Offset(0))
        through = max([s.retained_through for s in owing], default=Offset(0))
        found: list[Offset] = []
        searching = tasks.start(self._search([s.filter for s in owing], found), _told)
        try:
            await self._let_live_between(searching, after, through)
            await searching
        except StoreCorrupt as error:
            # Or it would be cut off at each subscription. Which offsets they have nobody knows.
            logger.error("client %r gets nothing retained: %s", session.client_id, error)
            delivery.retained_read(session, Read([], Offset(0), [range(1)]), last_part=True)
            return
        finally:
            searching.cancel()
        offsets = array("q", found[bisect_right(found, after) : bisect_right(found, through)])
        found.clear()
        if offsets:
            # A live session was offered everything below them then, so that each finds its place.
            await delivery.routed(Offset(offsets[-1]))
        many = session.owed.ahead is not None
        if not many and len(offsets) > MANY_RETAINED and self._all_live_is_newer_than(offsets[-1]):
            many = True
            session.owed.let_live_between()
        part_max = MANY_RETAINED if many else READ_MESSAGES_MAX
        done = 0
        while True:
            await self.room()
            if many and (topics := session.owed.blocking(session.outbox)):
                await self._send_ahead(topics, after, through)
                continue
            part = [Offset(offset) for offset in offsets[done : done + part_max]]
            read, looked_at = await delivery.fetch(session, part, READ_BYTES_MAX)
            done += looked_at
            last_part = done >= len(offsets)
            delivery.retained_read(session, read, last_part=last_part)
            if last_part:
                break
            await asyncio.sleep(0)

    async def _search(self, filters: Sequence[str], found: list[Offset]) -> None:
        found += await self.delivery.retained(self.session, filters)

    async def _let_live_between(
        self, searching: asyncio.Task[None], after: Offset, through: Offset
    ) -> None:
        """While a long search runs, send what is retained on the topics of live messages first."""
        owed, outbox = self.session.owed, self.session.outbox
        await asyncio.wait([searching], timeout=LONG_SEARCH_S)
        if searching.done() or self.delivery.live.through < through:
            return
        if not await self._older_go_first(through) or not self.session.position.is_live:
            return
        owed.let_live_between(through)
        self.delivery.waking.wake([self.session])
        while not searching.done():
            if topics := owed.blocking(outbox):
                await self._send_ahead(topics, after, through)
            else:
                await asyncio.wait([searching], timeout=LOOK_AT_LIVE_S)

    async def _older_go_first(self, through: Offset) -> bool:
        """Whether live messages from before the SUBSCRIBE can go before all that is retained: on
        their topics nothing older is."""
        older = {m.topic: m.offset for m, _ in self.session.outbox if m.offset <= through}
        if not older:
            return True
        if len(older) > BLOCKING_MAX:
            return False
        found = await self.delivery.retained(self.session, [*older])
        if not found:
            return True
        read, looked_at = await self.delivery.fetch(self.session, found, READ_BYTES_MAX)
        newest = {message.topic: message.offset for message in read.messages}
        return looked_at == len(found) and all(
            newest.get(topic, offset) >= offset for topic, offset in older.items()
        )

    def _all_live_is_newer_than(self, retained: int) -> bool:
        session = self.session
        older = session.outbox and session.outbox[0][0].offset <= retained
        return session.position.is_live and not older

    async def _send_ahead(self, topics: list[str], after: Offset, through: Offset) -> None:
        """Live messages on these topics wait: send what is retained there first."""
        session, delivery, owed = self.session, self.delivery, self.session.owed
        found = await delivery.retained(session, topics)
        left = [offset for offset in found if after < offset <= through]
        while left:
            read, looked_at = await delivery.fetch(session, left, READ_BYTES_MAX)
            del left[:looked_at]
            owed.offer_ahead()
            delivery.retained_read(session, read, last_part=False)
            await self.room()
        owed.gone_ahead(topics)
        delivery.waking.wake([session])


def _told(error: Exception) -> None:
    """A search failed: whoever waits for it hears of that, too."""
