"""The stored session of an `--id`: what a report says, and what is said when it is discarded."""

from __future__ import annotations

import pytest

from cli.net.client import UserProperties
from cli.net.session import StoredSubscriptions, discard
from tests.support.scripted_client import ScriptedClient


def stored(*filters: str, count: int) -> StoredSubscriptions:
    report = [("subscription", one) for one in filters]
    return StoredSubscriptions.of([*report, ("subscriptions", str(count))])


def test_a_report_names_all_filters_only_if_there_are_as_many_as_it_says() -> None:
    assert stored("a", "b", count=2) == StoredSubscriptions(frozenset("ab"), complete=True)
    assert not stored("a", "b", count=3).complete
    assert stored(count=0).complete
    assert not StoredSubscriptions.of([]).complete


def test_a_replay_is_the_subscription_to_its_filter() -> None:
    session = stored("a", "b", "c", count=3)
    assert session.named_in(["$replay/-3/a", "x", "$replay/b"]) == ["$replay/-3/a"]
    assert session.not_in(["$replay/-3/a", "x"]) == ["b", "c"]


@pytest.mark.parametrize(
    ("present", "report", "said"),
    [
        (False, [], None),
        (True, [], "discarded"),
        (True, [("unread", "0")], "discarded, with 0 messages not delivered yet"),
        (True, [("unread-at-least", "5")], "discarded, with 5 messages or more not delivered yet"),
    ],
)
def test_a_session_ends_with_the_connection_that_discards_it(
    present: bool, report: UserProperties, said: str | None
) -> None:
    client = ScriptedClient()
    client.sessions.append(present)
    client.reports.append(report)
    assert discard(client) == said  # type: ignore[arg-type]  # It has the face of one.
    assert client.did == [("open", False, 0, 1), ("close", False)]
