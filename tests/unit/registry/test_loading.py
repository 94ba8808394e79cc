"""A session as it was last committed."""

from __future__ import annotations

from broker.documents import CursorDocument, Document, Put, SessionDocument
from broker.message import Offset
from broker.registry.loading import document_of, load
from tests.support.messages import message
from tests.support.world import Disk, leave_in_flight, running, subscription


async def test_it_has_its_place_its_subscriptions_and_what_is_in_flight() -> None:
    disk = Disk()
    async with running(disk) as world:
        await leave_in_flight(world, message("1"), message("2"))
        loaded = await load(world.disk, "sub1", inflight_max=10)
    assert loaded is not None
    assert loaded.client_id == "sub1"
    assert (loaded.durable, loaded.attached) == (True, False)
    assert [*loaded.subscriptions] == ["t"]
    assert len(loaded.in_flight) == 2
    assert loaded.position.through == 2


async def test_there_is_none_without_its_document() -> None:
    disk = Disk()
    async with running(disk) as world:
        assert await load(world.disk, "sub1", inflight_max=10) is None


async def test_many_subscriptions_are_all_there() -> None:
    disk = Disk()
    async with running(disk) as world:
        documents: list[Document] = [
            SessionDocument("sub1", 100, 1, None),
            CursorDocument("sub1", Offset(7), Offset(7), 1, b""),
            *[subscription(f"t/{n}") for n in range(3000)],
        ]
        await disk.append((), [Put(document) for document in documents])
        loaded = await load(world.disk, "sub1", inflight_max=10)
    assert loaded is not None
    assert len(loaded.subscriptions) == 3000
    assert loaded.position.through == 7


async def test_it_stays_whose_it_is() -> None:
    disk = Disk()
    async with running(disk) as world:
        owned = SessionDocument("sub1", 100, 1, None, user="anna")
        await disk.append((), [Put(owned)])
        loaded = await load(world.disk, "sub1", inflight_max=10)
    assert loaded is not None
    assert loaded.tally.user == "anna"
    assert document_of(loaded, expires_at_us=None) == owned
