"""Session expiry: stores until when absent sessions last, and ends those whose interval has passed.
[MQTT-3.1.2-23]
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol

from broker.clock import Instant
from broker.documents import Delete, Operation, Put, SessionDocument
from broker.errors import StoreConflict, StoreError
from broker.log.log import Log
from broker.message import Monotonic
from broker.registry.faces import AbsentGroups
from broker.registry.kept import Kept

ENDED_AT_ONCE_MAX = 500
"""Sessions that expired and are ended in one commit; the next ones when that is done."""

logger = logging.getLogger(__name__)


class Sessions(Protocol):
    """Those that may expire."""

    kept: Kept
    absent_groups: AbsentGroups

    def is_absent(self, client_id: str) -> bool:
        """Whether the session is here, and nobody is connected to it."""
        ...

    def absent_ended(self, client_id: str, now: Instant) -> None:
        """An absent session is over; that is being stored."""
        ...


class SessionExpiry:
    """`deadline_moved` is called when a deadline may be earlier than it was."""

    def __init__(self, log: Log, sessions: Sessions, deadline_moved: Callable[[], None]) -> None:
        self._log = log
        self._sessions = sessions
        self._deadline_moved = deadline_moved
        self.count = 0
        """Of sessions that have expired since the broker started."""
        self._ending = False
        """Whether the end of some is being committed."""

    def begin(self, documents: Sequence[SessionDocument]) -> None:
        """Store of these, which have no client, until when they last."""

        def stored(error: StoreError | None) -> None:
            if isinstance(error, StoreConflict):  # Another broker has some, and none is stored.
                rest = [each for each in documents if each.client_id not in error.of]
                self.begin([each for each in rest if self._sessions.is_absent(each.client_id)])

        if documents:
            self._log.append([], stored, operations=[Put(document) for document in documents])

    def deadline(self) -> Monotonic | None:
        """When the next session expires, in whole seconds: those of one second share a commit."""
        soonest = self._sessions.kept.soonest(clients=not self._ending)
        return None if soonest is None else Monotonic(math.ceil(soonest))

    def expire(self, now: Instant) -> None:
        """End what is due."""
        kept, absent_groups = self._sessions.kept, self._sessions.absent_groups
        if groups := kept.take_due_groups(now.monotonic, ENDED_AT_ONCE_MAX):
            absent_groups.due(groups)
        if self._ending:
            return
        expired = kept.take_due(now.monotonic, ENDED_AT_ONCE_MAX)
        if not expired:
            return
        self._ending = True
        self._store_end(expired)
        absent_groups.sessions_ended()
        for client_id in expired:
            try:
                self._sessions.absent_ended(client_id, now)
            except Exception as error:
                logger.critical("the end of session %r", client_id, exc_info=error)
        self.count += len(expired)

    def _store_end(self, client_ids: Sequence[str]) -> None:
        ended: list[Operation] = [Delete(SessionDocument, (client_id,)) for client_id in client_ids]
        self._log.append([], partial(self._ended, client_ids), operations=ended)

    def _ended(self, client_ids: Sequence[str], error: StoreError | None) -> None:
        if isinstance(error, StoreConflict):  # Another broker has some, and none has ended.
            kept = self._sessions.kept
            rest = [each for each in client_ids if each not in error.of and each not in kept]
            if rest:
                self._store_end(rest)
                return
        self._ending = False
        self._deadline_moved()
