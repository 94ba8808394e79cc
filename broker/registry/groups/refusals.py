"""Refusals: what members refuse in one turn of the loop is dealt with together, many in several.

Each PUBACK that refuses is a packet of its own, and a member may send thousands at once.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import NamedTuple

from broker.message import Lease
from broker.registry.groups.group import Group
from broker.registry.groups.retries import Failure
from broker.session.session import Session

AT_ONCE_MAX = 250
"""About 10 ms."""

logger = logging.getLogger(__name__)


class Refusal(NamedTuple):
    member: Session
    lease: Lease
    reason: str


def fail(group: Group, refusals: Sequence[Refusal]) -> set[Session]:
    """Members refuse these of the group, which is open: who does."""
    final = group.redelivery.policy.refusals_are_final
    for member, lease, _ in refusals:
        if not lease.attempt:
            group.redelivery.let_go(member, [lease.offset])
    group.failed_at([Failure(e, why, m.client_id, final=final) for m, e, why in refusals])
    return {refusal.member for refusal in refusals}


class Refusals:
    """`deal_with` is called with those of one group."""

    def __init__(self, deal_with: Callable[[str, Sequence[Refusal]], None]) -> None:
        self._deal_with = deal_with
        self._waiting: deque[Refusal] = deque()
        self._scheduled = False

    def add(self, member: Session, leases: Sequence[Lease], reason: str) -> None:
        self._waiting.extend([Refusal(member, lease, reason) for lease in leases])
        self._schedule()

    def flush(self) -> None:
        """Deal with all now: somebody leaves, or a group is to end."""
        while self._waiting:
            self._some()

    def _schedule(self) -> None:
        if self._waiting and not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._next_turn)

    def _next_turn(self) -> None:
        self._scheduled = False
        self._some()
        self._schedule()

    def _some(self) -> None:
        part = [self._waiting.popleft() for _ in range(min(AT_ONCE_MAX, len(self._waiting)))]
        part.sort(key=lambda refusal: refusal.lease.group)
        for group, of_group in groupby(part, key=lambda refusal: refusal.lease.group):
            try:
                self._deal_with(group, [*of_group])
            except Exception as error:  # Of one group: the others have nothing to do with it.
                logger.critical("what members of %s refuse", group, exc_info=error)
