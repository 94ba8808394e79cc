"""Accounts: what an operator does to users: add, another password, other roles, remove, list,
import.

Passwords come as what is kept of them: who asks has hashed them.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from broker.clock import Clock
from broker.documents import UserDocument
from broker.errors import CommandInvalid, CommandRefused, NotFound
from broker.message import WallUs
from broker.registry.access.users import Users
from broker.security.names import ANONYMOUS, STANDARD, validate_role
from broker.security.passwords import refusal
from broker.security.scram import refusal as scram_refusal

logger = logging.getLogger(__name__)

LIST = "`pubsub user ls` lists them"


@dataclass(slots=True, frozen=True)
class Account:
    """A user, for people. `first`: while it was made, there was none."""

    name: str
    roles: tuple[str, ...]
    kept_as: str
    scram: bool
    connections: int
    created_at_us: WallUs
    changed_at_us: WallUs
    first: bool = False


class Accounts:
    def __init__(self, users: Users, clock: Clock) -> None:
        self._users = users
        self._clock = clock

    def all(self) -> list[Account]:
        """By name."""
        users = self._users
        return [self._account(users.by_name[name]) for name in sorted(users.by_name)]

    async def add(
        self, name: str, password: str, scram: str = "", roles: Sequence[str] = (STANDARD,)
    ) -> Account:
        """Raises CommandRefused, QuotaExceeded, StoreError."""
        if self._users.get(name) is not None:
            raise CommandRefused(f"there is a user {name} already", f"pubsub user passwd {name}")
        _check(password, scram)
        now_us, first = self._clock.wall_us(), not self._users.exist
        user = UserDocument(name, password, scram, _joined(roles), now_us, now_us)
        await self._users.put(user)
        return self._account(user, first=first)

    async def set_password(self, name: str, password: str, scram: str = "") -> Account:
        """What is connected with the old one is disconnected. Raises CommandRefused, StoreError."""
        if (user := self._users.get(name)) is None:
            raise NotFound(f"there is no user {name}", LIST)
        if name == ANONYMOUS:
            raise CommandInvalid(f"{ANONYMOUS} is who gives no name, and so has no password")
        _check(password, scram)
        now_us = self._clock.wall_us()
        user = replace(user, password=password, scram=scram, changed_at_us=now_us)
        await self._users.put(user)
        return self._account(user)

    async def set_roles(self, name: str, roles: Sequence[str]) -> Account:
        """In place of those that it has; who is connected has them at once. Raises CommandRefused,
        StoreError."""
        if (user := self._users.get(name)) is None:
            raise NotFound(f"there is no user {name}", LIST)
        now_us = self._clock.wall_us()
        user = replace(user, roles=_joined(roles), changed_at_us=now_us)
        await self._users.put(user)
        logger.info("user %r has %s, by command", name, user.roles or "no role")
        return self._account(user)

    async def remove(self, name: str) -> Account:
        """Its connections end. Raises CommandRefused, StoreError."""
        if (user := self._users.get(name)) is None:
            raise NotFound(f"there is no user {name}", LIST)
        account = self._account(user)
        await self._users.remove(name)
        return account

    async def take(self, passwords: Mapping[str, str]) -> list[str]:
        """Make users of these, by name, with what is kept of their passwords; those that are there
        already stay as they are, and are returned. Raises CommandRefused, QuotaExceeded,
        StoreError: then none was made."""
        known = [name for name in passwords if self._users.get(name) is not None]
        new = {name: kept for name, kept in passwords.items() if name not in known}
        for kept in new.values():
            _check(kept)
        now_us = self._clock.wall_us()
        if new:
            await self._users.put(
                *[
                    UserDocument(name, kept, "", STANDARD, now_us, now_us)
                    for name, kept in new.items()
                ]
            )
        return known

    def _account(self, user: UserDocument, *, first: bool = False) -> Account:
        return account_of(user, len(self._users.guests(user.name)), first=first)


def account_of(user: UserDocument, connections: int = 0, *, first: bool = False) -> Account:
    return Account(
        user.name,
        user.role_names,
        user.password.split("$")[1] if user.password else "",
        bool(user.scram),
        connections,
        user.created_at_us,
        user.changed_at_us,
        first,
    )


def _joined(roles: Sequence[str]) -> str:
    """Raises CommandRefused: one is none."""
    for role in roles:
        validate_role(role)
    return " ".join(dict.fromkeys(roles))


def _check(password: str, scram: str = "") -> None:
    """Raises CommandInvalid. Empty: nothing fits, only a certificate lets the user in."""
    if password and (why := refusal(password)):
        raise CommandInvalid(f"that is no hash of a password: {why}")
    if scram and (why := scram_refusal(scram)):
        raise CommandInvalid(why)
