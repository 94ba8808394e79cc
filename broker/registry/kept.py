"""Kept: the sessions that the log keeps, how many may be, and when each is due to end.

Groups of Shared Subscriptions have such sessions as well, and a limit of their own: each client can
make many, and those must not take the place of other clients' sessions.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain

from broker.clock import NEVER
from broker.config import Config
from broker.errors import QuotaExceeded
from broker.log.deadlines import Deadlines
from broker.message import Monotonic
from broker.plural import counted
from broker.security.quotas import UNLIMITED, Quota
from broker.session.gaps import Gaps
from broker.session.session import Session
from broker.topics import is_shared


class Kept:
    """`Deadlines` of the sessions of clients, and of those of groups."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._clients = Deadlines[Monotonic]()
        self._groups = Deadlines[Monotonic]()
        self._gaps: dict[str, Gaps] = {}
        self.quota_of: Callable[[str], Quota] = lambda user: UNLIMITED
        """Of a user, while there are users."""
        self.full: Callable[[str], QuotaExceeded] = QuotaExceeded
        """What to raise where the broker has no room for one more session."""
        self._users: dict[str, str] = {}
        """Whose each is, of those that are somebody's."""
        self._clients_of: Counter[str] = Counter()
        self._groups_of: Counter[str] = Counter()
        """How many each user has."""
        self.absent_count = 0
        """Sessions that nobody is connected to."""
        self._absent_unsubscribed: set[str] = set()
        """Of these, those known to have no subscription. After a start none is."""
        self._coming = 0

    def is_absent(self, client_id: str, *, subscribed: bool = True) -> None:
        """Nobody is connected to it any more; whether it may have a subscription."""
        self.absent_count += 1
        if not subscribed:
            self._absent_unsubscribed.add(client_id)

    def is_not_absent(self, client_id: str) -> None:
        """It was, and has a client now, or has ended."""
        self.absent_count -= 1
        self._absent_unsubscribed.discard(client_id)

    @contextmanager
    def coming(self) -> Iterator[None]:
        """A client connects: its session is not absent any more, and is a member of its groups only
        in the end."""
        self._coming += 1
        try:
            yield
        finally:
            self._coming -= 1

    @property
    def absent_may_subscribe(self) -> bool:
        """Whether any session may have a subscription that is not in force here: of who is absent,
        or has not come quite."""
        return self._coming > 0 or self.absent_count > len(self._absent_unsubscribed)

    @property
    def client_count(self) -> int:
        """Durable sessions of clients."""
        return len(self._clients)

    @property
    def group_count(self) -> int:
        """Groups of Shared Subscriptions, also those that nobody is a member of now."""
        return len(self._groups)

    def __len__(self) -> int:
        return len(self._clients) + len(self._groups)

    def __iter__(self) -> Iterator[str]:
        return chain(self._clients, self._groups)

    def __contains__(self, client_id: str) -> bool:
        return client_id in self._of(client_id)

    def _of(self, client_id: str) -> Deadlines[Monotonic]:
        return self._groups if is_shared(client_id) else self._clients

    def found(self, client_id: str, user: str, at: Monotonic) -> None:
        """It is absent, the user's, and due then."""
        self.set(client_id, at)
        self.is_absent(client_id)
        self.belongs(client_id, user)

    def belongs(self, client_id: str, user: str) -> None:
        """Whose it is; "": nobody's."""
        self._forget_user(client_id)
        if user:
            self._users[client_id] = user
            self._counts_of(client_id)[user] += 1

    def _forget_user(self, client_id: str) -> None:
        user = self._users.pop(client_id, "")
        if user:
            counts = self._counts_of(client_id)
            counts[user] -= 1
            if not counts[user]:
                del counts[user]

    def _counts_of(self, client_id: str) -> Counter[str]:
        return self._groups_of if is_shared(client_id) else self._clients_of

    def refuse_if_full(self, client_id: str, user: str = "") -> None:
        """Raises QuotaExceeded: there may be no new session of this name, or not of this user."""
        shared, quota = is_shared(client_id), self.quota_of(user)
        most = quota.groups if shared else quota.sessions
        if most is not None and self._counts_of(client_id)[user] >= most:
            raise QuotaExceeded(
                f"{user} may have {counted(most, 'group' if shared else 'session')}"
            )
        if shared:
            if self.group_count >= self._config.groups_max:
                raise QuotaExceeded(
                    f"the broker keeps {counted(self.group_count, 'group')} already"
                )
        elif self.client_count >= self._config.sessions_max:
            kept = counted(self.client_count, "session")
            raise self.full(f"the broker keeps {kept} already")

    def get(self, client_id: str) -> Monotonic | None:
        return self._of(client_id).get(client_id)

    def set(self, client_id: str, at: Monotonic) -> None:
        self._of(client_id).set(client_id, at)

    def remove(self, client_id: str) -> bool:
        """Whether it was there."""
        self._forget_user(client_id)
        self._gaps.pop(client_id, None)
        return self._of(client_id).remove(client_id)

    def soonest(self, *, clients: bool = True) -> Monotonic | None:
        """The next deadline, passed or not; None: nothing will ever be due. `clients`: or only of
        groups."""
        kinds = (self._clients, self._groups) if clients else (self._groups,)
        return min([at for of in kinds if (at := of.soonest()) is not None], default=None)

    def take_due(self, now: Monotonic, limit: int) -> list[str]:
        """Remove up to `limit` sessions of clients that are due."""
        due = self._clients.take_due(now, limit)
        for client_id in due:
            self._forget_user(client_id)
            self._gaps.pop(client_id, None)
        return due

    def keep_gaps(self, session: Session) -> None:
        """Memory forgets the session, but not this of it."""
        if session.gaps:
            self._gaps[session.client_id] = session.gaps

    def gaps_of(self, client_id: str) -> Gaps | None:
        """What `keep_gaps` kept."""
        return self._gaps.get(client_id)

    def take_due_groups(self, now: Monotonic, limit: int) -> list[str]:
        """Up to `limit` groups that are due. They stay, and are not due again."""
        due = self._groups.take_due(now, limit)
        for name in due:
            self._groups.set(name, NEVER)
        return due
