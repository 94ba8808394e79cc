"""Leases: which messages in flight to one member are leased from groups, and which leases ended."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Iterator

from broker.message import Lease, Outgoing


class Leases:
    """By the Packet Identifier under which the member has the message, in the order in which they
    were sent: a lease lasts while its message is in flight at QoS 1."""

    __slots__ = ("held", "lent", "of_qos2", "settled")

    def __init__(self) -> None:
        self.lent = False
        """Of the session of a group: whether members at other brokers may have what is in flight.
        Then the log lists it, for whoever has the group next."""
        self.held: dict[int, Lease] = {}
        self.of_qos2: dict[int, Lease] = {}
        """Leases that ended when their message was sent at QoS 2, until the member has said whether
        it takes it, or has left."""
        self.settled: list[Lease] = []
        """Leases that ended; the groups fetch them with `take_settled`."""

    def lend(self) -> None:
        """From here on members at other brokers may have some."""
        self.lent = True

    def add(self, leased: Iterable[tuple[int, Lease]], in_flight: Collection[int]) -> None:
        """These were taken, with their Packet Identifiers; `in_flight` are those at QoS 1. Any
        other lease has ended. [MQTT-4.8.2-4, MQTT-4.8.2-5]"""
        for packet_id, lease in leased:
            if packet_id in in_flight:
                self.held[packet_id] = lease
            else:
                self.settled.append(lease)
                if packet_id:
                    self.of_qos2[packet_id] = lease

    def has(self, group: str) -> bool:
        """Whether anything in flight is leased from this group."""
        return any(lease.group == group for lease in self.held.values())

    def end(self, packet_ids: Iterable[int]) -> None:
        """These were acknowledged."""
        for packet_id in packet_ids:
            if lease := self.held.pop(packet_id, None):
                self.settled.append(lease)

    def take_settled(self) -> list[Lease]:
        """The leases that ended since the last call."""
        settled, self.settled = self.settled, []
        return settled

    def refuse(self, packet_ids: Iterable[int]) -> list[Lease]:
        """The leases of these, which the client refuses: they have not ended well."""
        held = self.held
        return [held.pop(packet_id) for packet_id in packet_ids if packet_id in held]

    def refuse_qos2(self, packet_ids: Iterable[int]) -> list[Lease]:
        """The same of messages at QoS 2, as far as it is known from which group they were."""
        known = self.of_qos2
        return [known.pop(packet_id) for packet_id in packet_ids if packet_id in known]

    def taken_qos2(self, packet_ids: Iterable[int]) -> None:
        """The member takes these, or they are over."""
        for packet_id in packet_ids if self.of_qos2 else ():
            self.of_qos2.pop(packet_id, None)

    def current(self) -> Iterator[tuple[int, Lease]]:
        """All but what was taken back, those leased first in front."""
        for packet_id, lease in self.held.items():
            if lease.attempt:
                yield packet_id, lease

    def oldest(self) -> Lease | None:
        """The one that was leased first, but for what was taken back; None: there is none."""
        return next((lease for lease in self.held.values() if lease.attempt), None)

    def take_back(self, packet_ids: Iterable[int]) -> None:
        """These are another's from now on. The member has the messages still: they keep their
        Packet Identifiers and their places in its Receive Maximum."""
        for packet_id in packet_ids:
            self.held[packet_id] = self.held[packet_id]._replace(packet_id=0, attempt=0)


def without_leases(
    entries: Iterable[Outgoing], group: str | None
) -> tuple[deque[Outgoing], list[Lease]]:
    """What is not leased from the group, None: from any; and the leases of the others."""
    kept: deque[Outgoing] = deque()
    leases: list[Lease] = []
    for entry in entries:
        lease = entry[1].lease
        if lease is not None and group in (None, lease.group):
            leases.append(lease)
        else:
            kept.append(entry)
    return kept, leases


def by_group(leases: Iterable[Lease]) -> dict[str, list[Lease]]:
    """By the name of the group."""
    by_group: dict[str, list[Lease]] = {}
    for lease in leases:
        by_group.setdefault(lease.group, []).append(lease)
    return by_group
