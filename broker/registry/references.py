"""References: where clients are told to go on, as several brokers share the log. [MQTT 5, 4.11]

Each broker tells the others where clients reach it (`advertise`), and whether it has room. A client
of ours is referred to one of them, the next one each time: if there is no room for it here, and
when this broker is about to end.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from broker.config import Config
from broker.errors import QuotaExceeded, UseAnotherServer
from broker.store.shared.entries import Told

SPARE_PART, SPARE_MAX = 20, 100
"""One in so many of `connections_max`, and no more than that, are for clients that are referred."""


class References:
    def __init__(self, config: Config) -> None:
        self._config = config
        self.others: Callable[[], Sequence[Told]] = tuple
        """What the other living brokers tell."""
        self.connections: Callable[[], int] = lambda: 0
        self.sessions: Callable[[], int] = lambda: 0
        """How many there are here."""
        self.ending = False
        """Whether this broker is about to end: nobody is to be referred to it."""
        self._count = 0

    def told(self) -> Told:
        """For the other brokers."""
        full = self._is_crowded() or self.sessions() >= self._config.sessions_max
        advertise = "" if self.ending else self._config.advertise
        return Told(advertise, not (full or self.ending), self.connections())

    def next(self, *, with_room: bool = False) -> str:
        """`host:port` of another broker; "": there is none, or none says where it is."""
        there = [each for each in self.others() if each.advertise]
        there = [each for each in there if each.has_room or not with_room]
        if not there:
            return ""
        self._count += 1
        return there[self._count % len(there)].advertise

    def refer_if_crowded(self) -> None:
        """Raises UseAnotherServer: one more connection is too many here, and not elsewhere."""
        if self._is_crowded() and (other := self.next(with_room=True)):
            raise UseAnotherServer("this broker has as many connections as it may", other)

    def full(self, reason: str) -> QuotaExceeded:
        """There is no room here: what to raise of that."""
        other = self.next(with_room=True)
        return UseAnotherServer(reason, other) if other else QuotaExceeded(reason)

    def _is_crowded(self) -> bool:
        most = self._config.connections_max
        return self.connections() > most - max(1, min(most // SPARE_PART, SPARE_MAX))
