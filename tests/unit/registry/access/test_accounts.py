"""What an operator does to users."""

from __future__ import annotations

import pytest

from broker.errors import CommandRefused, NotFound, PeerError
from broker.registry.access.accounts import Accounts
from broker.security.names import ANONYMOUS, Login
from tests.support.passwords import ARGON2ID, PBKDF2, SHA512
from tests.support.world import World


class Online:
    def __init__(self) -> None:
        self.dismissed: list[PeerError] = []

    def dismiss(self, error: PeerError) -> None:
        self.dismissed.append(error)


@pytest.fixture
def accounts(world: World) -> Accounts:
    return Accounts(world.users, world.clock)


async def test_users_are_listed_by_name_as_they_were_made(world: World, accounts: Accounts) -> None:
    first = await accounts.add("bob", ARGON2ID)
    await accounts.add("anna", SHA512, roles=["admin", "admin"])
    assert first.first
    world.users.enter(Online(), Login("bob"))
    anna, bob = accounts.all()
    assert (anna.name, anna.roles, anna.kept_as, anna.first) == ("anna", ("admin",), "6", False)
    assert (bob.name, bob.roles, bob.kept_as, bob.connections) == (
        *("bob", ("standard",), "argon2id", 1),
    )
    assert bob.created_at_us == world.clock.wall_us()


async def test_what_cannot_be_is_refused_and_changes_nothing(accounts: Accounts) -> None:
    await accounts.add("anna", ARGON2ID)
    await accounts.add(ANONYMOUS, "")
    with pytest.raises(CommandRefused, match="there is a user anna already"):
        await accounts.add("anna", PBKDF2)
    with pytest.raises(CommandRefused, match="no hash of a password"):
        await accounts.add("bob", "secret")
    with pytest.raises(CommandRefused, match="has no password"):
        await accounts.set_password(ANONYMOUS, ARGON2ID)
    for call in (accounts.set_password("zoe", ARGON2ID), accounts.remove("zoe")):
        with pytest.raises(NotFound):
            await call
    assert [account.kept_as for account in accounts.all()] == ["argon2id", ""]


async def test_who_is_connected_feels_the_change(world: World, accounts: Accounts) -> None:
    await accounts.add("anna", ARGON2ID)
    by_password, by_certificate = Online(), Online()
    world.users.enter(by_password, Login("anna", by_password=True))
    world.users.enter(by_certificate, Login("anna"))
    world.clock.advance(5)
    changed = await accounts.set_password("anna", PBKDF2)
    assert changed.changed_at_us - changed.created_at_us == 5_000_000
    assert [error.reason_code for error in by_password.dismissed] == [0x87]
    assert by_certificate.dismissed == []
    await accounts.remove("anna")
    assert [error.reason_code for error in by_certificate.dismissed] == [0x98]


async def test_other_roles_count_at_once_and_end_no_connection(
    world: World, accounts: Accounts
) -> None:
    await accounts.add("anna", ARGON2ID)
    guest = Online()
    world.users.enter(guest, Login("anna", by_password=True))
    rights = world.permissions.rights("anna", None, "c1")
    assert rights.may_publish("a")
    changed = await accounts.set_roles("anna", ["night", "night"])
    assert (changed.roles, changed.connections, changed.kept_as) == (("night",), 1, "argon2id")
    assert not rights.may_publish("a")
    assert guest.dismissed == []
    with pytest.raises(NotFound):
        await accounts.set_roles("zoe", [])
    with pytest.raises(CommandRefused):
        await accounts.set_roles("anna", ["a b"])
    assert accounts.all()[0].roles == ("night",)


async def test_of_an_import_those_that_are_there_stay(world: World, accounts: Accounts) -> None:
    await accounts.add("anna", ARGON2ID)
    assert await accounts.take({"anna": SHA512, "bob": PBKDF2}) == ["anna"]
    assert [account.kept_as for account in accounts.all()] == ["argon2id", "7"]
    with pytest.raises(CommandRefused):
        await accounts.take({"cia": SHA512, "dan": "secret"})
    assert [*world.users.by_name] == ["anna", "bob"]


async def test_the_last_user_stays_where_others_could_come_in_then(
    world: World, accounts: Accounts
) -> None:
    world.users.must_exist = lambda: True
    await accounts.add("anna", ARGON2ID)
    await accounts.add("bob", ARGON2ID)
    await accounts.remove("anna")
    with pytest.raises(CommandRefused, match="last user"):
        await accounts.remove("bob")
