"""A worker at another broker, as a member of its group here."""

from __future__ import annotations

from collections import Counter
from itertools import count

from broker.documents import Put
from broker.documents.queues import LoanDocument, MemberDocument
from broker.errors import StoreUnavailable
from broker.message import Lease, Offset
from broker.registry.groups.loans import Loaned, loaned
from broker.registry.groups.remote import Loans, Remote
from tests.support.messages import message

GROUP = "$share/g/t"


def remote(broker: str = "b1", number: int = 1) -> Remote:
    def nothing(remote: Remote) -> None:
        raise AssertionError("nothing is to be done")

    return Remote(MemberDocument(GROUP, broker, number, "w", 3), nothing, nothing)


def test_it_has_room_for_as_much_as_its_window() -> None:
    worker = remote()
    assert worker.session.in_flight.room() == 3
    worker.resume({5: Lease(GROUP, 1, Offset(9)), 7: Lease(GROUP, 0, Offset(4))}, 7)
    assert worker.session.in_flight.room() == 1
    assert worker.session.in_flight.next_packet_id == 8
    assert worker.part([7, 8]) == [Lease(GROUP, 0, Offset(4))]
    assert worker.session.in_flight.room() == 2
    worker.session.in_flight.puback([5])
    assert worker.session.in_flight.leases.take_settled() == [Lease(GROUP, 1, Offset(9))]


def test_it_cannot_have_what_its_broker_said_it_cannot() -> None:
    worker, job = remote(), message("1")
    job.offset = Offset(3)
    assert worker.fits(job, worker.grant)
    worker.unfit.add(Offset(3))
    assert not worker.fits(job, worker.grant)


def test_a_worker_that_cannot_be_served_is_cut_off() -> None:
    cut_off: list[Remote] = []
    document = MemberDocument(GROUP, "b1", 1, "w", 3)
    worker = Remote(document, lambda remote: None, cut_off.append)
    worker.broken(StoreUnavailable("the disk"))
    worker.failed(ValueError("a mistake"))
    assert cut_off == [worker, worker]


def test_a_commit_has_one_loan_for_each_broker_and_none_for_who_is_gone() -> None:
    left: Counter[tuple[str, str, int]] = Counter()
    numbers = count(1)
    loans = Loans(GROUP, lambda: next(numbers), left)
    one, other, gone = remote(), remote("b2"), remote(number=2)
    loans.add(one, [Loaned(1, 1, Offset(5), 1), Loaned(1, 2, Offset(6), 1)])
    loans.add(gone, [Loaned(2, 1, Offset(7), 1)])
    loans.add(other, [Loaned(1, 1, Offset(8), 1)])
    gone.gone = True
    operations = loans.take_changes()
    documents = [operation.document for operation in operations if isinstance(operation, Put)]
    found = {
        d.broker: (d.number, [loan.offset for loan in loaned(d.leases)])
        for d in documents
        if isinstance(d, LoanDocument)
    }
    assert found == {"b1": (1, [5, 6]), "b2": (2, [8])}
    assert (one.loans, other.loans, gone.loans) == ({1: 1, 2: 1}, {1: 2}, {})
    assert left == {(GROUP, "b1", 1): 2, (GROUP, "b2", 2): 1}


def test_what_was_not_stored_is_lent_with_the_next_commit() -> None:
    left: Counter[tuple[str, str, int]] = Counter()
    numbers = count(1)
    loans, worker = Loans(GROUP, lambda: next(numbers), left), remote()
    loans.add(worker, [Loaned(1, 1, Offset(5), 1)])
    loans.take_changes()
    loans.not_committed()
    assert (worker.loans, left) == ({}, {})
    loans.add(worker, [Loaned(1, 2, Offset(6), 1)])
    assert len(loans.take_changes()) == 1
    assert worker.loans == {1: 2, 2: 2}
    loans.committed()
    assert loans.take_changes() == []
