"""What `test_contract.py` cannot see of a store in memory."""

from __future__ import annotations

import pytest

from broker.documents import Place, Put, SessionDocument
from broker.errors import StoreConflict, StoreUnavailable
from broker.message import Offset
from broker.store.memory_content import MemoryContent
from tests.support.messages import numbered


def test_it_leaves_out_offsets_before_each_append_that_has_messages() -> None:
    content, place = MemoryContent(gaps=3), Place(2)
    content.append(numbered(2), [], [place])
    content.append([], [], [])
    content.append(numbered(1), [], [])
    assert [message.offset for message in content.log] == [4, 5, 9]
    assert place.offset == 5


def test_nothing_is_stored_of_what_conflicts() -> None:
    content = MemoryContent(gaps=0)
    with pytest.raises(StoreConflict):
        content.append(numbered(1), [Put(SessionDocument("a", 60, 1, None), revision=7)], [])
    assert (content.log, content.documents, content.high_watermark) == ([], {}, 0)


def test_messages_are_found_by_their_offsets_whatever_was_taken_out() -> None:
    content = MemoryContent(gaps=0)
    content.append(numbered(9), [], [])
    assert content.take_out(lambda message: message.offset % 3 == 0) == 3
    assert [m.offset for m in content.between(Offset(3), Offset(7))] == [4, 5, 7]


def test_what_is_not_open_says_so() -> None:
    content = MemoryContent(gaps=0)
    with pytest.raises(StoreUnavailable):
        content.require_open()
