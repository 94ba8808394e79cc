"""Who comes in, with what, and what it costs."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
from dataclasses import replace
from pathlib import Path

import jwt
import pytest

from broker.config import Config
from broker.errors import (
    BadUserNameOrPassword,
    ConfigError,
    LoginRefused,
    PeerError,
    ProofFailed,
    TooManyLogins,
)
from broker.registry.access import logins as module
from broker.registry.access.failures import FREE, PAUSE_FIRST_S, WAIT_MAX_S
from broker.registry.access.logins import REMEMBERED_S, Applicant, Logins
from broker.security import passwords
from broker.security.names import ANONYMOUS, Login
from tests.support.passwords import ARGON2ID, PBKDF2, SHA512, user
from tests.support.world import World

ANNA = Login("anna", by_password=True)


class LoggedIn:
    def __init__(self) -> None:
        self.dismissed: list[PeerError] = []

    def dismiss(self, error: PeerError) -> None:
        self.dismissed.append(error)


@pytest.fixture
async def logins(world: World) -> Logins:
    await world.users.put(user("anna"))
    return world.logins


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The hashes that were compared."""
    made: list[str] = []
    real = passwords.fits

    def counted(password: bytes, kept: str) -> bool:
        made.append(kept)
        return real(password, kept)

    monkeypatch.setattr(passwords, "fits", counted)
    return made


def who(
    name: str | None = "anna",
    password: bytes | None = b"secret",
    host: str = "192.0.2.1",
    *,
    anonymous: bool = False,
    certificate: str | None = None,
) -> Applicant:
    return Applicant(name, password, host, anonymous, certificate, 100)


async def fails(logins: Logins, *times: Applicant) -> None:
    for applicant in times:
        with pytest.raises(BadUserNameOrPassword):
            await logins.login(applicant)


async def test_without_users_everybody_is_anonymous(world: World, made: list[str]) -> None:
    for one in (who(), who(None, None), who("", b"")):
        assert await world.logins.login(one) == Login(ANONYMOUS, may_stay=False)
    assert made == []


async def test_with_users_only_the_password_opens(logins: Logins) -> None:
    assert await logins.login(who()) == ANNA
    await fails(logins, who(password=b"Secret"), who(password=None), who("bob"), who("", b""))
    assert logins.counts.failed == 4


async def test_who_gives_no_name_is_anonymous_where_that_is_allowed(logins: Logins) -> None:
    with pytest.raises(LoginRefused) as refused:
        await logins.login(who(None, None))
    assert refused.value.reason_code == 0x87
    assert await logins.login(who(None, None, anonymous=True)) == Login(ANONYMOUS)
    await fails(logins, who(ANONYMOUS, b"", anonymous=True))


async def test_a_certificate_of_a_user_needs_no_password(logins: Logins, made: list[str]) -> None:
    assert await logins.login(who(None, None, certificate="anna")) == Login("anna")
    assert await logins.login(who("anna", None, certificate="anna")) == Login("anna")
    await fails(logins, who(None, None, certificate="bob"), who("bob", b"", certificate="anna"))
    assert len(made) == 1


async def test_what_was_right_is_remembered_for_a_while(
    world: World, logins: Logins, made: list[str]
) -> None:
    for _ in range(3):
        await logins.login(who())
    assert len(made) == 1
    await fails(logins, who(password=b"secret "))
    world.clock.advance(REMEMBERED_S - 1)
    await logins.login(who())
    world.clock.advance(REMEMBERED_S + 1)
    await logins.login(who())
    assert made == [ARGON2ID] * 3


async def test_who_is_connected_is_remembered(
    world: World, logins: Logins, made: list[str]
) -> None:
    one = LoggedIn()
    logins.came(one, await logins.login(who()))
    world.clock.advance(10 * REMEMBERED_S)
    await logins.login(who())
    world.clock.advance(10 * REMEMBERED_S)
    logins.left(one, ANNA)
    await logins.login(who())
    assert len(made) == 1


async def test_another_password_makes_forget_the_old_one(world: World, logins: Logins) -> None:
    await logins.login(who())
    await world.users.put(replace(user("anna"), password=passwords.hashed(b"new")))
    await fails(logins, who())
    assert await logins.login(who(password=b"new")) == ANNA
    await world.users.remove("anna")
    await world.users.put(user("bob"))
    await fails(logins, who(password=b"new"))


async def test_nothing_that_is_remembered_is_the_password(logins: Logins) -> None:
    await logins.login(who())
    assert b"secret" not in repr(logins._remembered).encode()
    assert logins._key not in repr(logins._remembered).encode()


@pytest.mark.parametrize("kept", [SHA512, PBKDF2])
async def test_an_older_form_is_kept_in_ours_from_the_first_login_on(
    world: World, logins: Logins, kept: str
) -> None:
    await world.users.put(user("anna", kept))
    guest = LoggedIn()
    world.users.enter(guest, ANNA)
    await fails(logins, who(password=b"wrong"))
    assert world.users.by_name["anna"].password == kept
    await logins.login(who())
    assert passwords.is_ours(world.users.by_name["anna"].password)
    assert await logins.login(who()) == ANNA
    assert guest.dismissed == []


async def test_a_full_disk_keeps_nobody_out(world: World, logins: Logins) -> None:
    await world.users.put(user("anna", SHA512))
    world.disk.full = True
    assert await logins.login(who()) == ANNA


async def test_after_some_failures_an_address_waits_and_others_do_not(
    world: World, logins: Logins, made: list[str]
) -> None:
    await fails(logins, *[who(password=b"wrong")] * FREE)
    waiting = asyncio.create_task(logins.login(who()))
    assert await logins.login(who(host="192.0.2.2")) == ANNA
    assert not waiting.done()
    assert len(made) == FREE + 1
    assert await logins.login(who()) == ANNA  # It is remembered by now.
    assert logins.counts.delayed == 1
    world.clock.advance(PAUSE_FIRST_S)
    assert await waiting == ANNA


async def test_too_many_that_wait_are_refused_unread(
    world: World, logins: Logins, made: list[str]
) -> None:
    await fails(logins, *[who(password=b"wrong")] * FREE)
    many = [asyncio.create_task(logins.login(who(password=b"wrong"))) for _ in range(100)]
    for _ in range(5):
        await asyncio.sleep(0)
    refused = [task for task in many if task.done()]
    assert len(refused) == 100 - WAIT_MAX_S // PAUSE_FIRST_S
    assert all(isinstance(task.exception(), TooManyLogins) for task in refused)
    assert (logins.counts.refused, len(made)) == (len(refused), FREE)
    world.clock.advance(WAIT_MAX_S)
    for task in many:
        with pytest.raises(LoginRefused):
            await task
    assert logins.values() == {
        "logins/failed": FREE + 60,
        "logins/delayed": 60,
        "logins/refused": 40,
    }
    assert logins.status()["logins_failed"] == FREE + 60


async def test_a_failure_is_told_without_the_password(
    logins: Logins, caplog: pytest.LogCaptureFixture
) -> None:
    await fails(logins, who(password=b"sesame"), who("bob", b"sesame", host=""))
    assert caplog.messages == [
        "login of user 'anna' from 192.0.2.1 failed: wrong password",
        "login of user 'bob' from this machine failed: no such user",
    ]
    assert {record.levelno for record in caplog.records} == {logging.WARNING}


async def test_a_user_who_is_removed_meanwhile_does_not_come_in(
    world: World, logins: Logins, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.users.put(user("bob"))
    login = asyncio.create_task(logins.login(who()))
    await asyncio.sleep(0)
    await world.users.remove("anna")
    with pytest.raises(BadUserNameOrPassword):
        await login
    assert module.REMEMBERED_S


# A proof in place of the password


async def test_who_proved_to_be_a_user_comes_in_as_that(logins: Logins) -> None:
    proved = replace(who(None, None), authenticated_user="anna")
    assert await logins.login(proved) == ANNA
    assert await logins.login(replace(proved, name="anna")) == ANNA
    for one in (replace(proved, name="bob"), replace(proved, authenticated_user="zoe")):
        with pytest.raises(BadUserNameOrPassword):
            await logins.login(one)


def proof(logins: Logins, *, again: bool = False) -> None:
    """A wrong one."""
    exchange = logins.scram("192.0.2.1", again=again)
    exchange.step(b"n,,n=anna,r=x")
    exchange.step(b"c=biws,r=x,p=eA==")


async def test_proofs_that_fail_count_and_wait_like_passwords(world: World, logins: Logins) -> None:
    with pytest.raises(ProofFailed) as raised:
        proof(logins)
    wrong = replace(who(None, None), host="192.0.2.1", failed_proof_of=raised.value.user)
    right = replace(wrong, failed_proof_of=None, authenticated_user="anna")
    for _ in range(FREE):
        await fails(logins, wrong)
    assert logins.counts.failed == FREE
    for one in (right, wrong):
        waits = asyncio.create_task(logins.login(one))
        await world.settled()
        assert not waits.done()
        world.clock.advance(PAUSE_FIRST_S)
        if one is right:
            assert await waits == ANNA
        else:
            with pytest.raises(BadUserNameOrPassword):
                await waits
    assert logins.counts.delayed == 2
    assert await logins.login(replace(right, host="192.0.2.2")) == ANNA


async def test_who_is_in_and_fails_to_prove_it_again_is_counted_at_once(logins: Logins) -> None:
    with pytest.raises(BadUserNameOrPassword) as raised:
        proof(logins, again=True)
    assert not isinstance(raised.value, ProofFailed)
    assert logins.counts.failed == 1


async def test_who_has_left_costs_no_hash(logins: Logins, made: list[str]) -> None:
    with pytest.raises(LoginRefused, match="has left"):
        await logins.login(replace(who(), has_left=lambda: True))
    assert made == []
    assert logins.counts.failed == 0


# Tokens


@pytest.fixture
async def by_token(world: World, tmp_path: Path) -> Logins:
    """With the user anna, and keys for tokens."""
    await world.users.put(user("anna"))
    path = tmp_path / "keys.json"
    key = base64.urlsafe_b64encode(SECRET).decode()
    path.write_text(json.dumps({"keys": [{"kty": "oct", "alg": "HS256", "k": key}]}))
    config = Config(jwt_keys=path, jwt_roles_claim="groups")
    return Logins(world.users, world.clock, config, world.alarm.deadline_moved)


SECRET = b"a secret of thirty-two bytes or so"


def token(world: World, user: str, lasts_s: float = 60) -> bytes:
    claims = {"sub": user, "groups": ["a"], "exp": world.clock.wall_us() / 1e6 + lasts_s}
    return jwt.encode(claims, SECRET, "HS256").encode()


async def test_a_token_is_taken_as_a_password(world: World, by_token: Logins) -> None:
    for name in (None, "", "zoe"):
        login = await by_token.login(who(name, token(world, "zoe")))
        assert (login.user, login.roles) == ("zoe", ("a",))
    await fails(by_token, who("anna", token(world, "zoe")), who(None, token(world, "zoe", -1)))
    assert await by_token.login(who()) == ANNA


async def test_who_came_by_a_token_goes_when_that_runs_out(world: World, by_token: Logins) -> None:
    guests = {lasts_s: LoggedIn() for lasts_s in (60, 120)}
    for lasts_s, guest in guests.items():
        by_token.came(guest, await by_token.login(who(None, token(world, "zoe", lasts_s))))
    left = LoggedIn()
    login = await by_token.login(who(None, token(world, "zoe", 30)))
    by_token.came(left, login)
    by_token.left(left, login)
    for wait_s in (30, 30):
        deadline = by_token.deadline()
        assert deadline is not None
        assert deadline - world.clock.monotonic() == pytest.approx(wait_s, abs=0.01)
        world.clock.advance(wait_s)
        by_token.expire(world.clock.now())
    assert [error.reason_code for error in guests[60].dismissed] == [0x87]
    assert guests[120].dismissed == left.dismissed == []


async def test_keys_that_cannot_be_read_again_stay(
    world: World, by_token: Logins, tmp_path: Path
) -> None:
    bad, none = tmp_path / "bad.json", tmp_path / "none.json"
    bad.write_text("nonsense")
    for path in (bad, none):
        with pytest.raises(ConfigError):
            await by_token.renewal(Config(jwt_keys=path))
    assert (await by_token.login(who(None, token(world, "zoe")))).user == "zoe"
    renew = await by_token.renewal(Config())
    assert (await by_token.login(who(None, token(world, "zoe")))).user == "zoe", "not in force yet"
    renew()
    await fails(by_token, who("zoe", token(world, "zoe")))


async def test_without_users_nobody_comes_in_where_others_could(world: World) -> None:
    world.users.must_exist = lambda: True
    with pytest.raises(LoginRefused, match="no users"):
        await world.logins.login(who())
