"""The stored session of an `--id`: what the broker tells of it, and what a command has to say.

Only a broker that knows the User Property `tell` (see docs/reference.md) names subscriptions and
counts messages. With any other these are unknown, and the rest works all the same.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from broker.errors import ReplaySpecInvalid
from broker.replay.spec import split_filter
from cli.net.client import Client, UserProperties

TELL_SUBSCRIPTIONS = (("tell", "subscriptions"),)
TELL_UNREAD = (("tell", "unread"),)


@dataclass(frozen=True, slots=True)
class StoredSubscriptions:
    """The Topic Filters of a session. `complete`: there are no others."""

    filters: frozenset[str]
    complete: bool

    @classmethod
    def of(cls, report: UserProperties) -> StoredSubscriptions:
        filters = frozenset(value for key, value in report if key == "subscription")
        return cls(filters, ("subscriptions", str(len(filters))) in report)

    def named_in(self, filters: Iterable[str]) -> list[str]:
        """Those of `filters` that the session had already, in order."""
        return [one for one in filters if _kept_as(one) in self.filters]

    def not_in(self, filters: Iterable[str]) -> list[str]:
        """Those that the session has beside `filters`, sorted."""
        return sorted(self.filters.difference(map(_kept_as, filters)))


def discard(client: Client) -> str | None:
    """End the session of this client identifier; what to say about it, None if there was none."""
    # A Session Expiry Interval of 0: the session ends with this connection.
    present = client.open(clean_start=False, receive_max=1, user_properties=TELL_UNREAD)
    report = dict(client.session_report)
    client.close()
    if not present:
        return None
    if "unread" in report:
        return f"discarded, with {_messages(report['unread'])} not delivered yet"
    if "unread-at-least" in report:
        return f"discarded, with {_messages(report['unread-at-least'])} or more not delivered yet"
    return "discarded"


def _messages(count: str) -> str:
    return "1 message" if count == "1" else f"{count} messages"


def _kept_as(topic_filter: str) -> str:
    """Without `$replay/<spec>/`, as the broker keeps it."""
    try:
        prefixed = split_filter(topic_filter)
    except ReplaySpecInvalid:
        return topic_filter
    return topic_filter if prefixed is None else prefixed[1]
