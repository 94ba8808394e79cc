"""Brokers: who else shares the log, who of them is dead, and what the dead have left.

- Each broker tells of itself every HEARTBEAT_S. One of which the log shows nothing
  for `timeout_s` is taken for dead by whoever says so first; if it lives, it hears of that and has
  to start anew. Nobody compares clocks, and nobody counts while its own appends take long.
- The first of the living trims the log (`store/shared/trimming.py`).
- What a dead broker left is taken up by whoever comes to it first: its sessions go on expiring, and
  its clients' wills go out, here; each of them at one broker, as it is one append that takes it.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress

from broker.clock import Clock
from broker.documents import Key, OwnerDocument, WillDeadlineDocument
from broker.errors import StoreConflict, StoreError, StoreUnavailable
from broker.log.delayed import Delayed
from broker.message import Monotonic
from broker.plural import counted
from broker.registry.groups.groups import Groups
from broker.registry.ownership import Shared
from broker.registry.references import References
from broker.registry.sessions import Sessions
from broker.store import PART_MAX
from broker.store.shared.cluster import ClusterStore

HEARTBEAT_S = 2.0
BROKER_TIMEOUT_S = 8.0
SLOW_S = 1.0
"""An append of our own that takes longer says that it is not the others who are slow."""
LOOK_AGAIN_S = 30.0
"""After this long it is seen whether whoever took a broker for dead has taken up what it left."""
TRIM_INTERVAL_S = 10.0
FORGET_INTERVAL_S = 600.0
FORGET_DEAD_S = 3600.0
"""So long the log knows who is dead. What such a broker still appends would count for nothing in
any case, as its first entry is missing then."""
FORGOTTEN_AT_ONCE_MAX = 1000
TAKEN_AT_ONCE_MAX = 100
"""Sessions that one append takes."""

logger = logging.getLogger(__name__)


class Brokers:
    def __init__(
        self,
        store: ClusterStore,
        clock: Clock,
        sessions: Sessions,
        delayed: Delayed,
        groups: Groups,
        references: References,
        *,
        timeout_s: float = BROKER_TIMEOUT_S,
    ) -> None:
        self._store = store
        self._clock = clock
        self._sessions = sessions
        self._delayed = delayed
        self._groups = groups
        self._references = references
        references.others = lambda: store.told
        self._timeout_s = timeout_s
        assert isinstance(sessions.ownership, Shared)
        self._ownership = sessions.ownership
        self._heard: dict[str, tuple[int, Monotonic]] = {}
        """The newest append of each, and when that was seen."""
        self._dead_since: dict[str, Monotonic] = {}
        """Those known to be dead, and when that was seen."""
        self._look_at = clock.monotonic()
        """When to see what the dead have left."""
        self._forget_at = self._look_at

    def values(self) -> dict[str, object]:
        """For `$SYS`: who shares the log and is not dead, this broker among them."""
        alive = sorted([self._store.broker_id, *self._store.others])
        return {"brokers/count": len(alive), "brokers/alive": " ".join(alive)}

    async def watch_forever(self) -> None:
        """Raises StoreError: the broker cannot go on."""
        while True:
            await self.look()
            await self._clock.sleep(HEARTBEAT_S)

    async def trim_forever(self) -> None:
        told = ""
        while True:
            await self._clock.sleep(TRIM_INTERVAL_S)
            try:
                await self._store.trim_log()
            except StoreError as error:  # If it cannot be appended to either, that ends the broker.
                if str(error) != told:
                    logger.warning("the shared log was not trimmed: %s", error)
                told = str(error)
            else:
                told = ""

    async def look(self) -> None:
        """Say that we live, see who does, take up what the dead have left. Raises StoreError."""
        began = self._clock.monotonic()
        await self._store.tell(self._references.told())
        now = self._clock.monotonic()
        if now - began > SLOW_S:
            self._heard.clear()
        others = self._store.others
        for broker in self._heard.keys() - others.keys():
            del self._heard[broker]
        for broker, position in others.items():
            at, since = self._heard.get(broker, (-1, now))
            if at != position:
                self._heard[broker] = position, now
            elif now - since >= self._timeout_s and await self._store.declare_dead(broker):
                silent_s = now - since
                logger.warning("broker %s is taken for dead: silent for %.0f s", broker, silent_s)
                self._look_at = now
        if new := self._store.dead - self._dead_since.keys():
            self._dead_since |= dict.fromkeys(new, now)
            await self._store.sync()  # Of their death is heard before what they said before it.
            self._groups.lending.died(new)
            # One that has taken leave: the first of those left takes up what it has left.
            later = self._clock.now().after(LOOK_AGAIN_S)
            self._look_at = min(self._look_at, now if self._store.is_first else later)
        if now >= self._look_at:
            self._look_at = Monotonic(float("inf"))
            try:
                await self.take_up()
            except StoreUnavailable as error:
                if self._store.failure is not None:
                    raise
                logger.warning("what dead brokers have left is taken up later: %s", error)
                self._look_at = now
        if now >= self._forget_at and self._store.is_first:
            self._forget_at = Monotonic(now + FORGET_INTERVAL_S)
            await self._forget_dead(now)

    async def _forget_dead(self, now: Monotonic) -> None:
        """Let the log forget brokers that are dead for long."""
        for broker in self._dead_since.keys() - self._store.dead:
            del self._dead_since[broker]
        over = [b for b, since in self._dead_since.items() if now - since >= FORGET_DEAD_S]
        with suppress(StoreConflict):  # Another broker was quicker.
            await self._store.forget(sorted(over)[:FORGOTTEN_AT_ONCE_MAX])

    async def take_up(self) -> None:
        """What the dead have left. Raises StoreError."""
        store, count = self._store, 0
        await store.sync()  # Of their death is heard before what came before it is in the copy.
        alive, kept = {store.broker_id, *store.others}, self._sessions.kept
        after: Key | None = None
        while True:
            part = await store.scan_part(OwnerDocument, (), after)
            left = [
                owner.client_id
                for owner in part
                if owner.broker not in store.others and owner.client_id not in kept
            ]
            for begin in range(0, len(left), TAKEN_AT_ONCE_MAX):
                count += await self._take_up(left[begin : begin + TAKEN_AT_ONCE_MAX])
            if len(part) < PART_MAX:
                break
            after = (part[-1].client_id,)
        after = None
        while True:  # Those whose session has ended before.
            wills = await store.scan_part(WillDeadlineDocument, (), after)
            for will in wills:
                if await store.get(OwnerDocument, (will.client_id,)) is None:
                    count += await self._take_up([will.client_id])
            if len(wills) < PART_MAX:
                break
            after = (wills[-1].client_id,)
        self._groups.dead_letters.look()
        if messages := await self._delayed.take_up(alive):
            waiting = counted(messages, "delayed message")
            logger.info("%s of brokers that are dead: taken up", waiting)
        if count:
            sessions = counted(count, "session")
            logger.info("%s of brokers that are dead: taken up", sessions)

    async def _take_up(self, client_ids: Sequence[str]) -> int:
        """How many of these sessions are here now."""
        async with AsyncExitStack() as locks:
            for client_id in sorted(client_ids):
                await locks.enter_async_context(self._sessions.lock(client_id))
            absent = [each for each in client_ids if each not in self._sessions.kept]
            taken = await self._ownership.take_left(absent)
            self._sessions.arrived(taken, self._clock.now())
        return len(taken)
