"""Who may change what of a session, as the log has it before."""

from __future__ import annotations

import pytest

from broker.documents import (
    CursorDocument,
    Delete,
    Operation,
    OwnerDocument,
    Put,
    SessionDocument,
    WillDeadlineDocument,
)
from broker.message import Offset
from broker.store.shared import owners as module
from broker.store.shared.owners import OwnerOf, Owners
from tests.support.world import Disk

CURSOR = Put(CursorDocument("x", Offset(1), Offset(1), 1, b""))
SESSION = Put(SessionDocument("x", 60, 1, None))
WILL = Put(WillDeadlineDocument("x", 0, None))


def owned_by(broker: str, revision: int | None = None) -> Operation:
    return Put(OwnerDocument("x", broker, 1), revision)


@pytest.fixture
async def copy() -> Disk:
    """`x` is a session of the broker `a`."""
    copy = Disk()
    await copy.open()
    await copy.append([], [SESSION, owned_by("a")])
    return copy


@pytest.mark.parametrize("operation", [CURSOR, SESSION, WILL, owned_by("b")])
async def test_others_change_nothing_of_it(copy: Disk, operation: Operation) -> None:
    owners = Owners(copy)
    assert await owners.strangers([operation], "b", {}) == {"x"}
    assert await owners.strangers([operation], "a", {}) == set()


async def test_who_takes_it_says_what_it_expects_to_be_there_and_has_it_from_then_on(
    copy: Disk,
) -> None:
    owners, after = Owners(copy), OwnerOf()
    assert await owners.strangers([owned_by("b", 1), CURSOR], "b", after) == set()
    assert await owners.strangers([CURSOR], "b", {}) == {"x"}, "that may not count"
    owners.changed(after)
    assert await owners.strangers([CURSOR], "b", {}) == set()
    assert await owners.strangers([CURSOR], "a", {}) == {"x"}


async def test_of_a_session_that_is_over_a_will_may_stay_and_nothing_else(copy: Disk) -> None:
    owners, after = Owners(copy), OwnerOf()
    over = Delete(SessionDocument, ("x",))
    assert await owners.strangers([over], "a", after) == set()
    owners.changed(after)
    assert await owners.strangers([CURSOR], "a", {}) == {"x"}
    assert await owners.strangers([WILL], "b", {}) == set()


async def test_what_is_remembered_is_bounded_in_number_and_in_characters(
    copy: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "KNOWN_MAX", 10)
    monkeypatch.setattr(module, "KNOWN_LENGTH_MAX", 1000)
    owners = Owners(copy)
    for name in [*"abcdefghijklmnopqrst", *[letter * 400 for letter in "abcdef"]]:
        await owners.strangers([Delete(CursorDocument, (name,))], "a", {})
        owners.changed({name[:-1] + "?": "b"})
        owners.are_in_copy()
        assert len(owners._known) <= 10
        assert sum(map(len, owners._known)) <= 1000
