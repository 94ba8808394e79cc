"""Who is a user, also after a restart."""

from __future__ import annotations

from dataclasses import replace

import pytest

from broker.config import Config
from broker.documents import UserDocument
from broker.errors import CommandRefused, NotFound, QuotaExceeded, StoreFull
from broker.message import WallUs
from broker.registry.access import users as module
from broker.registry.access.users import Users, expect_users, renewal_of
from broker.settings.listeners import Listener
from tests.support.passwords import PBKDF2, SHA512, user
from tests.support.world import Disk, World, running

ANNA = UserDocument("anna", "$argon2id$x", "", "standard night-shift", WallUs(1), WallUs(2))


async def test_there_is_none_at_first(world: World) -> None:
    users = Users(world.log)
    await users.start()
    assert not users.exist
    assert users.get("anna") is None


async def test_a_user_is_there_after_a_restart_with_roles() -> None:
    disk = Disk()
    async with running(disk) as world:
        await Users(world.log).put(ANNA)
    async with running(disk) as world:
        users = Users(world.log)
        await users.start()
        assert users.exist
        assert users.get("anna") == ANNA
        assert ANNA.role_names == ("standard", "night-shift")


async def test_one_that_is_removed_is_gone_also_after_a_restart() -> None:
    disk = Disk()
    async with running(disk) as world:
        users = Users(world.log)
        await users.put(ANNA)
        await users.remove("anna")
        assert not users.exist
        with pytest.raises(NotFound):
            await users.remove("anna")
    async with running(disk) as world:
        users = Users(world.log)
        await users.start()
        assert not users.exist


async def test_a_full_disk_changes_nothing(world: World) -> None:
    users = Users(world.log)
    world.disk.full = True
    with pytest.raises(StoreFull):
        await users.put(ANNA)
    assert not users.exist


async def test_there_is_a_most(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "USERS_MAX", 1)
    users = Users(world.log)
    await users.put(ANNA)
    await users.put(ANNA)
    with pytest.raises(QuotaExceeded):
        await users.put(UserDocument("bob", "", "", "", WallUs(1), WallUs(2)))


@pytest.mark.parametrize(
    "user",
    [
        UserDocument("a:b", "", "", "", WallUs(1), WallUs(2)),
        UserDocument("a", "", "", "x:y", WallUs(1), WallUs(2)),
    ],
)
async def test_a_name_that_cannot_be_is_refused(world: World, user: UserDocument) -> None:
    users = Users(world.log)
    with pytest.raises(CommandRefused):
        await users.put(user)
    assert not users.exist


async def test_a_password_that_is_changed_while_the_old_is_kept_anew_stays(world: World) -> None:
    before, after = user("anna"), user("anna", SHA512)
    await world.users.put(before)
    await world.users.put(after)
    await world.users.rehashed(before, replace(before, password=PBKDF2))
    assert world.users.by_name["anna"] == after
    assert await world.disk.scan(UserDocument) == [after]


async def test_where_anybody_may_come_in_is_told_until_there_is_a_user(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    far = Listener(host="192.0.2.1", port=1883, allow_anonymous=True)
    near = Listener(port=9000)
    config = Config(listeners=(far, near))
    await expect_users(world.users, config)
    told = "whoever reaches 192.0.2.1:1883 may read and publish everything: there is no user"
    assert caplog.messages == [told]
    await world.users.put(ANNA)
    await expect_users(world.users, config)
    await renewal_of(world.users)(config)
    assert caplog.messages == [told]
