"""Dead letters: told once, held until dropped, and not for ever."""

from __future__ import annotations

from broker.config import Config
from broker.documents import Put
from broker.documents.queues import DeadLetterDocument, DeadNoticeDocument
from broker.message import AgedUs, Offset, texts_among
from broker.store import PART_MAX
from tests.support.groups import GROUP
from tests.support.messages import message
from tests.support.world import Disk, Subscriber, World, running, subscription

DAY_US = 86_400_000_000


async def bury(world: World, *offsets: int, reason: str = "why") -> None:
    operations = [
        operation
        for offset in offsets
        for operation in world.groups.dead_letters.bury(GROUP, Offset(offset), 3, reason, "w")
    ]
    world.log.append([], world.groups.dead_letters.stored, operations=operations)
    await world.settled()


async def test_a_dead_letter_is_told_on_its_topic_once(world: World) -> None:
    listener = Subscriber(world)
    await listener.open("listener")
    listener.subscribe(subscription("$dead/workers/#", client_id="listener"))
    await world.publish(message("poison", "jobs/a"))
    await bury(world, 1)
    await world.settled()
    [(told, _)] = listener.got
    assert (told.topic, told.payload) == ("$dead/workers/jobs/a", b"poison")
    texts = texts_among(told.properties)
    assert dict(zip(texts[::2], texts[1::2], strict=True)) == {
        "dead-letter-group": GROUP,
        "dead-letter-offset": "1",
        "dead-letter-attempts": "3",
        "dead-letter-reason": "why",
    }
    assert await world.disk.scan(DeadNoticeDocument) == []


async def test_what_was_not_told_before_a_crash_is_told_after_it() -> None:
    disk = Disk()
    await disk.open()
    letter = DeadLetterDocument(GROUP, Offset(1), 3, "why", "w", AgedUs(1))
    notice = DeadNoticeDocument(GROUP, Offset(1))
    await disk.append([message("poison", "jobs/a")], [Put(letter), Put(notice)])
    async with running(disk) as world:
        await world.settled()
        assert disk.high_watermark == 2
        assert await disk.scan(DeadNoticeDocument) == []


async def test_a_dead_letter_of_a_dead_letter_is_told_nowhere(world: World) -> None:
    """Else a group of the dead letters that refuses them would never come to an end."""
    await world.publish(message("poison", "$dead/workers/jobs/a"))
    await bury(world, 1)
    assert world.disk.high_watermark == 1
    assert len(await world.disk.scan(DeadLetterDocument)) == 1


async def test_many_are_told_in_parts(world: World) -> None:
    await world.publish(*[message(str(n), "jobs/a") for n in range(200)])
    await bury(world, *range(1, 201))
    for _ in range(10):
        await world.settled()
    assert world.disk.high_watermark == 400
    assert await world.disk.scan(DeadNoticeDocument) == []


async def test_many_that_others_are_to_tell_of_keep_none_of_ours_untold(world: World) -> None:
    """Of groups that other brokers have, where several share the log."""
    await world.publish(message("poison", "jobs/a"))
    world.groups.dead_letters.is_ours = GROUP.__eq__
    others = [DeadNoticeDocument(f"$share/a{n}/#", Offset(1)) for n in range(PART_MAX + 1)]
    world.log.append([], operations=[Put(notice) for notice in others])
    await bury(world, 1)
    await world.settled()
    left = await world.disk.scan(DeadNoticeDocument)
    assert sorted(notice.group_name for notice in left) == sorted(n.group_name for n in others)
    assert world.disk.high_watermark == 2


async def test_a_reason_is_one_short_line(world: World) -> None:
    await world.publish(message("1", "jobs/a"))
    await bury(world, 1, reason="a\nb" + 1000 * "x")
    [letter] = await world.disk.scan(DeadLetterDocument)
    assert letter.reason == "a b" + 197 * "x"


async def test_those_too_old_are_dropped_and_counted() -> None:
    async with running(Disk(), Config(dead_letter_age_s=30 * 86_400)) as world:
        await world.publish(message("1", "jobs/a"), message("2", "jobs/a"))
        await bury(world, 1)
        old = DeadLetterDocument(GROUP, Offset(2), 3, "why", "w", AgedUs(0))
        old.died_at_us = AgedUs(world.log.time.aged_us() - 31 * DAY_US)
        await world.passing_time(world.log.commit_now([Put(old)]))
        await world.passing_time(world.groups.dead_letters.forget_old())
        assert [d.offset for d in await world.disk.scan(DeadLetterDocument)] == [1]
        assert world.counters.dropped == {"dead letter too old": 1}


async def test_its_message_outlives_the_log_before_it(world: World) -> None:
    await world.publish(message("1", "jobs/a"), message("2", "jobs/a"))
    await bury(world, 1)
    await world.disk.trim(Offset(3))
    assert [m.payload for m in (await world.disk.fetch([Offset(1), Offset(2)])).messages] == [b"1"]
