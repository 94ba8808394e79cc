from __future__ import annotations

import pytest

from broker.clock import US
from broker.documents import SubscriptionDocument
from broker.errors import ReplaySpecInvalid, SharedSubscriptionsNotSupported
from broker.message import Message, Offset, WallUs
from broker.mqtt.packets import Subscribe, SubscriptionRequest
from broker.replay import placing
from broker.session.session import Session
from tests.support.messages import message
from tests.support.world import Disk, subscription

NOW_US = WallUs(100 * US)


def at(time_s: int, topic: str = "t") -> Message:
    sent = message(topic=topic)
    sent.published_at_us = time_s * 1_000_000
    return sent


@pytest.fixture
async def disk() -> Disk:
    """Offsets 1 to 6, published at 10, 20, .. 60 s; those of `t` are 1, 3, 5, 6."""
    disk = Disk()
    await disk.open()
    await disk.append([at(10), at(20, "x"), at(30), at(40, "x"), at(50), at(60)])
    return disk


@pytest.fixture
def session() -> Session:
    return Session("sub1", created_at_us=1, start=Offset(4), inflight_max=10)


def subscribe(topic_filter: str = "t", **words: str) -> Subscribe:
    return Subscribe(1, [SubscriptionRequest(topic_filter, 1)], user_properties=[*words.items()])


async def place(
    disk: Disk, session: Session, topic_filter: str = "t", **words: str
) -> SubscriptionDocument:
    placed = subscription(topic_filter)
    await placing.place(disk, session, placed, words, NOW_US, disk.high_watermark)
    return placed


@pytest.mark.parametrize(
    ("spec", "start"),
    [
        ("earliest", 0),
        ("latest", 6),
        ("resume", 4),
        ("3", 2),
        ("0", 0),
        ("99", 6),
        ("-2", 4),
        ("-99", 0),
        ("@30", 2),
        ("@31", 3),
        ("@1970-01-01T00:00:20Z", 1),
        ("@61", 6),
    ],
)
async def test_a_replay_begins_after_the_offset_before_what_is_asked_for(
    disk: Disk, session: Session, spec: str, start: int
) -> None:
    for placed in (
        await place(disk, session, **{"from": spec}),
        await place(disk, session, f"$replay/{spec}/t"),
    ):
        assert (placed.filter, placed.start_offset, placed.until_offset) == ("t", start, None)
        assert placed.replaying


@pytest.mark.parametrize(
    ("spec", "end"), [("2:4", 4), ("2:99", 6), ("@10:40", 3), ("@10:41", 4), ("@10:99", 6)]
)
async def test_a_replay_with_an_end_ends_at_the_newest_message_at_the_latest(
    disk: Disk, session: Session, spec: str, end: int
) -> None:
    placed = await place(disk, session, f"$replay/{spec}/t")
    assert placed.until_offset == end


async def test_until_ends_what_from_begins(disk: Disk, session: Session) -> None:
    placed = await place(disk, session, **{"from": "2", "until": "5"})
    assert (placed.start_offset, placed.until_offset) == (1, 5)
    placed = await place(disk, session, until="latest")
    assert (placed.start_offset, placed.until_offset) == (6, 6)


async def test_from_counts_only_for_a_new_subscription(disk: Disk, session: Session) -> None:
    """Clients subscribe again at every reconnect."""
    session.subscribe(subscription(start=3))
    placed = await place(disk, session, **{"from": "earliest"})
    assert (placed.start_offset, placed.replaying) == (3, False)
    session.subscribe(subscription(start=2, until=5, replaying=True))
    placed = await place(disk, session, "$replay/earliest/t")
    assert (placed.start_offset, placed.until_offset, placed.replaying) == (2, 5, True)


async def test_unless_it_is_to_count_always(disk: Disk, session: Session) -> None:
    session.subscribe(subscription(start=3))
    placed = await place(disk, session, **{"from": "earliest", "from-mode": "always"})
    assert (placed.start_offset, placed.replaying) == (0, True)


@pytest.mark.parametrize("words", [{"from": "yesterday"}, {"until": "-5"}, {"from": ""}])
async def test_what_cannot_be_understood_is_refused(
    disk: Disk, session: Session, words: dict[str, str]
) -> None:
    with pytest.raises(ReplaySpecInvalid):
        await place(disk, session, **words)


async def test_a_shared_subscription_cannot_be_replayed(disk: Disk, session: Session) -> None:
    with pytest.raises(SharedSubscriptionsNotSupported):
        await place(disk, session, "$replay/earliest/$share/group/t")


def test_a_replay_is_unsubscribed_from_by_the_words_it_was_subscribed_with() -> None:
    assert placing.kept_as("$replay/earliest/a/#") == "a/#"
    assert placing.kept_as("a/#") == "a/#"
    assert placing.kept_as("$replay/earliest") == "$replay/earliest"


def words(packet: Subscribe) -> tuple[dict[str, str], str]:
    return placing.words(packet, NOW_US)


def test_a_subscribe_asks_for_a_replay_by_a_word_or_a_prefix() -> None:
    for packet in (subscribe(**{"from": "1"}), subscribe(until="1"), subscribe("$replay/1/t")):
        assert placing.asked_for(packet, words(packet)[0])
    for packet in (subscribe(metadata="true"), subscribe(**{"from": "alice"})):
        assert not placing.asked_for(packet, words(packet)[0])


@pytest.mark.parametrize(
    ("given", "left", "remark"),
    [
        ({"from": "1", "until": "2"}, {"from": "1", "until": "2"}, ""),
        ({"from": "alice"}, {}, "from=alice is no place in the log: live only"),
        ({"from": "alice", "until": "5"}, {}, "from=alice is no place in the log: live only"),
        ({"stream-offset": "earliest"}, {"from": "earliest"}, ""),
        ({"stream-offset": "17"}, {"from": "17"}, ""),
        ({"stream-offset": "1741948200000"}, {"from": "@1741948200000"}, ""),
        ({"stream-offset": "1", "from": "2"}, {"from": "2"}, ""),
        ({"stream-offset": "alice"}, {"from": "alice"}, ""),
        ({"until": "bob"}, {}, "until=bob is no place in the log: live only"),
        ({"until": "-5"}, {}, "until=-5 is no place in the log: live only"),
        (
            {"from": "1", "until": "bob"},
            {"from": "1"},
            "until=bob is no place in the log: without an end",
        ),
        ({"from": ""}, {}, "from= is no place in the log: live only"),
        ({"from": "a\x01"}, {}, "from=a\\x01 is no place in the log: live only"),
        ({"from": "x" * 999}, {}, f"from={'x' * 40} is no place in the log: live only"),
        (
            {"from": "alice", "city": "x"},
            {"city": "x"},
            "from=alice is no place in the log: live only",
        ),
    ],
)
def test_a_word_that_is_none_of_ours_is_an_applications_own(
    given: dict[str, str], left: dict[str, str], remark: str
) -> None:
    assert words(subscribe(**given)) == (left, remark)
