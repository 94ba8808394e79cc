"""Remote: a worker at another broker, as a member of its group here. What it is leased goes there
through the log (`lending`), as `Loans`."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping

from broker.documents import Delete, Operation, Put
from broker.documents.queues import LoanDocument, MemberDocument
from broker.errors import StoreError
from broker.message import Grant, Lease, Message, Offset, PacketIdentifier
from broker.registry.faces import Member
from broker.registry.groups.loans import Loaned, encode
from broker.session.exchange import InFlight, Stage
from broker.session.in_flight import PACKET_IDENTIFIER_MAX
from broker.session.session import Session

CUT_OFF = 0
"""The number of a LoanDocument that tells who is cut off: all others are higher."""

logger = logging.getLogger(__name__)


class Remote(Member):
    """`lend` is called when there is something for it, `cut_off` when it cannot be served."""

    limits_packets = True
    grant = Grant(1)
    """Its broker knows how it gets the messages. Here each is in flight until that says more."""

    def __init__(
        self,
        document: MemberDocument,
        lend: Callable[[Remote], None],
        cut_off: Callable[[Remote], None],
    ) -> None:
        self.group, self.broker, self.number = document.client_id, document.broker, document.number
        self._lend = lend
        self._cut_off = cut_off
        self.gone = False
        self.stalled = False
        self.unfit: set[Offset] = set()
        """What its broker said that it cannot have."""
        self.loans: dict[int, int] = {}
        """By Packet Identifier: the numbers of the LoanDocuments that have its leases."""
        window, name = document.window, document.worker
        self.session = Session(name, created_at_us=0, start=Offset(0), inflight_max=window)
        self.session.in_flight.keep_qos0()
        self.session.attach(window)

    def resume(self, leases: Mapping[int, Lease], last_packet_id: int) -> None:
        """It has these since before the group came here."""
        sent, window = Stage.SENT_QOS1, self.session.in_flight
        window.restore(
            last_packet_id % PACKET_IDENTIFIER_MAX + 1,
            [InFlight(e.offset, PacketIdentifier(p), sent, aside=True) for p, e in leases.items()],
        )
        window.leases.add(leases.items(), leases)

    def part(self, packet_ids: Collection[int]) -> list[Lease]:
        """It does not have these any more: they have not ended well."""
        leases = self.session.in_flight.leases.refuse(packet_ids)
        self.session.in_flight.puback(packet_ids)
        return leases

    @property
    def takes_more(self) -> bool:
        return not self.stalled

    def fits(self, message: Message, grant: Grant) -> bool:
        return message.offset not in self.unfit

    def wake(self) -> None:
        self._lend(self)

    def broken(self, error: StoreError) -> None:
        self._cut_off(self)

    def failed(self, error: Exception) -> None:
        logger.critical("worker %r of %s", self.session.client_id, self.group, exc_info=error)
        self._cut_off(self)


class Loans:
    """Leases of one group that are on their way into the log: a StateSource."""

    def __init__(
        self, group: str, number: Callable[[], int], left: Counter[tuple[str, str, int]]
    ) -> None:
        """`number`: of a new LoanDocument; `left`: see `Lending`."""
        self.client_id = group
        self._number = number
        self._left = left
        self._leases: list[tuple[Remote, Loaned]] = []
        self._taken: list[tuple[Remote, Loaned]] = []

    def add(self, remote: Remote, leases: Iterable[Loaned]) -> None:
        self._leases += [(remote, lease) for lease in leases]

    def take_changes(self) -> list[Operation]:
        self._taken, self._leases = self._leases, []
        by_broker: dict[str, tuple[int, list[Loaned]]] = {}
        cut_off: dict[str, list[Loaned]] = {}
        for remote, lease in self._taken:
            if not lease.packet_id:
                cut_off.setdefault(remote.broker, []).append(lease)
                continue
            if remote.gone:
                continue
            if remote.broker not in by_broker:
                by_broker[remote.broker] = self._number(), []
            number, leases = by_broker[remote.broker]
            leases.append(lease)
            remote.loans[lease.packet_id] = number
            self._left[self.client_id, remote.broker, number] += 1
        operations: list[Operation] = []
        for broker, told in cut_off.items():  # It is heard, and no lease ends it.
            operations.append(Put(LoanDocument(self.client_id, broker, CUT_OFF, encode(told))))
            operations.append(Delete(LoanDocument, (self.client_id, broker, CUT_OFF)))
        for broker, (number, leases) in by_broker.items():
            operations.append(Put(LoanDocument(self.client_id, broker, number, encode(leases))))
        return operations

    def stored(self, error: StoreError | None) -> None:
        """Nobody waits here. If it is not stored, the group is another broker's."""

    def committed(self) -> None:
        self._taken = []

    def not_committed(self) -> None:
        for remote, lease in self._taken:
            number = remote.loans.pop(lease.packet_id, 0)
            self._left.pop((self.client_id, remote.broker, number), None)
        self._leases, self._taken = [*self._taken, *self._leases], []
