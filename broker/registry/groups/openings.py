"""Openings: a group is opened for its first member, and closed when the last one has left."""

from __future__ import annotations

from dataclasses import replace

from broker.clock import Clock
from broker.config import Config
from broker.counters import Counters
from broker.delivery.delivery import Delivery
from broker.documents import Put
from broker.documents.queues import GroupDocument
from broker.log.log import Log
from broker.message import Offset
from broker.registry.groups.dead_letters import DeadLetters
from broker.registry.groups.group import Group
from broker.registry.groups.lending import Lending
from broker.registry.groups.lingering import Lingering
from broker.registry.groups.policy import Policy, subscription_of
from broker.registry.groups.redelivery import Redelivery
from broker.registry.groups.times import GroupTimes
from broker.registry.sessions import SESSION_EXPIRY_NEVER, Sessions
from broker.topics import parse_shared


class Openings:
    def __init__(
        self,
        log: Log,
        delivery: Delivery,
        sessions: Sessions,
        counters: Counters,
        config: Config,
        clock: Clock,
        dead_letters: DeadLetters,
        times: GroupTimes,
        lingering: Lingering,
        lending: Lending,
    ) -> None:
        self._log = log
        self._delivery = delivery
        self._sessions = sessions
        self._counters = counters
        self._config = config
        self._clock = clock
        self._dead_letters = dead_letters
        self._times = times
        self._lingering = lingering
        self._lending = lending

    async def open(self, group: Group, made: GroupDocument | None, here: Offset, user: str) -> None:
        """Let the group have its session, which is the user's. A new one begins at `here`. `made`:
        by a command. Raises StoreError, QuotaExceeded, NotAuthorized; AtAnotherBroker."""
        shared = parse_shared(group.name)
        assert shared is not None
        redelivery = Redelivery(
            *(group.name, Policy.of(made), self._log, self._delivery, self._counters, self._clock),
            *(self._dead_letters, self._times, group),
        )
        await redelivery.begin()
        if not self._sessions.has_durable(group.name):
            await self._lingering.make_room()
        most = self._config.inflight_max
        session, _ = await self._sessions.open(
            group.name,
            group,
            clean_start=False,
            session_expiry_s=SESSION_EXPIRY_NEVER,
            receive_maximum=most,
            will=None,
            now=self._clock.now(),
            user=user,
        )
        try:
            lent = await self._lending.found(group.name)
        except BaseException:
            self._sessions.close(session, group, self._clock.now())
            raise
        self._lingering.opened(group.name)
        left = self._lending.left(lent, session, self._clock.monotonic())
        log, delivery = self._log, self._delivery
        group.opened(session, log, delivery, self._counters, most, redelivery, left)
        self._lending.resume(group, lent)
        _, topic_filter = shared
        if topic_filter not in session.subscriptions:
            subscription = subscription_of(group.name, topic_filter, here)
            delivery.subscribe(session, subscription)
            delivery.go_back(session, here)
            # With the cursor: whatever comes from here on is owed, also after a crash.
            log.changed(session)
            await log.commit_now([Put(replace(subscription))])

    def close(self, group: Group) -> None:
        """Nobody is there: the group waits in the log."""
        if group.sender is not None:
            session = group.sender.session
            group.closed()
            self._times.closed(group.name)
            self._sessions.close(session, group, self._clock.now())
            self._lingering.closed(group.name)
