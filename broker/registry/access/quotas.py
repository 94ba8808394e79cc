"""Quotas in force: what users and roles may use, and who is slowed down for it.

A change counts at once: for what is asked from then on, and for the pace of who is connected. What
is there already stays, also where it is more than the new quota.

- Too many connections, sessions, groups or subscriptions: 0x97.
- Retained messages on too many topics: the message is refused with 0x97, or dropped.
- Publishing too fast: the client is not read from until its user is within the quota again
  (`slowing.py`). Where many clients share a user, so that this takes long, MQTT 5 gets 0x97.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from broker.documents import Delete, Put
from broker.documents.quotas import QuotaDocument
from broker.errors import NotFound, QuotaExceeded
from broker.log.log import Log
from broker.log.retained_topics import RetainedTopics
from broker.registry.access.flapping import Flapping
from broker.registry.access.rereading import newest
from broker.registry.access.slowing import Slowing
from broker.registry.access.users import Users
from broker.security.names import Login, validate_role, validate_user
from broker.security.quotas import LIMITS, UNLIMITED, Pace, Quota, effective, validate

USER, ROLE = "user", "role"
QUOTAS_MAX = 10_000
KNOWN_MAX = 10_000
"""Users whose effective quota, and whose pace, is remembered."""


class Quotas:
    def __init__(self, log: Log, users: Users, deadline_moved: Callable[[], None]) -> None:
        self._log = log
        self._users = users
        self.slowing = Slowing(deadline_moved)
        self.flapping = Flapping()
        self.retained = RetainedTopics(log, lambda user: self.of(user).retained)
        self._documents: dict[tuple[str, str], QuotaDocument] = {}
        self._token_roles: dict[str, tuple[str, ...]] = {}
        """Of users whose newest login was by a token that names roles."""
        self._known: dict[str, Quota] = {}
        """Of users that were asked for, since something changed."""
        self._paces: dict[str, Pace] = {}
        self._changes = 0
        """How often there were other quotas here."""
        users.watch(self._users_changed)

    async def start(self) -> None:
        """Raises StoreError."""
        documents = await newest(self._log.store, QuotaDocument, lambda: self._changes)
        self._documents = {(document.kind, document.name): document for document in documents}
        self._changed()

    read_again = start
    """When another broker that shares the log has changed some."""

    def of(self, user: str) -> Quota:
        """What holds for the user now; "" is nobody's, and has no limits."""
        if not self._documents or not user:
            return UNLIMITED
        known = self._known.get(user)
        if known is None:
            if len(self._known) >= KNOWN_MAX:
                self._known.clear()
            account, roles = self._users.get(user), self._token_roles.get(user)
            if roles is None:
                roles = () if account is None else account.role_names
            own, *of_roles = (
                self._get(*one) for one in ((USER, user), *((ROLE, r) for r in roles))
            )
            known = self._known[user] = effective(own, of_roles)
        return known

    def _get(self, kind: str, name: str) -> Quota:
        document = self._documents.get((kind, name))
        return UNLIMITED if document is None else _quota_of(document)

    # What an operator asks for

    def all(self) -> list[QuotaDocument]:
        return [self._documents[key] for key in sorted(self._documents)]

    async def put(self, kind: str, name: str, quota: Quota) -> QuotaDocument:
        """Set it, in place of what was. Raises CommandRefused, QuotaExceeded, StoreError."""
        validate(quota)
        if kind == ROLE:
            validate_role(name)
        else:
            validate_user(name)
        if (kind, name) not in self._documents and len(self._documents) >= QUOTAS_MAX:
            raise QuotaExceeded(f"there are more than {QUOTAS_MAX:,} quotas then")
        document = QuotaDocument(kind, name, *(getattr(quota, limit) for limit in LIMITS))
        await self._log.commit_now([Put(document)], keep_if_full=False)
        self._documents[kind, name] = document
        self._changed()
        return document

    async def remove(self, kind: str, name: str) -> None:
        """Raises NotFound, StoreError."""
        if (kind, name) not in self._documents:
            raise NotFound(f"{kind} {name} has no quota", "`pubsub quota ls` lists them")
        await self._log.commit_now([Delete(QuotaDocument, (kind, name))], keep_if_full=False)
        self._documents.pop((kind, name), None)
        self._changed()

    def _users_changed(self, names: Sequence[str]) -> None:
        for user in names:
            if self._users.get(user) is None:
                self._documents.pop((USER, user), None)
                self.retained.forget(user)
        self._changed()

    def _changed(self) -> None:
        self._changes += 1
        self._known.clear()
        self._paces.clear()

    # Who comes

    def came(self, login: Login) -> None:
        """Of a user with tokens, the roles count that the newest of them names."""
        user = login.user
        if self._token_roles.get(user) == login.roles:
            return
        self._token_roles.pop(user, None)
        if login.roles is not None:
            if len(self._token_roles) >= KNOWN_MAX:
                del self._token_roles[next(iter(self._token_roles))]
            self._token_roles[user] = login.roles
        self._known.pop(user, None)
        self._paces.pop(user, None)

    def refuse_connection(self, user: str, *, replaces_one: bool = False) -> None:
        """Raises QuotaExceeded: the user has as many connections as it may. `replaces_one`: one of
        these ends for the new one."""
        most = self.of(user).connections
        there = len(self._users.guests(user)) - replaces_one
        if most is not None and there >= most:
            raise QuotaExceeded(f"{user} may have {most:,} connections, and has {there:,}")

    # Who publishes

    def pace_of(self, user: str) -> Pace | None:
        """None: as fast as it likes."""
        quota = self.of(user)
        if quota.publish_per_s is None and quota.publish_bytes_per_s is None:
            return None
        pace = self._paces.get(user)
        if pace is None:
            if len(self._paces) >= KNOWN_MAX:
                self._paces.clear()
            pace = self._paces[user] = Pace(quota)
        return pace


def _quota_of(document: QuotaDocument) -> Quota:
    return Quota(**{limit: getattr(document, limit) for limit in LIMITS})
