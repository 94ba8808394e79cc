"""What of a commit fails, and what goes on, when the store did not take it."""

from __future__ import annotations

from typing import Any

import pytest

from broker.documents import (
    DedupDocument,
    Delete,
    Operation,
    Place,
    Put,
    SessionDocument,
    WillDocument,
)
from broker.errors import StoreBusy, StoreConflict, StoreError, StoreFull
from broker.log.batch import Append, Batch
from broker.log.refused import nobody_has_any, take_refused
from broker.message import NOT_STORED, ServedUs
from tests.support.messages import message
from tests.support.world import Disk, running

LOST = StoreConflict("the session of 'x' is not here", frozenset({"x"}))


class Whose:
    def __init__(self, client_id: str) -> None:
        self.client_id = client_id
        self.calls: list[str] = []

    def take_changes(self) -> list[Operation]:
        return [Put(SessionDocument(self.client_id, 60, 1, None))]

    def committed(self) -> None:
        self.calls.append("committed")

    def not_committed(self) -> None:
        self.calls.append("not committed")


def append(*operations: Operation, publisher: str = "", source: str = "") -> Append:
    messages = [message("", publisher=publisher)] if publisher else []
    whose = Whose(source) if source else None
    return Append(messages, operations, 0, True, True, None, source=whose)


OF_X = [
    append(publisher="x"),
    append(source="x"),
    append(Put(SessionDocument("x", 60, 1, None))),
    append(Delete(SessionDocument, ("x",))),
    append(Delete(WillDocument, ("x",)), publisher="x"),
    append(Put(DedupDocument("d", NOT_STORED, ServedUs(0))), publisher="x", source="x"),
    append(Put(SessionDocument("x", 60, 1, None)), source="y"),
]
OF_OTHERS = [
    append(publisher="y"),
    append(source="y"),
    append(Put(SessionDocument("y", 60, 1, None))),
    append(Delete(DedupDocument, ("x",))),
    append(Delete(DedupDocument, ("d",)), publisher="x"),
    append(Delete(SessionDocument, ())),
    append(),
]
"""A message of x that was delayed is the broker's."""


def test_what_is_of_a_session_that_another_broker_has_fails() -> None:
    batch = Batch()
    batch.appends = [one for pair in zip(OF_X, OF_OTHERS, strict=False) for one in pair]
    batch.appends += OF_OTHERS[len(OF_X) :]
    batch.sources = {Whose("x"): True, Whose("y"): False}
    assert [id(one) for one in take_refused(batch, LOST)] == [id(one) for one in OF_X]
    assert [id(one) for one in batch.appends] == [id(one) for one in OF_OTHERS]
    assert [source.client_id for source in batch.sources] == ["y"]


@pytest.mark.parametrize("error", [StoreFull(""), StoreBusy("")])
def test_a_full_or_locked_store_refuses_nobody_for_whose_it_is(error: StoreFull) -> None:
    batch = Batch()
    batch.appends = [*OF_X]
    assert take_refused(batch, error) == []


def test_a_broker_alone_loses_no_session() -> None:
    with pytest.raises(AssertionError):
        nobody_has_any({"x"})


class Elsewhere(Disk):
    """Another broker has the sessions of these clients."""

    def __init__(self, *client_ids: str) -> None:
        super().__init__()
        self.lost = frozenset(client_ids)

    async def append(self, batch, state=(), *, durable=True, places=()) -> None:  # type: ignore[no-untyped-def]
        documents = [o.document for o in state if isinstance(o, Put)]
        strangers = {d.client_id for d in documents if isinstance(d, SessionDocument)} & self.lost
        if strangers:
            raise StoreConflict(f"{strangers} are not here", frozenset(strangers))
        await super().append(batch, state, durable=durable, places=places)


async def test_the_rest_is_committed_and_everybody_hears_what_came_of_it() -> None:
    disk = Elsewhere("x")
    async with running(disk) as world:
        lost: list[str] = []
        world.log.sessions_lost = lost.extend
        heard: list[tuple[str, StoreError | None]] = []
        for name in "xyx":
            world.log.append(
                [message(name, publisher=name)],
                lambda error, name=name: heard.append((name, error)),  # type: ignore[misc]
            )
        ours, theirs, place = Whose("y"), Whose("x"), Place()
        world.log.changed(theirs)
        world.log.changed(ours)
        world.log.append([], place=place)
        await world.flushed()
        assert [m.payload for m in disk.content.log] == [b"y"]
        assert [(name, type(error)) for name, error in heard] == [
            ("x", StoreConflict),
            ("x", StoreConflict),
            ("y", type(None)),
        ]
        assert lost == ["x"]
        assert ours.calls == ["not committed", "committed"]
        assert theirs.calls == ["not committed"]
        assert place.offset == 1
        assert world.log.failure is None
        await world.publish(message("later"))
        assert len(disk.content.log) == 2


async def test_a_revision_that_is_not_the_expected_one_ends_the_log() -> None:
    """Nobody may go on who was mistaken about what is stored."""
    async with running(Disk()) as world:
        heard: list[StoreError | None] = []
        world.log.append(
            [], heard.append, operations=[Put(SessionDocument("x", 60, 1, None), revision=7)]
        )
        with pytest.raises(StoreConflict):
            await world.flushed()
        assert isinstance(heard[0], StoreConflict)
        world.log.failure = None


def test_what_another_broker_has_stored_by_its_key_is_left_out_and_its_sender_hears_of_it() -> None:
    keyed = [
        Append(
            [message(digest)],
            [Put(DedupDocument(digest, NOT_STORED, ServedUs(0)))],
            *(0, True, True, None),
            place=Place(),
        )
        for digest in "dk"
    ]
    batch = Batch()
    batch.appends = [*keyed]
    assert take_refused(batch, StoreConflict("", keys=frozenset({"k"}))) == []
    assert batch.appends == keyed
    assert [len(each.messages) + len(each.operations) for each in keyed] == [2, 0]
    assert [each.place is None for each in keyed] == [False, True]


async def test_a_conflict_that_nothing_explains_ends_the_log() -> None:
    """Tried again, it would be refused again, for ever."""

    class Odd(Disk):
        tries = 0

        async def append(self, *args: Any, **kwargs: Any) -> None:
            self.tries += 1
            raise LOST

        def append_now(self, *args: Any, **kwargs: Any) -> bool:
            return False

    disk = Odd()
    async with running(disk) as world:
        with pytest.raises(StoreConflict):
            await world.log.commit_now([Put(SessionDocument("y", 60, 1, None))])
        assert disk.tries == 1
        assert world.log.failure is LOST
