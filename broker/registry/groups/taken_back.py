"""Taken back: messages of a group that a member has still, though another may have them by now."""

from __future__ import annotations

from dataclasses import dataclass

from broker.message import Lease, Offset, ServedUs
from broker.registry.groups.retries import Retry
from broker.session.session import Session


@dataclass(slots=True)
class _Entry:
    members: set[Session]
    retry: Retry
    """Where it is tried again."""
    waits: bool = False
    """Until one of the members lets it go, or another comes."""


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

    def let_go(self, member: Session, offset: Offset) -> Retry | None:
        """The member refused it, or is gone: what is not to wait any longer, if it did."""
        entry = self._entries.get(offset)
        if entry is None or member not in entry.members:
            return None
        entry.members.discard(member)
        if not entry.members:
            del self._entries[offset]
        waited, entry.waits = entry.waits, False
        return entry.retry if waited else None

    def wait(self, offset: Offset) -> None:
        """It is not tried again until a member lets it go, or another comes."""
        self._entries[offset].waits = True

    @property
    def waiting(self) -> int:
        return sum([entry.waits for entry in self._entries.values()])

    def take_waiting(self) -> list[Retry]:
        """Another member has come: what waited, and does not any longer."""
        waiting = [entry for entry in self._entries.values() if entry.waits]
        for entry in waiting:
            entry.waits = False
        return [entry.retry for entry in waiting]

    def goes_on(self, retry: Retry) -> None:
        """The message is tried again there."""
        entry = self._entries.get(retry.offset)
        if entry is not None:
            entry.retry = retry

    def retry(self, offset: Offset) -> Retry | None:
        entry = self._entries.get(offset)
        return None if entry is None else entry.retry

    def forget(self, offset: Offset) -> None:
        """It is over, for whoever has it still."""
        self._entries.pop(offset, None)
