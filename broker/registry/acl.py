"""Acl: what an operator does to rules: add, remove, list, ask which one decides, import."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from broker.documents import RuleDocument
from broker.errors import NotFound
from broker.registry.permissions import Permissions
from broker.registry.users import Users
from broker.security.names import ANONYMOUS, STANDARD
from broker.security.rules import BUILT_IN, Right, Rule, document_of, rule_of


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
    """Whether it is allowed; `rule` decided. None: there is no user yet, or no rule says so."""

    allowed: bool
    rule: Listed | None
    roles: tuple[str, ...]


class Acl:
    def __init__(self, permissions: Permissions, users: Users) -> None:
        self._permissions = permissions
        self._users = users

    async def add(self, rules: Sequence[RuleDocument]) -> int:
        """How many are new. Raises CommandRefused, QuotaExceeded, StoreError; ValueError: that is
        no right."""
        return await self._permissions.add([*map(rule_of, rules)])

    async def remove(self, rules: Sequence[RuleDocument]) -> int:
        """As `add`. Raises NotFound, too."""
        await self._permissions.remove([*map(rule_of, rules)])
        return len(rules)

    def all(self) -> list[Listed]:
        """By holder, those that roles always have in front."""
        built_in = [rule for rules in BUILT_IN.values() for rule in rules]
        return [*map(listed, built_in), *map(listed, self._permissions.listed())]

    def check(self, user: str, right: str, topic_filter: str, client_id: str) -> Checked:
        """Of a user, with this client identifier. Raises NotFound; ValueError: that is no right."""
        known = self._users.get(user)
        if known is None and user != ANONYMOUS:
            raise NotFound(f"there is no user {user}", "`pubsub user ls` lists them")
        rights = self._permissions.rights(user, None, client_id)
        verdict = rights.explain(Right(right), topic_filter)
        rule = None if verdict.rule is None else listed(verdict.rule)
        return Checked(verdict.allowed is True, rule, () if known is None else known.role_names)

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
