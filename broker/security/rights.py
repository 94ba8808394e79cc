"""Rights: what one connection may do. It follows later changes of the rules by itself.

What the rules say of a topic is remembered until they change, together for all connections of a
user but for rules with the client identifier. So a question costs a look-up.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Protocol

from broker.documents import Author
from broker.security.rules import Right, Rules, Verdict, verdict_of_all, verdict_of_filter
from broker.topics import (
    DELAYED_PREFIX,
    REPLAY_ENDED,
    is_literal,
    is_shared,
    parse_delayed,
    parse_shared,
)

UNLIMITED = Verdict(True, None)


class Book(Protocol):
    """Who knows the rules."""

    version: int
    """Another one when rules, roles or users have changed."""

    def rules(
        self, user: str, roles: Sequence[str] | None, client_id: str
    ) -> tuple[Rules, Rules | None] | None:
        """The rules of a user, whoever has it, and those for this client identifier; None: nothing
        is forbidden to anybody. `roles`: None asks for those that the user has now."""
        ...


class Rights:
    """`ALL`: everything, whatever the rules are."""

    ALL: ClassVar[Rights]

    __slots__ = ("_book", "_roles", "_rules", "_version", "client_id", "user")

    def __init__(self, book: Book, user: str, roles: Sequence[str] | None, client_id: str) -> None:
        self.user = user
        self.client_id = client_id
        self._book = book
        self._roles = roles
        self._version = -1
        self._rules: tuple[Rules, Rules | None] | None = None

    @property
    def author(self) -> Author:
        """Whose they are, for a message that is published later."""
        roles = None if self._roles is None else " ".join(self._roles)
        return Author(self.user, roles, self.client_id)

    @property
    def version(self) -> int:
        """Another one when something else may be allowed."""
        return self._book.version

    @property
    def limited(self) -> bool:
        """Whether anything may be forbidden. If not, nothing else need be asked."""
        if self._version != self._book.version:
            self._current()
        return self._rules is not None

    @property
    def rule_count(self) -> int:
        """How many there are to look through for a Topic Filter: 1,000 take 1 to 3 ms."""
        rules = self._current()
        return 0 if rules is None else sum([part.count for part in rules if part])

    def may_publish(self, topic: str) -> bool:
        """Also to a `$delayed/<seconds>/<name>`, which is a whole one."""
        if topic[0] == "$" and topic.startswith(DELAYED_PREFIX):
            delayed = parse_delayed(topic)
            topic = topic if delayed is None else delayed[1]
        return self.verdict(Right.PUBLISH, topic).allowed is True

    def may_subscribe(self, topic_filter: str) -> bool:
        """Whether something of the filter may be read; of a Shared Subscription's, without
        `$share/<name>/`. Not for `$replay/...`."""
        return self._may_some(Right.SUBSCRIBE, topic_filter)

    def may_receive(self, topic: str) -> bool:
        """Whether a message to this topic may be read. The end of a replay is told to whoever had
        one."""
        return self.verdict(Right.SUBSCRIBE, topic).allowed is True or topic == REPLAY_ENDED

    def may_replay(self, topic: str) -> bool:
        """Whether what was published to this topic before may be read again. What may not be
        received may not."""
        return self.may_receive(topic) and self.verdict(Right.READ_HISTORY, topic).allowed is True

    def may_read_history(self, topic_filter: str) -> bool:
        """Whether something of what was published to the filter before may be read again."""
        return self._may_some(Right.READ_HISTORY, topic_filter) and self.may_subscribe(topic_filter)

    def may_administer(self, topic_filter: str) -> bool:
        """Whether all of the filter; `EVERYTHING` is all that there is. That nothing is forbidden
        while there is no user gives it to nobody: but for `ALL`, it takes a user."""
        if not self.limited and self is not Rights.ALL:
            return False
        return self.explain(Right.ADMINISTER, topic_filter).allowed is True

    @property
    def may_administer_something(self) -> bool:
        """Whether a rule allows to, whatever the denials leave of it."""
        rules = self._current() or ()
        allowed = [part.listed(Right.ADMINISTER, allow=True) for part in rules if part]
        return not rules or any(allowed)

    def verdict(self, right: Right, topic: str) -> Verdict:
        """What the rules say of a Topic Name, and which rule decided."""
        rules = self._current()
        if rules is None:
            return UNLIMITED
        shared, own = rules
        verdict = shared.verdict(right, topic)
        if own is None or verdict.allowed is False or (verdict.allowed and not own.denies(right)):
            return verdict
        ours = own.verdict(right, topic)
        return verdict if ours.allowed is None or (ours.allowed and verdict.allowed) else ours

    def explain(self, right: Right, topic_filter: str) -> Verdict:
        """As `verdict`, for a Topic Filter: whether something of it is allowed; of the right to
        administer, whether all of it is."""
        if (shared := parse_shared(topic_filter) if is_shared(topic_filter) else None) is not None:
            topic_filter = shared[1]
        if is_literal(topic_filter) and right is not Right.ADMINISTER:
            return self.verdict(right, topic_filter)
        rules = self._current()
        if rules is None:
            return UNLIMITED
        asked = verdict_of_all if right is Right.ADMINISTER else verdict_of_filter
        return asked([part for part in rules if part], right, topic_filter)

    def _may_some(self, right: Right, topic_filter: str) -> bool:
        return self.explain(right, topic_filter).allowed is True

    def _current(self) -> tuple[Rules, Rules | None] | None:
        book = self._book
        if self._version != book.version:
            self._rules = book.rules(self.user, self._roles, self.client_id)
            self._version = book.version
        return self._rules


class _Everything:
    """No rules at all."""

    version = 0

    def rules(
        self, user: str, roles: Sequence[str] | None, client_id: str
    ) -> tuple[Rules, Rules | None] | None:
        return None


Rights.ALL = Rights(_Everything(), "", (), "")
