"""What is saved of a damaged log: what was written and nothing else, and what is lost is said."""

from __future__ import annotations

import random
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from broker.documents import (
    CursorDocument,
    Document,
    Put,
    SessionDocument,
    SubscriptionDocument,
    TimeDocument,
    WillDocument,
)
from broker.documents.queues import DeadLetterDocument, RetryDocument
from broker.errors import SchemaMismatch
from broker.message import AgedUs, Message, Offset, ServedUs, WallUs
from broker.session.cursor import listed
from broker.store.sqlite.files.new_file import new_file
from broker.store.sqlite.gaps import OFFSETS_LOST_MAX
from broker.store.sqlite.repair.note import read_note
from broker.store.sqlite.repair.remains import Remains
from broker.store.sqlite.repair.salvaging import Salvage, Salvaged
from broker.store.sqlite.store import SqliteStore
from tests.support import flips, old_schemas
from tests.support.messages import message, numbered
from tests.support.sqlite import change, opened, problems
from tests.support.stores import read_all, retained
from tests.support.trials import trials

pytestmark = pytest.mark.long

PAGE = 4096
ROWS_OF_A_PAGE = 120
"""At most so many messages of `flips.make` are on one page."""


def salvage(path: Path, to: Path) -> Salvaged:
    """Into a new log that is sound; and what there was stays as it was."""
    before = {file: (file.read_bytes(), file.stat().st_mtime_ns) for file in path.parent.iterdir()}
    noted = read_note(path)
    with closing(Remains(path)) as remains, new_file(to) as new:
        work = Salvage(remains, new.connection, to, listed, lambda done, total: None)
        salvaged = work.run(noted.high_watermark if noted is not None else Offset(0))
    after = {file: (file.read_bytes(), file.stat().st_mtime_ns) for file in path.parent.iterdir()}
    assert before == after
    assert problems(to, at_rest=True) == []
    return salvaged


def lost(salvaged: Salvaged) -> set[int]:
    return {offset for part in salvaged.lost for offset in part.offsets}


async def saved(to: Path) -> list[Message]:
    async with opened(to) as store:
        return await read_all(store)


TRIALS = trials(8)


def flip(path: Path, choose: random.Random | None = None, *, bit: int | None = None) -> int:
    """One bit: this one, or any, or one in the middle. Which it was."""
    content = bytearray(path.read_bytes())
    if bit is None:
        bit = choose.randrange(8 * len(content)) if choose is not None else 4 * len(content)
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)
    return bit


def size(path: Path) -> int:
    return path.stat().st_size


def cut(path: Path, end: int) -> None:
    path.write_bytes(path.read_bytes()[:end])


def rename(path: Path, name: bytes, other: bytes) -> None:
    """In the table, or in the index over it, whichever comes first."""
    content = path.read_bytes()
    assert content.count(name) == 2
    path.write_bytes(content.replace(name, other, 1))


async def left_by_a_kill(store: SqliteStore, to: Path) -> Path:
    """The files as they would be if the broker were killed now."""
    shutil.copytree(store.path.parent, to)
    return to / store.path.name


@pytest.fixture
def to(tmp_path: Path) -> Path:
    (tmp_path / "new").mkdir()
    return tmp_path / "new" / "pubsub.db"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "old").mkdir()
    return tmp_path / "old" / "pubsub.db"


async def test_of_a_sound_log_everything_is_saved(path: Path, to: Path) -> None:
    session = SessionDocument("sub1", 60, 1, ServedUs(7))
    subscription = SubscriptionDocument("sub1", "#", 1, False, True, 2, 5, Offset(3))
    cursor = CursorDocument("sub1", Offset(9), Offset(9), 1, b"")
    will = WillDocument("sub1", "gone", b"x", 1, False, b"", None, 5)
    time = TimeDocument("log", ServedUs(1), AgedUs(2), WallUs(3))
    documents: list[Document] = [session, subscription, cursor, will, time]
    sent = [*numbered(3000), message("r", "kept", retain=True, expires_at_us=1 << 60)]
    async with opened(path) as store:
        await store.append(sent, [Put(document) for document in documents])
        await store.trim(Offset(10))
    salvaged = salvage(path, to)
    assert (salvaged.messages, salvaged.retained, salvaged.sessions) == (2992, 1, 1)
    assert (salvaged.lost, salvaged.unreadable_pages, salvaged.refused) == ([], 0, 0)
    async with opened(to) as store:
        assert store.log_start == 10
        assert await read_all(store) == sent[9:]
        assert await retained(store, ["#"]) == sent[-1:]
        kinds = [type(document) for document in documents]
        assert await store.scan_together(kinds, ()) == documents
        later = [message("later")]
        await store.append(later)
        assert later[0].offset > 3001 + OFFSETS_LOST_MAX


async def test_one_flipped_bit_costs_a_page_at_most_and_what_it_costs_is_said(
    path: Path, tmp_path: Path
) -> None:
    """P8. `make soak` tries more; `flips.flip` is what a broker makes of such a file."""
    written = await flips.make(path, 5)
    choose = random.Random(5)
    losses = 0
    for trial in range(TRIALS):
        to = tmp_path / f"{trial}.db"
        bit = flip(path, choose)
        gone = lost(salvage(path, to))
        assert len(gone) <= ROWS_OF_A_PAGE
        losses += bool(gone)
        assert await saved(to) == [sent for sent in written if sent.offset not in gone]
        flip(path, bit=bit)
    assert losses


@pytest.mark.parametrize("page", [1, 2, 3, 9])
async def test_the_pages_that_hold_everything_together_are_not_needed(
    path: Path, to: Path, page: int
) -> None:
    """The list of tables, and the roots of those that hold the messages, the names, the log."""
    written = numbered(5000, lambda n: f"t/{n % 100}")
    async with opened(path) as store:
        await store.append(written, [Put(SessionDocument("sub1", 1, 1, None))])
    with path.open("r+b") as file:
        file.seek((page - 1) * PAGE)
        file.write(bytes(PAGE))
    assert salvage(path, to).lost == []
    assert await saved(to) == written


async def test_a_damaged_name_is_found_in_the_index(path: Path, to: Path) -> None:
    written = numbered(3000, lambda n: f"weather/{n % 3}")
    async with opened(path) as store:
        await store.append(written)
    rename(path, b"weather/1", b"weather/9")
    assert salvage(path, to).lost == []
    assert await saved(to) == written


async def test_messages_that_retention_removed_stay_removed(path: Path, to: Path) -> None:
    """Also where their rows are still on pages that are in no tree any more."""
    async with opened(path) as store:
        await store.append([message("r", "kept", retain=True), *numbered(4000)])
        await store.trim(Offset(3500))
    assert salvage(path, to).messages == 503
    async with opened(to) as store:
        assert [m.offset for m in await read_all(store)] == [*range(3500, 4002)]
        assert [m.payload for m in await retained(store, ["#"])] == [b"r"]


async def test_dead_letters_and_what_groups_retry_keep_their_messages(path: Path, to: Path) -> None:
    """And those whose messages are lost go with them."""
    async with opened(path) as store:
        await store.append(
            numbered(6),
            [
                Put(SessionDocument("g", 60, 1, None)),
                *(Put(RetryDocument("g", ServedUs(9), Offset(n), 1, "")) for n in (1, 99)),
                *(
                    Put(DeadLetterDocument("g", Offset(n), 5, "no", "w", AgedUs(1)))
                    for n in (2, 98)
                ),
            ],
        )
        await store.trim(Offset(4))
    salvage(path, to)
    async with opened(to) as store:
        assert [d.offset for d in await store.scan(RetryDocument)] == [1]
        assert [d.offset for d in await store.scan(DeadLetterDocument)] == [2]
        held = (await store.fetch([Offset(1), Offset(2), Offset(3)])).messages
        assert [message.payload for message in held] == [b"1", b"2"]


async def test_what_is_retained_is_known_from_the_messages_where_its_table_is_damaged(
    path: Path, to: Path
) -> None:
    async with opened(path) as store:
        for payload in ("old", "new"):
            await store.append([message(payload, f"t/{n}", retain=True) for n in range(5)])
        await store.append([message("", "t/0", retain=True), message("live", "t/1")])
    with closing(sqlite3.connect(path)) as connection:
        sql = "SELECT rootpage FROM sqlite_schema WHERE name = 'retained'"
        (root,) = connection.execute(sql).fetchone()
    with path.open("r+b") as file:
        file.seek((root - 1) * PAGE)
        file.write(b"\xff" * PAGE)
    assert salvage(path, to).retained == 4
    async with opened(to) as store:
        found = await retained(store, ["#"])
    assert {(m.topic, m.payload) for m in found} == {(f"t/{n}", b"new") for n in range(1, 5)}


# Write-ahead logs


async def test_what_lies_behind_a_damaged_frame_is_saved(path: Path, to: Path) -> None:
    written = numbered(300)
    async with opened(path) as store:
        for sent in written:
            await store.append([sent])
        left = await left_by_a_kill(store, to.parent / "left")
    flip(Path(f"{left}-wal"))
    gone = lost(salvage(left, to))
    assert len(gone) <= 1
    assert await saved(to) == [sent for sent in written if sent.offset not in gone]


async def test_a_write_ahead_log_that_was_cut_has_lost_what_was_noted(path: Path, to: Path) -> None:
    """And none of the offsets that were given out is given again."""
    async with opened(path) as store:
        for n in range(300):
            await store.append([message(str(n), at=1_700_000_000_000_000 + n)])
        left = await left_by_a_kill(store, to.parent / "left")
    cut(Path(f"{left}-wal"), 150_000)
    salvaged = salvage(left, to)
    [part] = salvaged.lost
    assert part.offsets == range(salvaged.messages + 1, 301)
    assert part.since_us == 1_700_000_000_000_000 + salvaged.messages - 1
    assert part.until_us is None
    async with opened(to) as store:
        later = [message("later")]
        await store.append(later)
    assert later[0].offset > 300 + OFFSETS_LOST_MAX


@pytest.mark.parametrize("empty", [False, True])
async def test_a_write_ahead_log_alone_gives_what_it_has(
    path: Path, to: Path, *, empty: bool
) -> None:
    written = numbered(300)
    async with opened(path) as store:
        for at in range(0, 300, 50):
            await store.append(written[at : at + 50])
        left = await left_by_a_kill(store, to.parent / "left")
    left.unlink()
    if empty:
        left.touch()
    salvaged = salvage(left, to)
    assert lost(salvaged) == {sent.offset for sent in written} - {m.offset for m in await saved(to)}
    assert salvaged.messages >= 250


async def test_what_accept_loss_has_set_aside_is_saved_too(path: Path, to: Path) -> None:
    written = numbered(300)
    async with opened(path) as store:
        for sent in written:
            await store.append([sent])
        left = await left_by_a_kill(store, to.parent / "left")
    flip(Path(f"{left}-wal"))
    async with opened(left, accept_loss=True) as store:
        assert store.high_watermark < 200
        later = [message("later")]
        await store.append(later)
    salvage(left, to)
    found = await saved(to)
    assert found[-1] == later[0]
    assert len(found) >= 300


async def test_frames_without_a_commit_behind_them_are_no_messages(path: Path, to: Path) -> None:
    """Nobody was told that they are stored."""
    async with opened(path) as store:
        for sent in numbered(10):
            await store.append([sent])
        left = await left_by_a_kill(store, to.parent / "left")
    cut(Path(f"{left}-wal"), -PAGE)
    assert salvage(left, to).messages == 9


async def test_a_damaged_frame_that_ends_a_commit_costs_its_own_page(path: Path, to: Path) -> None:
    async with opened(path) as store:
        await store.append(numbered(300))
        await store.append(numbered(3000))
        left = await left_by_a_kill(store, to.parent / "left")
    flip(wal := Path(f"{left}-wal"), bit=8 * (size(wal) - PAGE // 2))
    assert salvage(left, to).messages >= 3300 - ROWS_OF_A_PAGE


async def test_behind_a_damaged_frame_too_only_what_has_a_commit_is_a_message(
    path: Path, to: Path
) -> None:
    async with opened(path) as store:
        await store.append(numbered(300))
        commits = size(Path(f"{path}-wal"))
        await store.append(numbered(3000))
        left = await left_by_a_kill(store, to.parent / "left")
    flip(wal := Path(f"{left}-wal"), bit=8 * (commits - PAGE // 2))
    cut(wal, -PAGE)
    assert salvage(left, to).messages <= 300


# Sessions


async def test_a_cursor_above_what_is_left_goes_back_to_it(path: Path, to: Path) -> None:
    cursor = CursorDocument("sub1", Offset(2999), Offset(2999), 1, b"")
    async with opened(path) as store:
        await store.append(numbered(3000), [Put(SessionDocument("sub1", 1, 1, None)), Put(cursor)])
    change(path, "DELETE FROM messages WHERE offset > 1000")
    assert lost(salvage(path, to)) == {*range(1001, 3001)}
    async with opened(to) as store:
        [found] = await store.scan(CursorDocument)
    assert (found.offset, found.sent_through) == (1000, 1000)


async def test_who_lost_its_cursor_gets_again_what_it_subscribed_to(path: Path, to: Path) -> None:
    subscription = SubscriptionDocument("sub1", "#", 1, False, False, 0, None, Offset(40))
    async with opened(path) as store:
        await store.append(
            numbered(100), [Put(SessionDocument("sub1", 1, 1, None)), Put(subscription)]
        )
    change(path, "INSERT INTO cursors VALUES ('gone', 1, 1, 1, x'', 1)")
    assert salvage(path, to).sessions == 1
    async with opened(to) as store:
        assert await store.scan(CursorDocument) == [
            CursorDocument("sub1", Offset(40), Offset(40), 1, b"")
        ]


@pytest.mark.parametrize("version", old_schemas.VERSIONS)
async def test_a_log_of_each_earlier_schema_is_saved_whole(
    path: Path, to: Path, version: int
) -> None:
    written = old_schemas.make(path, version)
    assert salvage(path, to).lost == []
    async with opened(to) as store:
        assert await read_all(store) == written
        assert [m.offset for m in await retained(store, ["#"])] == [2400]
        [cursor] = await store.scan(CursorDocument)
        assert (cursor.client_id, cursor.offset) == ("sub1", 100)


async def test_a_log_of_a_newer_program_is_refused_and_a_damaged_version_is_not(
    path: Path, to: Path, tmp_path: Path
) -> None:
    async with opened(path) as store:
        await store.append(numbered(10))
    change(path, "PRAGMA user_version = 99")
    assert salvage(path, to).messages == 10
    change(path, "INSERT INTO schema_migrations VALUES (99, 'newer', '', 1)")
    with pytest.raises(SchemaMismatch, match="from a newer pubsub"):
        salvage(path, tmp_path / "other.db")
    assert not (tmp_path / "other.db").exists()
