"""Removable: the looks that retention takes, each of them short."""

from __future__ import annotations

from broker.documents import CursorDocument, Put, SessionDocument
from broker.message import Offset
from broker.store.sqlite.retention import removable
from broker.store.sqlite.store import SqliteStore
from tests.support.messages import message, numbered
from tests.support.world import subscription


async def test_a_look_at_segments_ends_after_so_many_topics(sqlite: SqliteStore) -> None:
    await sqlite.append(numbered(30_000, lambda n: f"t/{n % 1000}"))
    found, end = await sqlite.removing._look(removable.segments, 0)
    assert end is not None
    assert sum(len(segment.topics) for segment in found) <= 2048 + 1024
    assert end == found[-1].last + 1
    position: Offset | None = Offset(0)
    messages = 0
    while position is not None:
        found, position = await sqlite.removing._look(removable.segments, position)
        messages += sum(a.messages for segment in found for a in segment.topics.values())
    assert messages == 30_000


async def test_what_is_owed_is_listed_in_parts(sqlite: SqliteStore, monkeypatch: object) -> None:
    await sqlite.transact(
        [
            Put(SessionDocument("s", 1, 1, None)),
            Put(CursorDocument("s", Offset(7), Offset(7), 1, b"")),
            *[Put(subscription(f"t/{n:04}", client_id="s")) for n in range(4500)],
        ]
    )
    after: tuple[str, str] | None = ("", "")
    filters = []
    while after is not None:
        part, after = await sqlite.removing.owed(after)
        filters += [owed.filter for owed in part]
        assert all(owed.start == 8 for owed in part)
    assert filters == [f"t/{n:04}" for n in range(4500)]


async def test_names_in_use_are_those_of_messages_that_are_held_too(sqlite: SqliteStore) -> None:
    await sqlite.append([message("r", "held", publisher="p", retain=True)])
    await sqlite.append(numbered(1100))
    await sqlite.trim(Offset(1050))
    names = removable.NamesInUse()
    while await sqlite.removing._look(names.part):
        pass
    assert await sqlite.removing._look(names.unused, "topics", 0) == ([], None)
    # That of the block that is not full is looked at by whoever removes names.
    assert await sqlite.removing._look(names.unused, "publishers", 0) == ([2], None)
    assert await sqlite.removing.forget_names() == 0
