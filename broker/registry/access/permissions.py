"""Permissions: the rules of all users and roles. All are in memory; the log has them as documents.

A change counts for everybody as soon as it is stored, also for whoever is connected: `Rights` ask
for the version, and those that remember what may be read are told. While there is no user at
all, nothing is forbidden to anybody.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Protocol

from broker.documents import Author, Delete, Operation, Put, RuleDocument
from broker.errors import NotFound, QuotaExceeded
from broker.log.log import Log
from broker.registry.access.rereading import newest
from broker.registry.access.users import Users
from broker.security.names import validate_role, validate_user
from broker.security.rights import Rights
from broker.security.rules import (
    BUILT_IN,
    EVERYONE,
    Decided,
    Holder,
    Rule,
    Rules,
    document_of,
    rule_of,
    validate,
)

RULES_PER_HOLDER_MAX = 1000
"""So that a SUBSCRIBE looks through few of them, ..."""
RULES_MAX = 20_000
"""... and memory: about 1 KB each, beside a long filter."""
FILTERS_BYTES_MAX = 8 << 20
KEPT_TOGETHER_MAX = 1000
"""Users, each with its roles, whose rules are ready to be asked."""

logger = logging.getLogger(__name__)


class Watcher(Protocol):
    """Who remembers, or has sent on its way, what may be read."""

    def rights_changed(self, *, limited: bool) -> None:
        """Other topics may be read from here on. `limited`: and maybe not all by everybody."""


class Permissions:
    """A `Book` of rights."""

    def __init__(self, log: Log, users: Users) -> None:
        self._log = log
        self._users = users
        users.watch(self._users_changed)
        self.version = 1
        self._watching: list[Watcher] = []
        self._rules: dict[Holder, dict[Rule, None]] = {}
        self._filters_bytes = 0
        self._ready: dict[tuple[str, tuple[str, ...]], tuple[Rules, list[Rule]]] = {}
        """The rules without a client identifier, ready to be asked, and those with one."""
        self._same: dict[tuple[Rule, ...], Rules] = {}
        self._decided = Decided()

    async def start(self, *watchers: Watcher) -> None:
        """`watchers` are told of every change. Raises StoreError."""
        self._watching += watchers
        await self.read_again()

    async def read_again(self) -> None:
        """Another broker that shares the log may have changed rules. Raises StoreError."""
        documents = await newest(self._log.store, RuleDocument, lambda: self.version)
        self._rules.clear()
        self._filters_bytes = 0
        for document in documents:
            self._add(rule_of(document))
        self._renew()

    def rights(self, user: str, roles: Sequence[str] | None, client_id: str) -> Rights:
        """Those of a connection. `roles`: None for those that the user has, at any time; others for
        one that is not among the users here."""
        return Rights(self, user, roles, client_id)

    def may_publish(self, author: Author, topic: str) -> bool:
        """Whether who left a message to this topic, to be published later, may publish it now."""
        if author.user is None:
            return True
        roles = None if author.roles is None else author.roles.split()
        return self.rights(author.user, roles, author.client_id).may_publish(topic)

    def _users_changed(self, names: Sequence[str]) -> None:
        for name in names:
            if self._users.get(name) is None:
                for rule in [*self._rules.get(Holder(name), ())]:
                    self._remove(rule)
        self._renew()

    def _renew(self) -> None:
        """Rules or users are others now."""
        self.version += 1
        self._ready.clear()
        self._same.clear()
        for watcher in self._watching:
            watcher.rights_changed(limited=self._users.exist)

    def rules(
        self, user: str, roles: Sequence[str] | None, client_id: str
    ) -> tuple[Rules, Rules | None] | None:
        if not self._users.exist:
            return None
        if roles is None:
            known = self._users.get(user)
            roles = () if known is None else known.role_names
        key = user, tuple(roles)
        if key not in self._ready:
            if len(self._ready) >= KEPT_TOGETHER_MAX:
                self._ready.clear()
                self._same.clear()
            rules = self.of(user, roles)
            of_client = [rule for rule in rules if rule.of_client]
            self._ready[key] = self._for_all_clients(rules, user), of_client
        shared, of_client = self._ready[key]
        own = Rules(of_client, user, client_id, self._decided) if of_client else None
        return shared, own

    def _for_all_clients(self, rules: Sequence[Rule], user: str) -> Rules:
        """Users whose rules are the same, and do not name them, have the same object."""
        kept = tuple(rule for rule in rules if not rule.of_client)
        if any(rule.of_user for rule in kept):
            return Rules(kept, user, decided=self._decided)
        if kept not in self._same:
            self._same[kept] = Rules(kept, "", decided=self._decided)
        return self._same[kept]

    def of(self, user: str, roles: Sequence[str]) -> list[Rule]:
        """All that count for a user with these roles."""
        return [
            *self._rules.get(Holder(user), ()),
            *(
                rule
                for role in dict.fromkeys([*roles, EVERYONE.name])
                for rule in self.of_role(role)
            ),
        ]

    def of_role(self, role: str) -> list[Rule]:
        return [*BUILT_IN.get(role, ()), *self._rules.get(Holder(role, is_role=True), ())]

    def listed(self) -> list[Rule]:
        """Those that were made, by holder, in the order in which they were made."""
        return [rule for holder in sorted(self._rules) for rule in self._rules[holder]]

    async def add(self, rules: Sequence[Rule]) -> int:
        """How many of them are new. Raises CommandRefused, QuotaExceeded, StoreError: none is
        added."""
        for rule in rules:
            (validate_role if rule.holder.is_role else validate_user)(rule.holder.name)
            validate(rule)
        new = [*dict.fromkeys(rule for rule in rules if not self._has(rule))]
        self._require_room(new)
        await self._log.commit_now([Put(document_of(rule)) for rule in new], keep_if_full=False)
        for rule in new:
            self._add(rule)
            logger.info("rule added for %s, by command: %s", rule.holder, rule)
        self._renew()
        return len(new)

    async def remove(self, rules: Sequence[Rule]) -> None:
        """Raises NotFound, StoreError: none is removed."""
        for rule in rules:
            if rule in BUILT_IN.get(rule.holder.name, ()):
                raise NotFound(f"{rule.holder} always has: {rule}", "add a rule that denies it")
            if not self._has(rule):
                raise NotFound(f"{rule.holder} has no rule: {rule}", "`pubsub acl ls` lists them")
        await self._log.commit_now([_delete(rule) for rule in rules], keep_if_full=False)
        for rule in rules:
            self._remove(rule)
            logger.info("rule removed of %s, by command: %s", rule.holder, rule)
        self._renew()

    def _require_room(self, new: Sequence[Rule]) -> None:
        count = len(new) + sum(map(len, self._rules.values()))
        if count > RULES_MAX:
            raise QuotaExceeded(f"there would be {count} rules: {RULES_MAX} may be")
        if self._filters_bytes + sum(map(_bytes, new)) > FILTERS_BYTES_MAX:
            raise QuotaExceeded(f"the rules' filters would be above {FILTERS_BYTES_MAX} bytes")
        for holder in {rule.holder for rule in new}:
            more = sum(rule.holder == holder for rule in new)
            if len(self._rules.get(holder, ())) + more > RULES_PER_HOLDER_MAX:
                raise QuotaExceeded(f"{holder} would have more than {RULES_PER_HOLDER_MAX} rules")

    def _has(self, rule: Rule) -> bool:
        return rule in self._rules.get(rule.holder, ())

    def _add(self, rule: Rule) -> None:
        self._rules.setdefault(rule.holder, {})[rule] = None
        self._filters_bytes += _bytes(rule)

    def _remove(self, rule: Rule) -> None:
        rules = self._rules.get(rule.holder, {})
        if rule in rules:
            del rules[rule]
            self._filters_bytes -= _bytes(rule)
            if not rules:
                del self._rules[rule.holder]


def _delete(rule: Rule) -> Operation:
    name, is_role = rule.holder
    return Delete(RuleDocument, (name, is_role, rule.allow, str(rule.right), rule.filter))


def _bytes(rule: Rule) -> int:
    return len(rule.filter.encode())
