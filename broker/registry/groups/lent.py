"""Lent: what workers at other brokers had of a group when it came to this one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from broker.documents import Delete, Operation
from broker.documents.queues import LoanDocument, MemberDocument, ReportDocument, RetryDocument
from broker.message import Lease, Monotonic, Offset, ServedUs
from broker.registry.groups.loans import NO_ROW, Loaned, Said, Word, loaned, words
from broker.registry.groups.retries import Retry
from broker.session.exchange import InFlight, Stage
from broker.session.session import Session
from broker.store import Store

LOST = "its worker was lost"
BEFORE = Monotonic(0.0)

Worker = tuple[str, int]
"""Its broker and its number."""


class Refused(NamedTuple):
    """A lease that did not end well. `final`: by a refusal."""

    loan: Loaned
    why: str
    worker: str
    final: bool


class Lent:
    """Of one group. First it is `read`, then what was reported is sorted out (`say`), and then what
    is left is found in the group's session (`find`)."""

    def __init__(self, group: str) -> None:
        self.group = group
        self.members: dict[Worker, MemberDocument] = {}
        self.last_number = 0
        """Of its LoanDocuments."""
        self.done: list[Lease] = []
        self.refused: list[tuple[Lease, Refused]] = []
        self.held: dict[Worker, dict[int, Lease]] = {}
        """By Packet Identifier, as all of these."""
        self.rows: list[tuple[Retry, Lease]] = []
        """Of all these leases, those that are retries."""
        self.documents: dict[Worker, dict[int, int]] = {}
        """The LoanDocuments that have what is held."""
        self.last_packet_ids: Counter[Worker] = Counter()
        self.operations: list[Operation] = []
        """What is not needed any more."""
        self._loans: dict[tuple[Worker, int], tuple[Loaned, int]] = {}
        """Those that have not ended, and in which document."""
        self._done: list[Loaned] = []
        self._refused: list[Refused] = []
        self._left_out: set[tuple[str, int]] = set()
        """LoanDocuments of which nothing is held."""
        self._rows: dict[tuple[ServedUs, int], Retry] = {}

    async def read(self, store: Store) -> None:
        """Raises StoreError. Whoever joins, or reports, later, is heard."""
        name = (self.group,)
        for member in await store.scan(MemberDocument, name):
            self.members[member.broker, member.number] = member
        for document in await store.scan(LoanDocument, name):
            self.last_number = max(self.last_number, document.number)
            self._left_out.add((document.broker, document.number))
            for loan in loaned(document.leases):
                if loan.packet_id:
                    worker = document.broker, loan.number
                    self._loans[worker, loan.packet_id] = loan, document.number
                    last = max(self.last_packet_ids[worker], loan.packet_id)
                    self.last_packet_ids[worker] = last
        for loan, _ in self._loans.values():
            if loan.due_at_us != NO_ROW:
                after = (self.group, loan.due_at_us, loan.offset - 1)
                for row in (await store.scan_part(RetryDocument, name, after))[:1]:
                    if (row.due_at_us, row.offset) == (loan.due_at_us, loan.offset):
                        retry = Retry(row.due_at_us, row.offset, row.attempts, row.holder)
                        self._rows[row.due_at_us, row.offset] = retry
        for report in await store.scan(ReportDocument, name):
            self.say(report.broker, words(report.report))
            key = self.group, report.broker, report.number
            self.operations.append(Delete(ReportDocument, key))

    def say(self, broker: str, said: Iterable[Word]) -> None:
        """What was reported, in its order. It counts whether that broker lives or not."""
        for word in said:
            member = self.members.get((broker, word.number))
            worker = "" if member is None else member.worker
            for packet_id in word.packet_ids:
                key = (broker, word.number), packet_id
                loan, _ = self._loans.pop(key, (None, 0))
                if loan is not None and word.said is Said.DONE:
                    self._done.append(loan)
                elif loan is not None and word.said is Said.REFUSED:
                    self._refused.append(Refused(loan, word.why, worker, final=True))
                elif loan is not None and word.said is Said.GONE:
                    self._refused.append(Refused(loan, LOST, worker, final=False))
            if word.said in (Said.GONE, Said.HELD):
                self.members.pop((broker, word.number), None)

    def say_here(self, broker: str, said: Sequence[Word]) -> None:
        """What workers at this broker said meanwhile, which may be in the log by now."""
        self.say(broker, said)
        if said:
            self.operations.append(Delete(ReportDocument, (self.group, broker)))

    def find(
        self, session: Session, is_there: Callable[[MemberDocument], bool], now: Monotonic
    ) -> list[InFlight]:
        """Find these leases in what the group's session has in flight, and in what it is to try
        again. Returns what is in flight and nobody has."""
        for key, member in [*self.members.items()]:
            if not is_there(member):
                del self.members[key]
                self.operations.append(Delete(MemberDocument, (self.group, *key)))
        in_flight = session.in_flight.unfinished()
        places = {e.offset: int(e.packet_id) for e in in_flight if e.stage is Stage.SENT_QOS1}
        had: set[int] = set()
        for loan in self._done:
            if (lease := self._lease(loan, places)) is not None:
                self.done.append(lease)
                had.add(lease.packet_id)
        for refused in self._refused:
            if (lease := self._lease(refused.loan, places)) is not None:
                self.refused.append((lease, refused))
                had.add(lease.packet_id)
        for (worker, packet_id), (loan, document) in self._loans.items():
            if worker in self.members and (lease := self._lease(loan, places, now)) is not None:
                self.held.setdefault(worker, {})[packet_id] = lease
                self.documents.setdefault(worker, {})[packet_id] = document
                self._left_out.discard((worker[0], document))
                had.add(lease.packet_id)
        for broker, document in self._left_out:
            self.operations.append(Delete(LoanDocument, (self.group, broker, document)))
        return [entry for entry in in_flight if entry.packet_id not in had]

    def _lease(
        self, loan: Loaned, places: dict[Offset, int], now: Monotonic = BEFORE
    ) -> Lease | None:
        """None: it had ended before."""
        if loan.due_at_us == NO_ROW:
            packet_id = places.pop(loan.offset, None)
            if packet_id is None:
                return None
            return Lease(self.group, packet_id, loan.offset, loan.attempt, now)
        retry = self._rows.pop((loan.due_at_us, loan.offset), None)
        if retry is None:
            return None
        lease = Lease(self.group, 0, loan.offset, loan.attempt, now)
        self.rows.append((retry, lease))
        return lease
