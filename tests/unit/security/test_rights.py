"""What one connection may do, and that it follows the rules."""

from __future__ import annotations

from broker.security.rights import Rights
from broker.security.rules import Right, Verdict
from broker.topics import REPLAY_ENDED
from tests.support.rulebook import Rulebook


def rights(book: Rulebook) -> Rights:
    return Rights(book, "anna", None, "c1")


def test_all_may_do_everything() -> None:
    all_of_it = Rights.ALL
    assert not all_of_it.limited
    assert all_of_it.may_publish("$SYS/x")
    assert all_of_it.may_receive("a")
    assert all_of_it.may_subscribe("#")
    assert all_of_it.may_read_history("#")


def test_it_follows_the_rules_and_asks_for_them_once() -> None:
    book = Rulebook("allow publish a")
    anna = rights(book)
    assert anna.limited
    assert anna.may_publish("a")
    assert not anna.may_publish("b")
    assert book.asked == 1
    version = anna.version
    book.write("allow publish b")
    assert anna.version != version
    assert not anna.may_publish("a")
    assert anna.may_publish("b")
    assert book.asked == 2
    book.open = True
    book.write()
    assert not anna.limited
    assert anna.may_publish("a")


def test_a_delayed_message_is_for_its_own_topic() -> None:
    anna = rights(Rulebook("allow publish a/#"))
    assert anna.may_publish("$delayed/10/a/b")
    assert not anna.may_publish("$delayed/10/b")


def test_a_shared_subscription_is_for_its_own_filter() -> None:
    anna = rights(Rulebook("allow subscribe a/#"))
    assert anna.may_subscribe("$share/g/a/+")
    assert anna.may_subscribe("#")
    assert not anna.may_subscribe("$share/g/b")


def test_history_is_for_whoever_may_read_it_now_too() -> None:
    anna = rights(Rulebook("allow subscribe a/#", "allow read-history a/1", "allow read-history b"))
    assert anna.may_read_history("a/#")
    assert anna.may_replay("a/1")
    assert not anna.may_replay("a/2")
    assert not anna.may_replay("b"), "it may not be received"
    assert anna.may_read_history("a/1")
    assert not anna.may_read_history("a/2")
    assert not anna.may_read_history("b"), "it may not be received"
    assert anna.may_receive("a/2")


def test_the_end_of_a_replay_is_told_whatever_the_rules() -> None:
    assert rights(Rulebook()).may_receive(REPLAY_ENDED)


def test_rules_with_the_client_identifier_count_beside_the_others() -> None:
    book = Rulebook("allow publish a/#", "allow publish %c/x", "deny publish a/%c")
    anna = rights(book)
    assert anna.may_publish("a/b")
    assert anna.may_publish("c1/x")
    assert not anna.may_publish("c2/x")
    assert anna.verdict(Right.PUBLISH, "a/c1") == Verdict(False, book.written[2])
    assert anna.explain(Right.PUBLISH, "+/x").allowed
    book.write("deny publish c1/#", "allow publish %c/x")
    assert anna.verdict(Right.PUBLISH, "c1/x") == Verdict(False, book.written[0])
    assert anna.explain(Right.PUBLISH, "c1/+").allowed is False
