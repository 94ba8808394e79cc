"""What `check` finds, and that a read finds damage as well. (S8)"""

from __future__ import annotations

import os
import random
import re
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from broker.documents import (
    Put,
    ReceivedQos2Document,
    SessionDocument,
    SubscriptionDocument,
    WillDocument,
)
from broker.documents.queues import DeadLetterDocument, GroupDocument, RetryDocument
from broker.message import AgedUs, Offset, ServedUs
from broker.session.cursor import Cursor, listed
from broker.session.in_flight import InFlightWindow
from broker.store import Read
from broker.store.sqlite.repair import checking
from broker.store.sqlite.repair.checking import Check
from broker.store.sqlite.retention.trimming import Trimming
from broker.store.sqlite.store import SqliteStore
from tests.support import flips
from tests.support.messages import message, numbered
from tests.support.sqlite import change, problems
from tests.support.stores import END, payloads
from tests.support.trials import trials

pytestmark = pytest.mark.long


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE messages SET payload = x'53756e6e79' WHERE offset = 2",
        "UPDATE messages SET properties = x'00' WHERE offset = 2",
        "UPDATE messages SET qos = 2 WHERE offset = 2",
        "UPDATE messages SET retain = 1 WHERE offset = 2",
        "UPDATE messages SET published_at_us = published_at_us + (1 << 40) WHERE offset = 2",
        "UPDATE messages SET expires_at_us = 1 WHERE offset = 2",
        "UPDATE messages SET topic_id = 1 WHERE offset = 2",
        "UPDATE messages SET topic_id = 99 WHERE offset = 2",
        "UPDATE messages SET publisher_id = 1 WHERE offset = 2",
        "UPDATE messages SET crc = crc + 1 WHERE offset = 2",
        "UPDATE topics SET name = 'weathes' WHERE id = 2",
        "UPDATE publishers SET client_id = '2' WHERE id = 2",
    ],
)
async def test_damage_is_found_and_named_without_the_payload(
    sqlite: SqliteStore, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    await sqlite.append(
        [message("1", "a", publisher="x"), message("Rainy"), message("3", "a", publisher="x")]
    )
    await sqlite.close()
    change(sqlite.path, damage)
    await sqlite.open()
    for filters in (None, ["#"]):
        read = await sqlite.read(Offset(1), END, filters)
        assert payloads(read.messages) == [b"1", b"3"]
        assert (read.damaged, read.next) == ([range(2, 3)], 4)
    assert await sqlite.read(Offset(1), END, ["a"]) == Read(read.messages, Offset(4), [range(2, 3)])
    fetched = await sqlite.fetch([Offset(1), Offset(2), Offset(3)])
    assert fetched == Read(read.messages, Offset(4), [range(2, 3)])
    [told] = caplog.messages
    assert "2-2" in told
    assert "Rainy" not in told
    assert any("offset 2" in problem for problem in problems(sqlite.path))
    assert payloads((await sqlite.read(Offset(1), Offset(1))).messages) == [b"1"]


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ("DELETE FROM topic_blocks WHERE topic_id = 2", "offset 2 is not indexed"),
        ("INSERT INTO blocks VALUES (0, 3, 2, 2, 1, 1)", "the figures of block 0 do not add up"),
        ("UPDATE messages SET offset = 9 WHERE offset = 2", "offsets 2 to 9 cannot be read"),
        ("UPDATE retained SET offset = 7", "the retained message of topic 1 is not there"),
        ("UPDATE retained SET offset = 2", "offset 2 is of topic 2, not 1"),
        ("UPDATE cursors SET offset = 9", r"the cursor of sub1 \(9\) is above"),
        ("UPDATE retained_names SET name = 'b'", r"offset 1 is not found by its name \(a\)"),
        ("INSERT INTO retained VALUES (55, 1, 0)", "refers to nothing in topics"),
        ("INSERT INTO retained_names VALUES ('b', 2)", "b is listed among the topics with a"),
        ("UPDATE log SET start = 9", "the log start is damaged: 9, and is 1"),
        ("INSERT INTO gaps VALUES (7, 5)", "from 7 to 5 overlaps another, or ends before"),
        ("INSERT INTO gaps VALUES (3, 9)", "the next offset would be 3, which was given out"),
        ("UPDATE cursors SET sent_through = 0", r"\(1\) is above what was sent to it \(0\)"),
        ("UPDATE cursors SET next_packet_id = 2", "the cursor of 'sub1' is damaged"),
        ("UPDATE cursors SET inflight = x'00'", "what 'sub1' has in flight is damaged"),
        ("UPDATE subscriptions SET qos = 6", "the subscription of sub1 to # is no subscription"),
        ("UPDATE received_qos2 SET packet_ids = x'00'", "QoS 2 identifiers of sub1 are damaged"),
        ("UPDATE wills SET qos = 3", "the will of sub1 is no message"),
        ("UPDATE schema_migrations SET sha256 = '' WHERE version = 2", "another 0002_retained"),
        ("DELETE FROM sessions", "refers to nothing in sessions"),
        ("UPDATE dead_letters SET offset = 7", "the dead letter of g at offset 7 has no message"),
        (
            "UPDATE dead_letters SET attempts = -1",
            "the dead letter of g at offset 1 makes no sense",
        ),
        ("UPDATE retries SET offset = 7", "what sub1 is to try again at offset 7 is not there"),
        ("UPDATE group_settings SET lease_ms = 0", "the settings of sub1 make no sense"),
    ],
)
async def test_check_finds_what_does_not_fit_together(
    sqlite: SqliteStore, damage: str, said: str
) -> None:
    cursor = Cursor("sub1", InFlightWindow(10))
    await sqlite.append(
        [message("1", "a", retain=True), message("2", "b")],
        [
            Put(SessionDocument("sub1", 1, 1, None)),
            *cursor.take_changes(Offset(1), attached=False),
            Put(SubscriptionDocument("sub1", "#", 1, False, False, 0, None, Offset(0))),
            Put(ReceivedQos2Document("sub1", b"\0\1")),
            Put(WillDocument("sub1", "a", b"", 0, False, b"", None, 0)),
            Put(GroupDocument("sub1", 5, 1, 1, 1000, 1)),
            Put(RetryDocument("sub1", ServedUs(1), Offset(2), 1, "")),
            Put(DeadLetterDocument("g", Offset(1), 5, "why", "worker", AgedUs(1))),
        ],
    )
    assert problems(sqlite.path) == []
    await sqlite.close()
    change(sqlite.path, damage)
    found = problems(sqlite.path, at_rest=True)
    assert any(re.search(said, problem) for problem in found), found


async def test_check_compares_the_figures_of_each_topic_with_its_messages(
    sqlite: SqliteStore,
) -> None:
    """Also of figures that add up to those of their block."""
    await sqlite.append([message(str(i), f"t/{i % 4}") for i in range(2500)])
    await sqlite.trim(Offset(5))
    assert problems(sqlite.path) == []
    await sqlite.close()
    change(
        sqlite.path,
        "UPDATE topic_blocks SET messages = messages + 1 WHERE block = 1 AND topic_id = 2",
        "UPDATE topic_blocks SET messages = messages - 1 WHERE block = 1 AND topic_id = 3",
    )
    await sqlite.open()
    assert problems(sqlite.path) == [
        "the figures of topic 2 in block 1 do not add up",
        "the figures of topic 3 in block 1 do not add up",
    ]


@pytest.mark.parametrize(("name", "table"), [(b"weather/2", "topics"), (b"pub-2", "publishers")])
async def test_a_name_that_its_index_does_not_have_is_found(
    sqlite: SqliteStore, monkeypatch: pytest.MonkeyPatch, name: bytes, table: str
) -> None:
    """Also beside a broker, where SQLite does not look at these tables as a whole."""
    monkeypatch.setattr(checking, "NAMES_PER_LOOK", 2)
    await sqlite.append([message("x", f"weather/{n}", publisher=f"pub-{n}") for n in range(5)])
    await sqlite.close()
    content = sqlite.path.read_bytes()
    at = content.rindex(name)  # The one in the index is as good as the one in the table.
    sqlite.path.write_bytes(content[:at] + name.replace(b"2", b"9") + content[at + len(name) :])
    assert any(f"row 3 of {table} is not found" in said for said in problems(sqlite.path))


async def test_check_survives_a_torn_file(sqlite: SqliteStore) -> None:
    await sqlite.append([message(bytes(1000)) for _ in range(2000)])
    await sqlite.close()
    with sqlite.path.open("r+b") as file:
        file.seek(100 * 4096)
        file.write(os.urandom(20 * 4096))
    await sqlite.open()
    assert problems(sqlite.path) != []


async def test_a_sound_log_has_nothing_to_report(sqlite: SqliteStore) -> None:
    assert problems(sqlite.path) == problems(sqlite.path, at_rest=True) == []
    await sqlite.append([message("r", "other", retain=True), *numbered(3000)])
    await sqlite.trim(Offset(1500))
    assert problems(sqlite.path) == problems(sqlite.path, at_rest=True) == []


async def test_what_a_reader_cannot_read_is_reported(tmp_path: Path) -> None:
    """One bit of the file at a time."""
    path = tmp_path / "pubsub.db"
    written = await flips.make(path, 3)
    original = path.read_bytes()
    choose = random.Random(3)
    noticed = 0
    for _ in range(trials(8)):
        bit = choose.randrange(8 * len(original))
        damaged = bytearray(original)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        try:
            found = problems(path, at_rest=True)
        except sqlite3.DatabaseError:
            found = ["the schema"]
        if (await flips.verdict(path, written, [None, ("t/1",)]) or ["harmless"])[0] != "harmless":
            noticed += 1
            assert found, f"bit {bit}"
        for beside in path.parent.glob("*-*"):
            beside.unlink()
    assert noticed


async def test_progress_is_told_and_ends_the_check(sqlite: SqliteStore) -> None:
    """As Ctrl-C does."""
    await sqlite.append(numbered(10_000))
    told: list[int] = []

    def progress(what: str, messages: int) -> None:
        if what == "messages":
            told.append(messages)
            if messages > 5000:
                raise KeyboardInterrupt

    with closing(sqlite3.connect(sqlite.path, isolation_level=None)) as connection:
        check = Check(connection, listed, at_rest=False, progress=progress)
        assert check.expected == 10_000
        with pytest.raises(KeyboardInterrupt):
            list(check.problems())
        assert not connection.in_transaction
    assert told[-1] == check.messages < 10_000


async def test_no_look_holds_a_snapshot_for_long(sqlite: SqliteStore) -> None:
    """Or the broker's write-ahead log could not start over meanwhile."""
    await sqlite.append(numbered(40_000))
    with closing(sqlite3.connect(sqlite.path, isolation_level=None)) as connection:
        open_at: list[bool] = []
        check = Check(
            connection,
            listed,
            at_rest=False,
            progress=lambda *_: open_at.append(connection.in_transaction),
        )
        assert list(check.problems()) == []
    assert open_at == [False] * len(open_at)
    assert len(open_at) >= 10


async def test_what_changes_meanwhile_is_not_taken_for_damage(
    sqlite: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Messages come, are retained and trimmed between two looks."""
    monkeypatch.setattr(checking, "BLOCKS_PER_LOOK", 1)
    monkeypatch.setattr(checking, "MESSAGES_PER_READ", 300)
    await sqlite.append(
        [message("r", "kept", retain=True), *numbered(6000, lambda n: f"t/{n % 50}")]
    )
    writer = sqlite._writer
    trimming = Trimming(writer)
    looks = 0

    def meanwhile(*told: object) -> None:
        nonlocal looks
        looks += 1
        writer.commit(numbered(200, lambda n: f"new/{n % 7}"), [], True)
        writer.commit([message(str(looks), "kept", retain=True)], [], True)
        start, position = Offset(looks * 250), 0
        trimming.move_log_start(start)
        while position < start:
            _, position = trimming.trim_some(start, position)
        thinned = range(5000 + 100 * looks, 5000 + 100 * looks + 300, 3)
        trimming.take_out([at for at in thinned if at >> 10 == thinned.start >> 10], [])

    with closing(sqlite3.connect(sqlite.path, isolation_level=None)) as connection:
        check = Check(connection, listed, at_rest=False, progress=meanwhile)
        assert list(check.problems()) == []
    assert looks > 10
