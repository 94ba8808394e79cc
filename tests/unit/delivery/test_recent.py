from __future__ import annotations

import pytest

from broker.delivery.recent import Recent
from broker.message import Offset
from tests.support.messages import message


def test_recent_batches_are_read_above_an_offset_and_forgotten_oldest_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("broker.delivery.recent.RECENT_MESSAGES_MAX", 4)
    recent = Recent(Offset(0))
    for first in (1, 3, 5):
        recent.add([message(offset=first), message(offset=first + 1)], 2 * HEAVY)
    assert recent.after == 2
    messages, through = recent.read(Offset(3))
    assert ([m.offset for m in messages], through) == ([4, 5, 6], 6)
    assert recent.read(Offset(6)) == ([], 6)


HEAVY = message("1", properties=bytes(99)).cost


def test_recent_batches_are_bounded_in_bytes_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    """P7: what is kept, and what a reader takes of it at a time."""
    monkeypatch.setattr("broker.delivery.recent.RECENT_BYTES_MAX", 4 * HEAVY)
    monkeypatch.setattr("broker.delivery.readers.READ_BYTES_MAX", 2 * HEAVY)
    recent = Recent(Offset(0))
    for offset in range(1, 7):
        recent.add([message("1", offset=offset, properties=bytes(99))], HEAVY)
    assert recent.after == 2
    messages, through = recent.read(Offset(2))
    assert ([m.offset for m in messages], through) == ([3, 4], 4)
