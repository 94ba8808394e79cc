"""Logins: who comes with a name and a password is the user, or is refused.

- Hashes are made beside the loop (`hashing`). What was right is remembered as a keyed hash, as long
  as the user is connected and REMEMBERED_S longer: so thousands that come back at once are in at
  once. The key is this process's own.
- An unknown user costs the same time as a wrong password.
- A login that fails is counted and told, never with its password. After some of them, others from
  the address wait (`failures`); who is remembered does not.
- A JSON Web Token is taken as a password where the operator gave keys for that, once there are
  users. Who came in by one is disconnected when it runs out.
- A password that is kept in an older form is kept in ours from its first login on.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import secrets
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace

from broker.clock import US, Clock, Instant
from broker.config import Config
from broker.documents import UserDocument
from broker.errors import (
    BadUserNameOrPassword,
    LoginRefused,
    NotAuthorized,
    StoreError,
    TooManyLogins,
)
from broker.message import Monotonic
from broker.registry.access.expiring import Expiring
from broker.registry.access.failures import Failures, address_of
from broker.registry.access.hashing import Hashing
from broker.registry.access.users import Guest, Users, dismiss_one
from broker.security import passwords
from broker.security.names import ANONYMOUS, Login
from broker.security.scram import ScramExchange
from broker.security.tokens import Claims, TokenRefused, Tokens, is_token

REMEMBERED_S = 3600.0
TOO_MANY_FAILED = "too many logins from this address have failed, try again later"

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Applicant:
    """Who wants to come in. `host`: the IP address, "": a Unix socket. `size`: bytes that are kept
    of the connection while it waits. `certificate_user`: whom its TLS certificate names;
    `authenticated_user`: who proved to be that; `failed_proof_of`: and who did not. `has_left`:
    whether nobody waits for the answer any more."""

    name: str | None
    password: bytes | None
    host: str
    allow_anonymous: bool
    certificate_user: str | None = None
    size: int = 0
    authenticated_user: str | None = None
    failed_proof_of: str | None = None
    has_left: Callable[[], bool] = lambda: False


@dataclass(slots=True)
class Counts:
    """`failed` had a wrong password or no such user, or named none; `delayed` waited as others from
    their address had failed; `refused` were not looked at, as too many waited."""

    failed: int = 0
    delayed: int = 0
    refused: int = 0


@dataclass(slots=True)
class _Remembered:
    digest: bytes
    kept: str
    """What of the password was in force then."""
    used_at: Monotonic


class Logins:
    """`deadline_moved` is called when a token may run out earlier than any before."""

    def __init__(
        self, users: Users, clock: Clock, config: Config, deadline_moved: Callable[[], None]
    ) -> None:
        """Raises ConfigError: the keys of tokens cannot be read."""
        self._users = users
        self._tokens = _tokens(config)
        self._expiring = Expiring(deadline_moved)
        self.counts = Counts()
        self._clock = clock
        self.hashing = Hashing()
        self._failures = Failures()
        self._key = secrets.token_bytes(32)
        self._remembered: dict[str, _Remembered] = {}
        """By user: as many as there are users, at most."""

    async def login(self, who: Applicant) -> Login:
        """Raises LoginRefused."""
        if who.authenticated_user is not None or who.failed_proof_of is not None:
            address = address_of(who.host)
            await self._wait(who, address)
            if who.failed_proof_of is not None:
                self._failures.failed(address, self._clock.monotonic())
                raise self._refused(who, who.failed_proof_of, "wrong proof")
        login = self.at_once(who)
        return login or await self._by_password(who, who.name or "", who.password or b"")

    def at_once(self, who: Applicant) -> Login | None:
        """Without a password; None: it takes one. Raises LoginRefused."""
        users = self._users
        if not users.exist and users.must_exist():
            raise LoginRefused("there are no users yet")
        if not users.exist:
            return Login(ANONYMOUS, may_stay=who.allow_anonymous)
        if who.certificate_user is not None and who.name in (None, who.certificate_user):
            if users.get(who.certificate_user) is None:
                raise self._refused(who, who.certificate_user, "the certificate's user is not here")
            return Login(who.certificate_user)
        if who.authenticated_user is not None:
            if users.get(who.authenticated_user) is None or who.name not in (
                *(None, who.authenticated_user),
            ):
                raise self._refused(who, who.authenticated_user, "the proof is of another user")
            return Login(who.authenticated_user, by_password=True)
        if self._tokens is not None and is_token(who.password or b""):
            return self._by_token(self._tokens, who, who.password or b"")
        if who.name is None:
            if who.allow_anonymous:
                return Login(ANONYMOUS)
            logger.info("%s gave no user name: refused", _from(who))
            self.counts.failed += 1
            raise LoginRefused("give a user name and a password")
        return None

    def _by_token(self, tokens: Tokens, who: Applicant, token: bytes) -> Login:
        try:
            login = tokens.login(token, self._clock.wall_us() / US)
            if who.name not in (None, "", login.user):
                raise TokenRefused("the token is of another user")
        except TokenRefused as error:
            self._failures.failed(address_of(who.host), self._clock.monotonic())
            raise self._refused(who, who.name or "", str(error)) from error
        return login

    async def renewal(self, config: Config) -> Callable[[], None]:
        """Reads the keys of tokens; what it returns puts them in force. Raises ConfigError."""
        tokens = await asyncio.to_thread(_tokens, config)

        def renew() -> None:
            self._tokens = tokens

        return renew

    async def _by_password(self, who: Applicant, name: str, password: bytes) -> Login:
        user = self._users.get(name)
        if user is not None and self._is_remembered(user, password):
            return Login(name, by_password=True)
        address = address_of(who.host)
        await self._wait(who, address)
        kept = user.password if user is not None else ""
        try:
            fits = await self.hashing.run(
                address,
                who.size,
                lambda: passwords.fits(password, kept),
                who.has_left,
            )
        except TooManyLogins:
            self.counts.refused += 1
            raise
        if user is None or not kept or not fits:
            self._failures.failed(address, self._clock.monotonic())
            raise self._refused(who, name, "no such user" if user is None else "wrong password")
        if self._users.get(name) is not user and (
            (user := self._users.get(name)) is None or user.password != kept
        ):
            raise self._refused(who, name, "the user was changed meanwhile")
        if not passwords.is_ours(kept):
            user = await self._rehash(user, address, password)
        self._remember(user, password)
        return Login(name, by_password=True)

    async def _wait(self, who: Applicant, address: str) -> None:
        """As long as those from there have to. Raises TooManyLogins."""
        wait_s = self._failures.wait_s(address, self._clock.monotonic())
        if wait_s is None:
            self.counts.refused += 1
            raise TooManyLogins(TOO_MANY_FAILED)
        if wait_s:
            self.counts.delayed += 1
            await self._clock.sleep(wait_s)

    async def _rehash(self, user: UserDocument, address: str, password: bytes) -> UserDocument:
        """Keep its password as ours. The login goes on, whatever becomes of that."""
        try:
            kept = await self.hashing.run(address, 0, lambda: passwords.hashed(password))
            after = replace(user, password=kept)
            await self._users.rehashed(user, after)
        except (StoreError, TooManyLogins) as error:
            logger.warning("the password of user %r is kept in its old form: %s", user.name, error)
            return user
        return after

    def _refused(self, who: Applicant, name: str, why: str) -> LoginRefused:
        self.counts.failed += 1
        logger.warning("login of user %r from %s failed: %s", name, _from(who), why)
        return BadUserNameOrPassword("wrong user name or password")

    def scram(self, host: str, *, again: bool = False) -> ScramExchange:
        """For a client that proves to know its password. `again`: it has come in already, and is
        not kept waiting."""
        address = address_of(host)

        def failed(name: str) -> None:
            self._failures.failed(address, self._clock.monotonic())
            self._refused(Applicant(name, None, host, False), name, "wrong proof")

        return ScramExchange(self._scram_keys, failed, self._key, at_once=again)

    def _scram_keys(self, name: str) -> str:
        user = self._users.get(name)
        return "" if user is None else user.scram

    # What is remembered

    def _is_remembered(self, user: UserDocument, password: bytes) -> bool:
        known = self._remembered.get(user.name)
        if known is None:
            return False
        now = self._clock.monotonic()
        lasts = now - known.used_at <= REMEMBERED_S or self._users.is_connected(user.name)
        if known.kept != user.password or not lasts:
            del self._remembered[user.name]
            return False
        if not hmac.compare_digest(known.digest, self._digest(user.name, password)):
            return False
        known.used_at = now
        return True

    def _remember(self, user: UserDocument, password: bytes) -> None:
        digest = self._digest(user.name, password)
        now = self._clock.monotonic()
        self._remembered[user.name] = _Remembered(digest, user.password, now)

    def _digest(self, name: str, password: bytes) -> bytes:
        return hmac.digest(self._key, b"%b\0%b" % (name.encode(), password), "sha256")

    # Who is connected

    def came(self, guest: Guest, login: Login) -> None:
        """It has come in."""
        self._users.enter(guest, login)
        if login.expires_at_s is not None:
            self._expiring.add(guest, login.expires_at_s, self._clock.now())

    def deadline(self) -> Monotonic | None:
        return self._expiring.deadline()

    def expire(self, now: Instant) -> None:
        """Tokens have run out."""
        for guest in self._expiring.take_due(now):
            dismiss_one(guest, NotAuthorized("the token has run out"))

    def left(self, guest: Guest, login: Login) -> None:
        """It is gone. If it had a password, that is remembered from now on."""
        self._users.leave(guest, login)
        self._expiring.remove(guest)
        if login.by_password and (known := self._remembered.get(login.user)) is not None:
            known.used_at = self._clock.monotonic()

    def values(self) -> dict[str, object]:
        """For $SYS."""
        return {f"logins/{name}": count for name, count in asdict(self.counts).items()}

    def status(self) -> dict[str, object]:
        return {f"logins_{name}": count for name, count in asdict(self.counts).items()}

    def stop(self) -> None:
        self.hashing.stop()


def _from(who: Applicant) -> str:
    return who.host or "this machine"


def _tokens(config: Config) -> Tokens | None:
    """Raises ConfigError."""
    if config.jwt_keys is None:
        return None
    claims = Claims(
        config.jwt_issuer, config.jwt_audience, config.jwt_user_claim, config.jwt_roles_claim
    )
    return Tokens(config.jwt_keys, claims)
