from __future__ import annotations

import pytest

from broker.documents import CursorDocument, DedupDocument, Delete, Operation, Put
from broker.errors import StoreConflict
from broker.message import Offset, ServedUs
from broker.store.shared.keys import Keys
from broker.store.shared.memory_log import MemoryLog
from tests.support.messages import message
from tests.support.shared import brokers, content, opened, settled


def key(digest: str) -> DedupDocument:
    return DedupDocument(digest, Offset(1), ServedUs(9))


TAKE, FREE = Put(key("0a")), Delete(DedupDocument, ("0a",))


@pytest.mark.parametrize(
    ("operations", "repeated"),
    [
        ([TAKE], {"0a"}),
        ([FREE, TAKE], set()),
        ([TAKE, FREE], {"0a"}),
        ([Put(key("0b")), Put(CursorDocument("0a", Offset(1), Offset(1), 1, b""))], set()),
    ],
)
def test_a_key_that_is_taken_is_not_taken_again(
    operations: list[Operation], repeated: set[str]
) -> None:
    assert Keys([key("0a")]).repeated(operations) == repeated


def test_what_counts_changes_which_are_taken() -> None:
    keys = Keys([])
    keys.changed([TAKE])
    assert keys.repeated([TAKE]) == {"0a"}
    keys.changed([FREE])
    assert keys.repeated([TAKE]) == set()


async def test_all_come_to_the_same_also_one_that_starts_later() -> None:
    log = MemoryLog()
    first, second = stores = brokers(log, 2)
    async with opened(*stores):
        await first.append([message("1")], [TAKE])
        with pytest.raises(StoreConflict) as refused:
            await second.append([message("2")], [TAKE])
        assert refused.value.keys == {"0a"}
        assert not refused.value.of
        stored = await second.get(DedupDocument, ("0a",))
        assert stored is not None, "whoever hears of it can look"
        await second.append([message("3")], [FREE, TAKE])
        await first.close()
        await first.open()
        with pytest.raises(StoreConflict):
            await first.append([message("4")], [TAKE])
        await settled(log, stores)
        assert content(first.copy) == content(second.copy)  # type: ignore[arg-type]
        assert first.high_watermark == 2
