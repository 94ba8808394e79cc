"""Users: who may come in. All of them are in memory; the log has them as documents.

A change counts for everybody as soon as it is stored. While there is no user at all, everybody is
`anonymous` and may do everything.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from broker.documents import Delete, Operation, Put, RuleDocument, UserDocument
from broker.errors import NotFound, QuotaExceeded
from broker.log.log import Log
from broker.security.names import validate_role, validate_user

USERS_MAX = 100_000
"""About 500 bytes of memory each."""


class Users:
    def __init__(self, log: Log) -> None:
        self._log = log
        self._by_name: dict[str, UserDocument] = {}
        self._watching: list[Callable[[str], None]] = []

    async def start(self) -> None:
        """Raises StoreError."""
        self._by_name = {user.name: user for user in await self._log.store.scan(UserDocument)}

    def watch(self, changed: Callable[[str], None]) -> None:
        """Call it with the name of a user that is new, or another than before, or gone."""
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

    async def put(self, user: UserDocument) -> None:
        """Add or change one. Raises CommandRefused, QuotaExceeded, StoreError."""
        validate_user(user.name)
        for role in user.role_names:
            validate_role(role)
        if user.name not in self._by_name and len(self._by_name) >= USERS_MAX:
            raise QuotaExceeded(f"there are {USERS_MAX} users already")
        await self._log.commit_now([Put(user)], keep_if_full=False)
        self._by_name[user.name] = user
        self._tell(user.name)

    async def remove(self, name: str) -> None:
        """Its rules go with it: whoever has that name later has none of them. Raises NotFound,
        StoreError."""
        if name not in self._by_name:
            raise NotFound(f"there is no user {name}", "`pubsub user ls` lists them")
        operations: list[Operation] = [
            Delete(UserDocument, (name,)),
            Delete(RuleDocument, (name, False)),
        ]
        await self._log.commit_now(operations, keep_if_full=False)
        self._by_name.pop(name, None)
        self._tell(name)

    def _tell(self, name: str) -> None:
        for tell in self._watching:
            tell(name)
