"""What a PUBLISH may ask for beside being delivered now: to come later, to be stored once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from broker.clients.asking import Asking
from broker.clients.publishing import NO_ROOM
from broker.clock import US
from broker.config import Config
from broker.documents import Place
from broker.message import Offset
from broker.settings.dedup import DedupRule
from tests.support.clients import Dialogue
from tests.support.lines import Lines
from tests.support.messages import message
from tests.support.two_brokers import both_settled, two_brokers
from tests.support.world import Disk, World, running

CONFIG = Config(
    receive_max=65_535,
    packet_bytes_max=268_435_460,
    topic_alias_max=0,
    delayed_messages_max=3,
    dedup_keys_max=3,
    dedup=(
        DedupRule(filter="orders/slow", window="1h"),
        DedupRule(filter="orders/#", window="1m"),
        DedupRule(filter="orders/slow", window="5s"),
    ),
)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with running(Disk(), CONFIG) as world:
        yield world


@pytest.fixture
async def dialogue(world: World) -> Dialogue:
    dialogue = Dialogue(world, CONFIG)
    await dialogue.connect(expiry_s=100)
    return dialogue


async def stored(world: World) -> list[tuple[str, bytes]]:
    await world.settled()
    read = await world.disk.read(Offset(1), world.disk.high_watermark)
    return [(message.topic, message.payload) for message in read.messages]


def moment(world: World, seconds: int) -> str:
    return str(world.clock.wall_us() // US + seconds)


# Later


@pytest.mark.parametrize(
    ("publish", "answer"),
    [
        ("30 ( 000C '$delayed/5/t' 00 'x' )", ""),
        ("32 ( 000C '$delayed/5/t' 0001 00 'x' )", "40 02 0001"),
        ("34 ( 000C '$delayed/5/t' 0001 00 'x' )", "50 02 0001"),
    ],
)
async def test_a_delayed_message_is_acknowledged_now_and_comes_later(
    world: World, dialogue: Dialogue, publish: str, answer: str
) -> None:
    dialogue.client(publish)
    await dialogue.broker(answer)
    assert await stored(world) == []
    world.clock.advance(5)
    assert await stored(world) == [("t", b"x")]


async def test_it_is_not_acknowledged_before_it_is_stored(world: World, dialogue: Dialogue) -> None:
    """P1"""
    world.disk.may_commit.clear()
    dialogue.client("32 ( 000C '$delayed/5/t' 0001 00 'x' )")
    for _ in range(20):
        await asyncio.sleep(0)
    dialogue.written("")
    world.disk.may_commit.set()
    await dialogue.broker("40 02 0001")


async def test_a_delay_of_nothing_is_none(world: World, dialogue: Dialogue) -> None:
    dialogue.client("32 ( 000C '$delayed/0/t' 0001 00 'x' )")
    await dialogue.broker("40 02 0001")
    assert await stored(world) == [("t", b"x")]


async def test_a_moment_may_be_named(world: World, dialogue: Dialogue) -> None:
    dialogue.client(f"32 ( 0001 't' 0001 19 26 000A 'deliver-at' 000A '{moment(world, 60)}' 'x' )")
    await dialogue.broker("40 02 0001")
    assert await stored(world) == []
    world.clock.advance(60)
    assert await stored(world) == [("t", b"x")]


@pytest.mark.parametrize("text", ["teatime...", "1000000000", "-90s......"])
async def test_a_moment_that_is_over_or_none_delays_nothing(
    world: World, dialogue: Dialogue, text: str
) -> None:
    dialogue.client(f"32 ( 0001 't' 0001 19 26 000A 'deliver-at' 000A '{text}' 'x' )")
    await dialogue.broker("40 02 0001")
    assert await stored(world) == [("t", b"x")]


@pytest.mark.parametrize(
    "topic",
    ["$delayed/5", "$delayed/x/t", "$delayed/5/", "$delayed/-1/t", "$delayed/5/$SYS/broker"],
)
async def test_what_cannot_be_delayed_is_refused(
    world: World, dialogue: Dialogue, topic: str
) -> None:
    dialogue.client(f"32 ( 00{len(topic):02X} '{topic}' 0001 00 'x' )")
    await dialogue.broker("40 .. 0001 90 *")
    assert world.counters.dropped.total() == 1
    world.clock.advance(10)
    assert await stored(world) == []


async def test_no_more_than_the_limit_waits(world: World, dialogue: Dialogue) -> None:
    for n in range(3):
        dialogue.client(f"32 ( 000C '$delayed/5/t' 000{n + 1} 00 'x' )")
    await dialogue.broker("40 02 0001 40 02 0002 40 02 0003")
    dialogue.client(
        "32 ( 000C '$delayed/5/t' 0001 00 'x' )  34 ( 000C '$delayed/5/t' 0002 00 'x' )"
    )
    await dialogue.broker("40 .. 0001 97 *")
    assert world.counters.dropped[NO_ROOM] == 2
    world.clock.advance(5)
    await world.settled()
    dialogue.client("34 ( 000C '$delayed/5/t' 0002 00 'x' )")
    await dialogue.broker("50 02 0002")


async def test_it_is_refused_while_the_disk_is_full(world: World, dialogue: Dialogue) -> None:
    world.disk.full = True
    dialogue.client("32 ( 000C '$delayed/5/t' 0001 00 'x' )")
    for _ in range(20):
        await asyncio.sleep(0)
    dialogue.written("40 03 0001 97")
    assert len(world.asking.delayed) == 0


async def test_what_lies_beside_it_keeps_its_order(world: World, dialogue: Dialogue) -> None:
    dialogue.client(
        "32 06 0001 'a' 0001 00  32 ( 000C '$delayed/5/t' 0002 00 'x' )  32 06 0001 'b' 0003 00"
        "  30 04 0001 'c' 00"
    )
    await dialogue.broker("40 .. 0001 * 40 02 0002 40 .. 0003 *")
    assert [topic for topic, _ in await stored(world)] == ["a", "b", "c"]


async def test_lines_may_be_delayed(world: World) -> None:
    lines = Lines(world, CONFIG)
    lines.says("PUBLISH a one p", "PUBLISH $delayed/5/t later p", "PUBLISH b two p")
    assert await lines.gets() == ["OK", "OK", "OK"]
    lines.says("PUBLISH $delayed/soon/t later p")
    (error,) = await lines.gets()
    assert error.startswith("ERROR Topic Name delays nothing")
    for _ in range(3):
        lines.says("PUBLISH $delayed/5/t more p")
    assert [line.partition(" ")[0] for line in await lines.gets()] == ["OK", "OK", "ERROR"]
    world.clock.advance(5)
    assert [payload for _, payload in await stored(world)] == [
        *(b"one", b"two", b"later", b"more", b"more")
    ]


# Once


def keyed(topic: str, packet_id: int, key: str, *, qos: int = 1, receipt: bool = False) -> str:
    """A PUBLISH with a `dedup-key` of one character."""
    asks = "26 0007 'receipt' 0004 'true'" if receipt else ""
    length = 15 + 16 * receipt
    name = f"00{len(topic):02X} '{topic}'"
    identifier = f"{packet_id:04X}" if qos else ""
    properties = f"{length:02X} 26 0009 'dedup-key' 0001 '{key}' {asks}"
    return f"3{2 * qos} ( {name} {identifier} {properties} 'x' )"


async def test_a_message_that_comes_again_is_stored_once(world: World, dialogue: Dialogue) -> None:
    dialogue.client("32 06 0001 'a' 0009 00" + keyed("orders/1", 1, "k", receipt=True))
    await dialogue.broker(
        "40 .. 0009 *  40 .. 0001 .. .. 26 0006 'offset' 0001 '2' 26 0005 'dedup' 0005 'first'"
    )
    dialogue.client(keyed("orders/1", 2, "k", receipt=True) + keyed("orders/1", 3, "k", qos=2))
    dialogue.client(keyed("orders/1", 0, "k", qos=0))
    await dialogue.broker(
        "40 .. 0002 .. .. 26 0006 'offset' 0001 '2' 26 0005 'dedup' 0006 'repeat'  50 02 0003"
    )
    assert await stored(world) == [("a", b""), ("orders/1", b"x")]
    assert world.counters.repeats == 3


async def test_of_two_brokers_that_take_a_key_at_once_one_stores_and_both_say_where() -> None:
    """What comes before and after it is acknowledged in its order."""
    async with two_brokers(CONFIG) as (a, b):
        dialogue = Dialogue(b, CONFIG)
        await dialogue.connect("p", expiry_s=100)
        place, first = Place(), message("first", "orders/1", publisher="p")
        _, remember = a.asking.dedup.add("p", "orders/1", "k", 60, place)
        a.log.append([first], operations=[remember], place=place)
        dialogue.client(
            "32 06 0001 'a' 0009 00"
            + keyed("orders/1", 1, "k", receipt=True)
            + keyed("orders/1", 2, "k")
            + "32 06 0001 'b' 000A 00"
        )
        await both_settled(a, b)
        await dialogue.broker(
            "40 .. 0009 *  40 .. 0001 .. .. 26 0006 'offset' 0001 '1' 26 0005 'dedup' 0006 'repeat'"
            "  40 .. 0002 *  40 .. 000A *"
        )
        assert await stored(a) == [("orders/1", b"first"), ("a", b""), ("b", b"")]
        assert b.counters.repeats == 2


async def test_other_keys_topics_and_publishers_are_others(
    world: World, dialogue: Dialogue
) -> None:
    other = Dialogue(world, CONFIG)
    await other.connect("b")
    dialogue.client(keyed("orders/1", 1, "k") + keyed("orders/2", 2, "k"))
    other.client(keyed("orders/1", 1, "k"))
    await world.settled()
    assert len(await stored(world)) == 3
    assert world.counters.repeats == 0


async def test_topics_without_a_rule_keep_no_keys(world: World, dialogue: Dialogue) -> None:
    dialogue.client(keyed("other", 1, "k") + keyed("other", 2, "k"))
    assert len(await stored(world)) == 2
    assert len(world.asking.dedup) == 0


async def test_the_first_rule_that_matches_counts(world: World, dialogue: Dialogue) -> None:
    dialogue.client(keyed("orders/slow", 1, "k") + keyed("orders/1", 2, "k"))
    await world.settled()
    world.clock.advance(61)
    await world.settled()
    dialogue.client(keyed("orders/slow", 1, "k") + keyed("orders/1", 2, "k"))
    assert [topic for topic, _ in await stored(world)] == ["orders/slow", "orders/1", "orders/1"]


async def test_a_repeat_waits_for_the_first(world: World, dialogue: Dialogue) -> None:
    """P1: it is acknowledged because the first is stored."""
    world.disk.may_commit.clear()
    dialogue.client(keyed("orders/1", 1, "k"))
    for _ in range(20):
        await asyncio.sleep(0)
    dialogue.client(keyed("orders/1", 2, "k"))
    for _ in range(20):
        await asyncio.sleep(0)
    dialogue.written("")
    world.disk.may_commit.set()
    await dialogue.broker("40 .. 0001 * 40 .. 0002 *")
    assert len(await stored(world)) == 1


async def test_a_repeat_of_what_is_refused_is_refused(world: World, dialogue: Dialogue) -> None:
    """Else it would be acknowledged, and stored nowhere."""
    world.disk.full = True
    dialogue.client(keyed("orders/1", 1, "k") + keyed("orders/1", 2, "k"))
    for _ in range(20):
        await asyncio.sleep(0)
    dialogue.written("40 03 0001 97 40 03 0002 97")
    world.disk.full = False
    world.clock.advance(2)
    dialogue.client(keyed("orders/1", 3, "k"))
    await world.settled()
    assert len(await stored(world)) == 1


async def test_no_more_keys_than_the_limit(world: World, dialogue: Dialogue) -> None:
    dialogue.client("".join(keyed("orders/1", n + 1, str(n)) for n in range(3)))
    await world.settled()
    dialogue.transport.written = b""
    dialogue.client(keyed("orders/1", 9, "9"))
    await dialogue.broker("40 .. 0009 97 *")


async def test_a_delayed_message_has_a_key_too(world: World, dialogue: Dialogue) -> None:
    for packet_id in 1, 2:
        dialogue.client(keyed("$delayed/5/orders/1", packet_id, "k", receipt=True))
    await dialogue.broker(
        "40 .. 0001 .. .. 26 0005 'dedup' 0005 'first'"
        "40 .. 0002 .. .. 26 0005 'dedup' 0006 'repeat'"
    )
    world.clock.advance(5)
    assert await stored(world) == [("orders/1", b"x")]


async def test_a_key_is_free_if_there_is_no_room_for_the_delay(
    world: World, dialogue: Dialogue
) -> None:
    for n in range(3):
        dialogue.client(f"32 ( 000C '$delayed/5/t' 000{n + 1} 00 'x' )")
    dialogue.client(keyed("$delayed/5/orders/1", 9, "k"))
    await dialogue.broker("40 02 0001 40 02 0002 40 02 0003 40 .. 0009 97 *")
    world.clock.advance(5)
    await world.settled()
    dialogue.client(keyed("$delayed/5/orders/1", 9, "k"))
    await dialogue.broker("40 02 0009")


def test_most_messages_ask_for_nothing(world: World) -> None:
    asking: Asking = world.asking
    assert not asking.asks("t", b"")
    assert not asking.asks("$delayed", b"")
    assert not asking.asks("t", b"\x26\0\x01a\0\x01b")
    assert asking.asks("$delayed/5/t", b"")
