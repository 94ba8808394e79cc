"""Group times: when retries of groups are due, and which leases have lasted too long.

One deadline for all groups. Leases are looked at when the oldest may be over, all of the members of
all groups in parts: a lease costs nothing until then. The clock is the loop's: it stands still
while the machine is suspended, and nobody can set it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Protocol

from broker.clock import NEVER, Instant
from broker.log.deadlines import Deadlines
from broker.message import Monotonic
from broker.registry.groups.group import Group
from broker.session.session import Session

DUE_AT_ONCE_MAX = 100
"""Groups whose retries are looked at in one turn of the loop."""
MEMBERS_AT_ONCE_MAX = 2000
TAKEN_BACK_AT_ONCE_MAX = 500
"""Leases that are looked at in one turn of the loop, and that are taken back: about 5 ms each."""
CHECK_INTERVAL_S = 0.25
"""Leases are not looked at more often."""


class GroupsWithTimes(Protocol):
    def get(self, name: str) -> Group | None:
        """The group, if it is open."""
        ...

    def everybody(self) -> Mapping[Session, set[Group]]:
        """The members of all open groups."""
        ...


class GroupTimes:
    def __init__(self, groups: GroupsWithTimes, moved: Callable[[], None]) -> None:
        """`moved` is called when a deadline may be earlier than it was."""
        self._groups = groups
        self._moved = moved
        self._retries = Deadlines()
        self._check_at = NEVER
        self._checking: Iterator[Session] | None = None
        """The members that are still to be looked at, of a look that has begun."""
        self._next_check_at = NEVER
        """As far as the look has come."""

    def retry_at(self, group: str, at: Monotonic) -> None:
        known = self._retries.get(group)
        if known is None or at < known:
            soonest = self._retries.soonest()
            self._retries.set(group, at)
            if soonest is None or at < soonest:
                self._moved()

    def lease_over_at(self, at: Monotonic) -> None:
        """Somebody was leased something until then."""
        if at < self._check_at:
            if self._checking is not None:
                self._next_check_at = min(at, self._next_check_at)
            else:
                self._check_at = at
                self._moved()

    def closed(self, group: str) -> None:
        self._retries.remove(group)

    def deadline(self) -> Monotonic | None:
        retry_at = self._retries.soonest()
        at = self._check_at if retry_at is None else min(self._check_at, retry_at)
        return None if at == NEVER else at

    def expire(self, now: Instant) -> None:
        for name in self._retries.take_due(now.monotonic, DUE_AT_ONCE_MAX):
            group = self._groups.get(name)
            if group is not None:
                group.wake()
        if self._check_at <= now.monotonic:
            self._check(now.monotonic)

    def _check(self, now: Monotonic) -> None:
        if self._checking is None:
            self._checking = iter([*self._groups.everybody()])
            self._next_check_at = NEVER
        taken_back = 0
        for looked_at, member in enumerate(self._checking, 1):
            if (groups := self._groups.everybody().get(member)) is not None:
                taken_back += self._check_member(member, groups, now)
            if looked_at >= MEMBERS_AT_ONCE_MAX or taken_back >= TAKEN_BACK_AT_ONCE_MAX:
                return
        self._checking = None
        self._check_at = Monotonic(max(self._next_check_at, now + CHECK_INTERVAL_S))

    def _check_member(self, member: Session, groups: set[Group], now: Monotonic) -> int:
        """How many leases were taken back from it."""
        leases = member.in_flight.leases
        if not leases.held:
            return 0
        of = {group.name: group for group in groups if group.sender is not None}
        lasts = {name: group.redelivery.policy.lease_s for name, group in of.items()}
        shortest = min(lasts.values(), default=NEVER)
        counts = next(iter(leases.held))
        over: dict[str, list[int]] = {}
        count = 0
        for packet_id, lease in leases.current():
            at = Monotonic(lease.leased_at + lasts.get(lease.group, NEVER))
            if at <= now and count < TAKEN_BACK_AT_ONCE_MAX:
                over.setdefault(lease.group, []).append(packet_id)
                count += 1
            elif lease.leased_at + shortest > now:
                at = Monotonic(lease.leased_at + shortest)
                self._next_check_at = min(self._next_check_at, at)
                break
            else:
                self._next_check_at = min(self._next_check_at, at)
        for name, packet_ids in over.items():
            of[name].redelivery.take_back(member, packet_ids, counts)
            of[name].wake()
        return count
