"""Shared Subscriptions: a group owns the place in the log, members lease messages [MQTT 5, 4.8.2]

A group (`$share/<name>/<filter>`) is a durable session of its own under that name, fed by delivery
like any other. Instead of a client it is emptied into the sessions of its connected members
(`group`). Here is who is a member, and how long a group is there.

- The group outlives the absence of all members, and a restart: it costs an offset, like any
  subscriber, until it was without members for `session_expiry_default_s`.
- Who unsubscribes finishes what it has; until it has, or is gone, the group stays open for that.
- A crash repeats at most `inflight_max` acknowledged messages for each member (P4).
- A QoS 2 message belongs to the member it was sent to: the lease ends in the same commit that makes
  its Packet Identifier durable, and nobody else gets it. [MQTT-4.8.2-4, MQTT-4.8.2-5]
"""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from dataclasses import replace

from broker.clock import Clock
from broker.config import Config
from broker.counters import Counters
from broker.delivery.delivery import Delivery
from broker.documents import Put, SubscriptionDocument
from broker.log.log import Log
from broker.message import Offset
from broker.registry.group import Group, Member
from broker.registry.sessions import Sessions
from broker.session.session import Session
from broker.topics import is_shared, parse_shared

JOINED_AT_ONCE_MAX = 500
"""Groups that a client who comes back joins in one turn of the loop: about 5 ms."""


class Groups:
    def __init__(
        self,
        log: Log,
        delivery: Delivery,
        sessions: Sessions,
        counters: Counters,
        config: Config,
        clock: Clock,
    ) -> None:
        self._log = log
        self._delivery = delivery
        self._sessions = sessions
        self._counters = counters
        self._config = config
        self._clock = clock
        self._groups: dict[str, Group] = {}
        self._memberships: dict[Session, set[Group]] = {}
        """The groups that a session is a member of, or has leases of."""

    @property
    def open_count(self) -> int:
        """Groups that are not waiting in the log."""
        return len(self._groups)

    async def attach(self, session: Session, subscriber: Member) -> None:
        """A client came back to its session: it is a member of its groups again."""
        shared = [s for s in session.subscriptions.values() if is_shared(s.filter)]
        for number, subscription in enumerate(shared, 1):
            await self.join(session, subscription, subscriber)
            if number % JOINED_AT_ONCE_MAX == 0:
                await asyncio.sleep(0)

    async def join(
        self,
        session: Session,
        subscription: SubscriptionDocument,
        subscriber: Member,
        here: Offset | None = None,
    ) -> None:
        """Let the session have its share. A new group begins at `here`, or where the log ends.
        Raises StoreError, QuotaExceeded."""
        while True:
            group = self._groups.setdefault(subscription.filter, Group(subscription.filter))
            async with group.lock:
                if self._groups.get(group.name) is not group:
                    continue  # All its members left while we waited.
                try:
                    if group.sender is None:
                        await self._open(group, self._log.high_watermark if here is None else here)
                except Exception:
                    self._close(group)
                    raise
                if session.attached:
                    self._memberships.setdefault(session, set()).add(group)
                    group.add(session, subscription, subscriber)
                elif group.empty:
                    self._close(group)
                return

    async def _open(self, group: Group, here: Offset) -> None:
        shared = parse_shared(group.name)
        assert shared is not None
        session, _ = await self._sessions.open(
            group.name,
            group,
            clean_start=False,
            session_expiry_s=self._config.session_expiry_default_s,
            receive_maximum=self._config.inflight_max,
            will=None,
            now=self._clock.now(),
        )
        group.opened(session, self._log, self._delivery, self._counters, self._config.inflight_max)
        _, topic_filter = shared
        if topic_filter not in session.subscriptions:
            subscription = SubscriptionDocument(
                group.name,
                topic_filter,
                qos=1,
                no_local=False,
                retain_as_published=False,
                retain_handling=2,
                subscription_id=None,
                start_offset=here,
            )
            self._delivery.subscribe(session, subscription)
            self._delivery.go_back(session, here)
            # With the cursor: whatever comes from here on is owed, also after a crash.
            self._log.changed(session)
            await self._log.commit_now([Put(replace(subscription))])

    def leave(self, session: Session, name: str) -> None:
        """The session unsubscribed: it gets no more, and finishes what it has. [MQTT-3.10.4-3]"""
        group = self._groups.get(name)
        if group is not None and group in self._memberships.get(session, ()):
            group.leave(session, session.waiting_leases(name))
            self._let_finished_go(group, session)

    def _let_finished_go(self, group: Group, session: Session) -> None:
        """If one that unsubscribed has nothing in flight of this group any more."""
        if session in group.leaving and not session.in_flight.has_lease(group.name):
            self._memberships[session].discard(group)
            self._remove(group, session)

    def detach(self, session: Session) -> None:
        """The client is gone: what it did not acknowledge goes to the others."""
        with ExitStack() as leaving:  # Whatever happens in one group, it leaves the others.
            for group in self._memberships.pop(session, ()):
                leaving.callback(self._detach_from, group, session)

    def _detach_from(self, group: Group, session: Session) -> None:
        try:
            sent = session.in_flight.return_leases(group.name)
            group.leave(session, session.waiting_leases(group.name), sent)
        finally:
            self._remove(group, session)

    def _remove(self, group: Group, session: Session) -> None:
        group.forget(session)
        if group.empty:
            self._close(group)

    def _close(self, group: Group) -> None:
        """Nobody is there: the group waits in the log."""
        self._groups.pop(group.name, None)
        if group.sender is not None:
            session = group.sender.session
            group.closed()
            self._sessions.close(session, group, self._clock.now())

    def settle(self, session: Session) -> None:
        """Tell the groups which leases of this member ended."""
        if not session.in_flight.settled:
            return
        ended: dict[str, list[int]] = {}
        for lease in session.in_flight.take_settled():
            ended.setdefault(lease.group, []).append(lease.packet_id)
        for name, packet_ids in ended.items():
            group = self._groups.get(name)
            if group is not None:
                group.acknowledged(packet_ids)
                self._let_finished_go(group, session)

    def stalled(self, session: Session) -> None:
        """The member's socket is full: leases that wait for it go to others."""
        for group in tuple(self._memberships.get(session, ())) if session.aside else ():
            group.return_leases(session.waiting_leases(group.name))

    def drained(self, session: Session) -> None:
        """The member has sent something: it may have room for more."""
        for group in tuple(self._memberships.get(session, ())):
            group.drained(session)
