"""What `test_contract.py` cannot see of removing in memory: there is nothing to give back."""

from __future__ import annotations

from broker.message import Offset
from broker.store.memory_content import MemoryContent
from broker.store.memory_removing import MemoryRemoving
from broker.store.removing import SEGMENT, Cut, Order
from tests.support.messages import numbered


async def test_a_look_has_some_segments_and_a_part_of_an_order_is_counted_by_topic() -> None:
    content = MemoryContent(gaps=0)
    content.is_open = True
    content.append(numbered(10 * SEGMENT), [], [])
    removing = MemoryRemoving(content)
    segments = await removing.segments(Offset(1))
    assert [segment.first // SEGMENT for segment in segments] == [*range(8)]
    (topic_id,) = segments[0].topics
    cut = Cut(before=Offset(6), unread_from=Offset(4))
    removed = await removing.remove(Order(Offset(0), Offset(SEGMENT - 1), {topic_id: cut}), 100)
    assert {topic: amount.messages for topic, amount in removed.topics.items()} == {topic_id: 3}
    assert content.log[0].offset == 4
    assert await removing.free_bytes() == 0
