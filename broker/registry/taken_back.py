"""Taken back: messages of a group that a member has still, though another may have them by now."""

from __future__ import annotations

from dataclasses import dataclass

from broker.message import Lease, Offset, ServedUs
from broker.registry.retries import Retry
from broker.session.session import Session


@dataclass(slots=True)
class _Entry:
    members: set[Session]
    retry: Retry
    """Where it is tried again."""


class TakenBack:
    """By offset. It has no more entries than the members have places in their Receive Maximum."""

    def __init__(self) -> None:
        self._entries: dict[Offset, _Entry] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, member: Session, lease: Lease) -> None:
        entry = self._entries.get(lease.offset)
        if entry is None:
            unknown = Retry(ServedUs(0), lease.offset, lease.attempt - 1)
            entry = self._entries[lease.offset] = _Entry(set(), unknown)
        entry.members.add(member)

    def has(self, member: Session, offset: Offset) -> bool:
        """Whether this member has it still."""
        entry = self._entries.get(offset)
        return entry is not None and member in entry.members

    def let_go(self, member: Session, offset: Offset) -> None:
        """The member acknowledged it, or is gone."""
        entry = self._entries.get(offset)
        if entry is not None:
            entry.members.discard(member)
            if not entry.members:
                del self._entries[offset]

    def goes_on(self, retry: Retry) -> None:
        """The message is tried again there."""
        entry = self._entries.get(retry.offset)
        if entry is not None:
            entry.retry = retry

    def retry(self, offset: Offset) -> Retry | None:
        entry = self._entries.get(offset)
        return None if entry is None else entry.retry

    def forget(self, offset: Offset) -> None:
        """It is not tried again."""
        self._entries.pop(offset, None)
