"""What brokers tell each other of leases is read as it was written."""

from __future__ import annotations

from itertools import count

import pytest

from broker.documents import Put
from broker.documents.queues import ReportDocument
from broker.message import Offset, ServedUs
from broker.registry.groups.loans import Loaned, Reports, Said, Word, encode, loaned, words

LOANS = [
    Loaned(1, 2, Offset(3), 1, gaps=[]),
    Loaned(1, 3, Offset(4), 2, ServedUs(5), [[1, 3]]),
]
WORDS = [Word(Said.DONE, 1, [2, 3]), Word(Said.REFUSED, 1, [4], 'bad "é"'), Word(Said.LEFT, 1, [])]


def test_both_are_read_as_they_were_written() -> None:
    assert loaned(encode(LOANS)) == LOANS
    assert words(encode(WORDS)) == WORDS


def reports() -> Reports:
    return Reports("$share/g/t", "b1", count(7))


def stored(reports: Reports) -> list[Word]:
    [operation] = reports.take_changes()
    assert isinstance(operation, Put)
    assert isinstance(operation.document, ReportDocument)
    return words(operation.document.report)


def test_a_commit_has_one_report_of_all_that_was_said() -> None:
    said = reports()
    for packet_id in (2, 3):
        said.add(Word(Said.DONE, 1, [packet_id]))
    said.add(Word(Said.DONE, 2, [1]))
    said.add(Word(Said.GONE, 1, []))
    assert stored(said) == [
        Word(Said.DONE, 1, [2, 3]),
        Word(Said.DONE, 2, [1]),
        Word(Said.GONE, 1, []),
    ]
    said.committed()
    assert said.take_changes() == []


@pytest.mark.parametrize("later", [[], [Word(Said.GONE, 1, [])]])
def test_what_was_not_stored_is_said_again_before_what_came_later(later: list[Word]) -> None:
    said = reports()
    said.add(WORDS[0])
    assert stored(said) == WORDS[:1]
    for word in later:
        said.add(word)
    assert said.not_stored == [*WORDS[:1], *later]
    said.not_committed()
    assert stored(said) == [*WORDS[:1], *later]
