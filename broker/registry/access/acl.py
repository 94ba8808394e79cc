"""Acl: what an operator does to rules: add, remove, list, ask which one decides, import."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from broker.documents import RuleDocument
from broker.errors import CommandInvalid, NotFound, PeerError
from broker.registry.access.permissions import Permissions
from broker.registry.access.users import Users
from broker.replay.spec import split_filter
from broker.security.names import ANONYMOUS, STANDARD
from broker.security.rules import (
    BUILT_IN,
    EVERYONE,
    Right,
    Rule,
    document_of,
    rule_of,
)
from broker.topics import REPLAY_PREFIX, is_shared, parse_delayed, parse_shared, validate_filter


@dataclass(slots=True, frozen=True)
class Listed:
    """A rule, for people. `built_in`: its role always has it."""

    name: str
    is_role: bool
    allow: bool
    access: str
    filter: str
    built_in: bool = False


@dataclass(slots=True, frozen=True)
class Checked:
    """Whether it is allowed; `rule` decided, or several together: these `beside` it. None: there is
    no user yet, or no rule says so. `access`: the right that is missing, where what was asked takes
    several."""

    allowed: bool
    rule: Listed | None
    roles: tuple[str, ...]
    access: str
    beside: tuple[Listed, ...]


class Acl:
    def __init__(self, permissions: Permissions, users: Users) -> None:
        self._permissions = permissions
        self._users = users

    async def add(self, rules: Sequence[RuleDocument]) -> int:
        """How many are new. Raises CommandInvalid, QuotaExceeded, StoreError; ValueError: that is
        no right."""
        return await self._permissions.add([*map(rule_of, rules)])

    async def remove(self, rules: Sequence[RuleDocument]) -> int:
        """As `add`. Raises NotFound, too."""
        await self._permissions.remove([*map(rule_of, rules)])
        return len(rules)

    def all(self) -> list[Listed]:
        """By holder, those that roles always have at the end: nobody looks for them."""
        built_in = [rule for rules in BUILT_IN.values() for rule in rules]
        return [*map(listed, self._permissions.listed()), *map(listed, built_in)]

    def check(self, user: str, right: str, topic_filter: str, client_id: str) -> Checked:
        """Of a user, with this client identifier: as its PUBLISH or SUBSCRIBE is judged. Raises
        NotFound; CommandInvalid: there is no such topic; ValueError: that is no right."""
        taken, inner = what_it_takes(Right(right), topic_filter)
        known = self._users.get(user)
        if known is None and user != ANONYMOUS:
            raise NotFound(f"there is no user {user}", "`pubsub user ls` lists them")
        rights = self._permissions.rights(user, None, client_id)
        verdicts = [(each, rights.explain(each, inner)) for each in taken]
        access, verdict = next(
            (found for found in verdicts if not found[1].allowed), (Right(right), verdicts[-1][1])
        )
        rule = None if verdict.rule is None else listed(verdict.rule)
        roles = () if known is None else known.role_names
        beside = (*map(listed, verdict.beside),)
        return Checked(verdict.allowed is True, rule, roles, str(access), beside)

    def unknown(self, rules: Sequence[RuleDocument]) -> list[Listed]:
        """Those that nobody here has: of no user, or of a role that no user has."""
        users = self._users.by_name
        roles = {*BUILT_IN, EVERYONE.name}.union(*[user.role_names for user in users.values()])
        return [
            listed(rule_of(rule))
            for rule in rules
            if rule.name not in (roles if rule.is_role else {*users, ANONYMOUS})
        ]

    async def take(self, rules: Sequence[RuleDocument]) -> list[str]:
        """Add rules that are all that is allowed: whoever has the role `standard` does not have it
        any more, and is returned. Raises as `add`."""
        await self.add(rules)
        users = [user for user in self._users.by_name.values() if STANDARD in user.role_names]
        left = [
            replace(user, roles=" ".join([r for r in user.role_names if r != STANDARD]))
            for user in users
        ]
        if left:
            await self._users.put(*left)
        return sorted(user.name for user in left)


def what_it_takes(right: Right, topic_filter: str) -> tuple[Sequence[Right], str]:
    """Which rights, and to what, if a client names this topic, or this Topic Filter. Raises
    CommandInvalid: it cannot."""
    taken: Sequence[Right] = [right]
    try:
        if right is Right.PUBLISH and (delayed := parse_delayed(topic_filter)) is not None:
            topic_filter = delayed[1]
        elif right is Right.READ_HISTORY or topic_filter.startswith(REPLAY_PREFIX):
            taken = Right.SUBSCRIBE, Right.READ_HISTORY
            _, topic_filter = split_filter(topic_filter) or ("", topic_filter)
        if (shared := parse_shared(topic_filter) if is_shared(topic_filter) else None) is not None:
            topic_filter = shared[1]
        validate_filter(topic_filter)
    except PeerError as error:
        raise CommandInvalid(error.reason) from None
    return taken, topic_filter


def listed(rule: Rule) -> Listed:
    document = document_of(rule)
    return Listed(
        document.name,
        document.is_role,
        document.allow,
        document.access,
        document.filter,
        rule in BUILT_IN.get(document.name, ()),
    )
