"""Users: who may come in. All of them are in memory; the log has them as documents.

A change counts for everybody as soon as it is stored, also for who is connected: without the user
there is no connection (0x98), and none goes on with a password that is not the user's any more
(0x87). While there is no user at all, everybody is `anonymous` and may do everything. When the
first is made, that ends.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Protocol

from broker.config import Config
from broker.documents import Delete, Operation, Put, RuleDocument, UserDocument
from broker.documents.quotas import QuotaDocument, RetainedByDocument
from broker.errors import (
    CommandRefused,
    ConfigError,
    NotAuthorized,
    NotFound,
    PeerError,
    QuotaExceeded,
    UserRemoved,
)
from broker.log.log import Log
from broker.registry.access.rereading import newest_of
from broker.security.names import ANONYMOUS, Login, validate_role, validate_user
from broker.settings.listeners import is_loopback, no_such_host

USERS_MAX = 100_000
"""About 500 bytes of memory each."""
DISMISSED_AT_ONCE_MAX = 50
"""Connections that one turn of the loop ends: about 5 ms."""

logger = logging.getLogger(__name__)


CHANGED = NotAuthorized("the user has another password now")
NOT_ALONE = NotAuthorized("there are users now: say who you are")
REMOVED = UserRemoved("the user was removed")
"""Why a connection ends."""


class Guest(Protocol):
    """A connection that has logged in."""

    def dismiss(self, error: PeerError) -> None:
        """End it, and say why."""
        ...


class Users:
    def __init__(self, log: Log) -> None:
        self._log = log
        self._by_name: dict[str, UserDocument] = {}
        self._guests: dict[str, dict[Guest, Login]] = {}
        """Who is connected, by user."""
        self.must_exist: Callable[[], bool] = lambda: False
        """Whether others could connect without a password if there was no user."""
        self._watching: list[Callable[[Sequence[str]], None]] = []
        self._changes = 0
        """How often there were other users here."""

    async def start(self) -> None:
        """Raises StoreError."""
        self._by_name |= {user.name: user for user in await self._log.store.scan(UserDocument)}

    async def read_again(self, names: Collection[str]) -> None:
        """Another broker that shares the log has changed these. Raises StoreError."""
        found = await newest_of(self._log.store, UserDocument, names, lambda: self._changes)
        before = {name: self._by_name.get(name) for name in found}
        changed = [name for name, user in found.items() if before[name] != user]
        first = not self._by_name
        for name in changed:
            self._by_name.pop(name, None)
            if (user := found[name]) is not None:
                self._by_name[name] = user
        if changed:
            self._tell(*changed)
        for name in changed:
            old = before[name]
            if (user := found[name]) is None:
                await self.dismiss(name, REMOVED)
            elif old is not None and _has_another(old, user):
                await self.dismiss(name, CHANGED, lambda login: login.by_password)
        if first and self._by_name:
            await self.dismiss(ANONYMOUS, NOT_ALONE, lambda login: not login.may_stay)

    def watch(self, changed: Callable[[Sequence[str]], None]) -> None:
        """Call it with the names of users that are new, or others than before, or gone; once for
        all that change together."""
        self._watching.append(changed)

    @property
    def exist(self) -> bool:
        """Whether there are any. If not, nobody is asked who he is."""
        return bool(self._by_name)

    @property
    def by_name(self) -> Mapping[str, UserDocument]:
        return self._by_name

    def get(self, name: str) -> UserDocument | None:
        return self._by_name.get(name)

    # Changes

    async def put(self, *users: UserDocument) -> None:
        """Add or change them, all or none. Raises CommandRefused, QuotaExceeded, StoreError."""
        for user in users:
            validate_user(user.name)
            for role in user.role_names:
                validate_role(role)
        new = {user.name for user in users} - self._by_name.keys()
        if len(self._by_name) + len(new) > USERS_MAX:
            raise QuotaExceeded(f"there are more than {USERS_MAX} users then")
        await self._log.commit_now([Put(user) for user in users], keep_if_full=False)
        first = not self.exist
        other = [
            user.name
            for user in users
            if (old := self.get(user.name)) is not None and old.password != user.password
        ]
        self._by_name |= {user.name: user for user in users}
        self._changes += 1
        self._tell(*[user.name for user in users])
        for name in other:
            await self.dismiss(name, CHANGED, lambda login: login.by_password)
        if first:
            await self.dismiss(ANONYMOUS, NOT_ALONE, lambda login: not login.may_stay)

    async def rehashed(self, before: UserDocument, user: UserDocument) -> None:
        """The same user with the same password, kept in another form. Of no effect if it is another
        by now. Raises StoreError."""
        if self.get(user.name) is before:
            self._by_name[user.name] = user
            self._changes += 1
            await self._log.commit_now([Put(user)], keep_if_full=False)

    async def remove(self, name: str) -> None:
        """Its rules and its quota go with it: whoever has that name later has none of them. Raises
        NotFound, CommandRefused, StoreError."""
        if name not in self._by_name:
            raise NotFound(f"there is no user {name}", "`pubsub user ls` lists them")
        if self.must_exist() and len(self._by_name) == 1:
            raise CommandRefused(
                f"{name} is the last user: then everybody could connect from elsewhere",
                "add another first, or stop the broker and start it on this machine alone",
            )
        operations: list[Operation] = [
            Delete(UserDocument, (name,)),
            Delete(RuleDocument, (name, False)),
            Delete(QuotaDocument, ("user", name)),
            Delete(RetainedByDocument, (name,)),
        ]
        await self._log.commit_now(operations, keep_if_full=False)
        self._by_name.pop(name, None)
        self._changes += 1
        self._tell(name)
        await self.dismiss(name, REMOVED)

    def _tell(self, *names: str) -> None:
        for changed in self._watching:
            changed(names)

    # Who is connected

    def enter(self, guest: Guest, login: Login) -> None:
        self._guests.setdefault(login.user, {})[guest] = login

    def leave(self, guest: Guest, login: Login) -> None:
        guests = self._guests.get(login.user, {})
        guests.pop(guest, None)
        if not guests:
            self._guests.pop(login.user, None)

    def is_connected(self, name: str) -> bool:
        return name in self._guests

    def guests(self, name: str) -> Mapping[Guest, Login]:
        """The connections of a user."""
        return self._guests.get(name, {})

    async def dismiss(
        self, name: str, error: PeerError, which: Callable[[Login], bool] = lambda _: True
    ) -> None:
        """End the connections of a user, or some of them, a few in each turn of the loop."""
        ending = [guest for guest, login in self.guests(name).items() if which(login)]
        for number, guest in enumerate(ending, 1):
            dismiss_one(guest, error)
            if number % DISMISSED_AT_ONCE_MAX == 0:
                await asyncio.sleep(0)


def _has_another(before: UserDocument, user: UserDocument) -> bool:
    """Whether the user has another password, and not the same one kept in another form."""
    return before.password != user.password and before.changed_at_us != user.changed_at_us


def renewal_of(users: Users) -> Callable[[Config], Awaitable[Callable[[], None]]]:
    """Refuses settings with which others could connect without a password. Raises ConfigError."""

    async def prepare(config: Config) -> Callable[[], None]:
        await _require_users(users, config)
        return lambda: None

    return prepare


def dismiss_one(guest: Guest, error: PeerError) -> None:
    """What goes wrong with one of them is told, and keeps no other."""
    try:
        guest.dismiss(error)
    except Exception as failure:
        logger.critical("a connection was not ended: %s", error.reason, exc_info=failure)


async def expect_users(users: Users, config: Config) -> None:
    """Raises ConfigError: others could connect without a password. Otherwise one user stays."""
    users.must_exist = lambda: config.open_host is not None  # A reload may change that.
    await _require_users(users, config)


async def _require_users(users: Users, config: Config) -> None:
    """Says also where others may connect without one, as somebody wanted."""
    if users.exist:
        return
    if (host := config.open_host) is not None:
        setting = "listeners.host" if config.listeners else "host"
        try:  # A name that is misspelt concerns no user.
            await asyncio.get_running_loop().getaddrinfo(host or None, 0)
        except (OSError, UnicodeError) as error:
            raise no_such_host(setting, host, error) from error
        raise ConfigError(
            setting,
            host,
            "others could connect without a password; make a user with `pubsub user add NAME"
            f" --admin --data-dir {config.data_dir}`, or add --allow-anonymous if that is meant",
        )
    for listener in config.every_listener:
        if not (listener.port is None or listener.administers or is_loopback(listener.host)):
            logger.warning(
                "whoever reaches %s:%d may read and publish everything: there is no user",
                *(listener.host, listener.port),
            )
