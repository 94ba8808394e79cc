"""Rules by themselves: which one decides, and what no name can talk them into."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.errors import CommandRefused
from broker.security import rules as module
from broker.security.names import ADMIN, STANDARD
from broker.security.rules import (
    BUILT_IN,
    SILENCE,
    Decided,
    Holder,
    Right,
    Rule,
    Rules,
    Verdict,
    filled,
    validate,
    verdict_of_all,
    verdict_of_filter,
)
from broker.topics import matches

ANNA = Holder("anna")


def rule(text: str, holder: Holder = ANNA) -> Rule:
    effect, right, topic_filter = text.split(" ", 2)
    return Rule(holder, effect == "allow", Right(right), topic_filter)


def rules(*texts: str) -> Rules:
    return Rules(map(rule, texts), "anna", "c1")


def test_what_no_rule_names_is_not_allowed() -> None:
    assert rules().verdict(Right.PUBLISH, "a") == SILENCE
    assert rules("allow publish a/#").verdict(Right.SUBSCRIBE, "a/b") == SILENCE


def test_a_denial_wins_whatever_the_order_and_however_narrow_the_other_is() -> None:
    texts = "allow publish a/b", "deny publish a/#"
    for ordered in (texts, texts[::-1]):
        found = rules(*ordered)
        assert found.verdict(Right.PUBLISH, "a/b") == Verdict(False, rule("deny publish a/#"))
    assert rules("allow publish #").verdict(Right.PUBLISH, "a") == Verdict(
        True, rule("allow publish #")
    )


@given(
    st.lists(
        st.tuples(st.booleans(), st.sampled_from(["#", "a/#", "a/+", "a/b", "+/b", "$x/#"])),
        max_size=6,
    ),
    st.sampled_from(["a", "a/b", "c/b", "$x/b"]),
)
def test_allowed_if_some_allow_and_none_denies(made: list[tuple[bool, str]], topic: str) -> None:
    found = Rules([Rule(ANNA, allow, Right.PUBLISH, f) for allow, f in made], "anna")
    says = [allow for allow, topic_filter in made if matches(topic_filter, topic)]
    expected = None if not says else all(says)
    for _ in range(2):  # The second time from memory.
        assert found.verdict(Right.PUBLISH, topic).allowed is expected


def test_names_take_the_place_of_placeholders() -> None:
    assert filled("d/%u/%c/x%u", "anna", "c1") == "d/anna/c1/xanna"
    assert filled("100%/%x", "anna", "c1") == "100%/%x"
    assert filled("%u/%c", "%c", "c1") == "%c/c1", "what is put in is not looked through again"


@pytest.mark.parametrize("name", ["+", "#", "a+", "a/b", "#x", "", "a\0b", "x" * 66_000])
def test_a_name_cannot_choose_what_it_matches(name: str) -> None:
    assert filled("d/%u/#", name, "c1") is None
    assert filled("d/%c/#", "anna", name) is None
    assert filled("d/%u/#", "anna", name) == "d/anna/#"


def test_a_name_cannot_begin_a_filter_with_a_dollar() -> None:
    assert filled("%c/#", "anna", "$SYS") is None
    assert filled("x/%c/#", "anna", "$SYS") == "x/$SYS/#"
    assert filled("$%u/#", "SYS", "c1") is None
    assert filled("$a%c", "anna", "c1") is None
    assert filled("$dead/%u/#", "anna", "c1") == "$dead/anna/#"


def test_names_that_begin_with_a_dollar_are_for_rules_that_say_so() -> None:
    every = rules("allow subscribe #")
    assert every.verdict(Right.SUBSCRIBE, "$SYS/broker/uptime") == SILENCE
    other = rules("allow subscribe $#")
    assert other.verdict(Right.SUBSCRIBE, "$aws/x").allowed
    assert other.verdict(Right.SUBSCRIBE, "$SYSTEM/x").allowed
    for topic in ("$SYS", "$SYS/broker/uptime", "a"):
        assert other.verdict(Right.SUBSCRIBE, topic) == SILENCE
    assert rules("deny subscribe $#", "allow subscribe $aws/#").verdict(
        Right.SUBSCRIBE, "$aws/x"
    ) == Verdict(False, rule("deny subscribe $#"))


def test_a_dead_letter_is_for_whoever_may_read_its_topic() -> None:
    found = rules("allow subscribe a/#", "deny subscribe a/secret", "allow subscribe $dead/g/c")
    assert found.verdict(Right.SUBSCRIBE, "$dead/g/a/b").allowed is True
    assert found.verdict(Right.SUBSCRIBE, "$dead/g/c").allowed is True
    assert found.verdict(Right.SUBSCRIBE, "$dead/g/a/secret").allowed is False
    assert found.verdict(Right.SUBSCRIBE, "$dead/g/b") == SILENCE
    for topic in ("$dead", "$dead/g", "$dead/g/"):
        assert found.verdict(Right.SUBSCRIBE, topic) == SILENCE
    for topic_filter in ("$dead/#", "$dead/+/#", "$dead/g/a/+", "$dead/g/+/b"):
        assert verdict_of_filter([found], Right.SUBSCRIBE, topic_filter).allowed is True
    assert verdict_of_filter([found], Right.SUBSCRIBE, "$dead/h/b/#") == SILENCE


@pytest.mark.parametrize(
    ("texts", "topic_filter", "allowed"),
    [
        (["allow subscribe a/b"], "#", True),
        (["allow subscribe a/b"], "a/+", True),
        (["allow subscribe a/b"], "c/#", None),
        (["allow subscribe #"], "$SYS/#", None),
        (["allow subscribe $#"], "$aws/#", True),
        (["allow subscribe $#"], "$SYS/#", None),
        (["allow subscribe $#"], "#", None),
        (["allow subscribe #", "deny subscribe a/#"], "a/+", False),
        (["allow subscribe #", "deny subscribe a/b"], "a/+", True),
        (["allow subscribe a/b", "deny subscribe a/+"], "#", False),
        (["allow subscribe $#", "deny subscribe $#"], "$aws/#", False),
        # Several deny all of it together, or all but the names of one length.
        (["allow subscribe #", "deny subscribe a", "deny subscribe a/+/#"], "a/#", False),
        (["allow subscribe #", "deny subscribe a", "deny subscribe a/+/+/#"], "a/#", True),
        (["allow subscribe #", "deny subscribe +", "deny subscribe +/+/#"], "#", False),
        (
            ["allow subscribe a", "allow subscribe b/#", "deny subscribe +", "deny subscribe +/+"],
            "#",
            True,
        ),
        (["allow subscribe a", "allow subscribe b", "deny subscribe +"], "#", False),
        (["allow subscribe #", "deny subscribe a/b", "deny subscribe a/c"], "a/+", True),
        # Dead letters of topics that begin with `$` are no names that `#` denies.
        (["allow subscribe $#", "deny subscribe #"], "$dead/#", True),
        (["allow subscribe $#", "deny subscribe #", "deny subscribe $#"], "$dead/#", False),
    ],
)
def test_a_filter_is_allowed_if_something_of_it_is(
    texts: list[str], topic_filter: str, allowed: bool | None
) -> None:
    assert verdict_of_filter([rules(*texts)], Right.SUBSCRIBE, topic_filter).allowed is allowed


def test_all_that_deny_it_together_are_named() -> None:
    found = rules(
        "allow subscribe #", "deny subscribe a", "deny subscribe a/+/#", "deny subscribe b"
    )
    verdict = verdict_of_filter([found], Right.SUBSCRIBE, "a/#")
    assert [str(each) for each in (verdict.rule, *verdict.beside)] == [
        *("deny subscribe a", "deny subscribe a/+/#"),
    ]


@pytest.mark.parametrize(
    ("texts", "topic_filter", "allowed"),
    [
        (["allow admin a/#"], "a/b/+", True),
        (["allow admin a/#"], "a", True),
        (["allow admin a/#"], "#", None),
        (["allow admin a/#"], "+/b", None),
        (["allow admin a/+"], "a/#", None),
        (["allow admin a/#", "deny admin a/b"], "a/+", False),
        (["allow admin a/#", "deny admin a/b"], "a/c", True),
        (["deny admin a/b", "allow admin #"], "#", False),
        (["allow admin #"], "#", True),
        (["allow admin #"], "$x/#", None),
        (["allow admin $#"], "$x/#", True),
        (["allow admin $#"], "#", None),
        (["allow admin #", "deny admin $x/#"], "#", False),
        (["allow admin #", "deny admin $x/#"], "a/#", True),
        (["allow publish #"], "a", None),
        (["allow admin %u/#"], "anna/b", True),
        (["allow admin a/#"], "$dead/g/a/#", True),
        (["allow admin #"], "$dead/g/a/#", True),
        (["allow admin #"], "$dead/g/#", None),
        (["allow admin $#"], "$dead/#", True),
        (["allow admin a/#", "deny admin a/b"], "$dead/g/a/#", False),
    ],
)
def test_all_of_a_filter_is_allowed_if_one_rule_allows_it_and_none_denies_any(
    texts: list[str], topic_filter: str, allowed: bool | None
) -> None:
    assert verdict_of_all([rules(*texts)], Right.ADMINISTER, topic_filter).allowed is allowed


LEVELS = ["a", "b", "$x"]
FILTERS = (
    st.tuples(
        st.sampled_from([[], *[[level] for level in (*LEVELS, "+", "$dead")]]),
        st.lists(st.sampled_from([*LEVELS, "+"]), max_size=2),
        st.sampled_from([[], ["#"]]),
    )
    .map(lambda parts: "/".join(parts[0] + parts[1] + parts[2]))
    .filter(bool)
)
NAMES = [
    "/".join([first, *levels])
    for first in (*LEVELS, "other", "$other", "$dead")
    for length in (0, 1, 2, 3, 4)
    for levels in product([*LEVELS, "other", "$other"], repeat=length)
]
"""With a level that no filter has, and more levels than a filter of dead letters and of their
topics has."""


@given(
    st.lists(st.tuples(st.booleans(), st.one_of(FILTERS, st.just("$#"))), max_size=5),
    FILTERS,
    st.booleans(),
)
def test_a_filter_is_allowed_exactly_if_some_name_of_it_is(
    made: list[tuple[bool, str]], topic_filter: str, apart: bool
) -> None:
    found = [Rule(ANNA, allow, Right.SUBSCRIBE, f) for allow, f in made]
    together = Rules(found, "anna")
    of = [Rules([r], "anna") for r in found] if apart else [together]
    some = any(
        together.decide(Right.SUBSCRIBE, name).allowed
        for name in NAMES
        if matches(topic_filter, name)
    )
    assert (verdict_of_filter(of, Right.SUBSCRIBE, topic_filter).allowed is True) == some


@given(st.lists(st.tuples(st.booleans(), st.one_of(FILTERS, st.just("$#"))), max_size=5), FILTERS)
def test_what_is_allowed_as_a_whole_has_no_name_that_is_not(
    made: list[tuple[bool, str]], topic_filter: str
) -> None:
    found = Rules([Rule(ANNA, allow, Right.ADMINISTER, f) for allow, f in made], "anna")
    if verdict_of_all([found], Right.ADMINISTER, topic_filter).allowed:
        assert all(
            found.decide(Right.ADMINISTER, name).allowed
            for name in NAMES
            if matches(topic_filter, name)
        )


def test_standard_is_all_but_sys_writes_history_and_administration() -> None:
    found = Rules(BUILT_IN[STANDARD], "anna", "bridge1")
    for topic in ("a/b", "$aws/x", "$SYS/broker/connection/bridge1/state"):
        assert found.verdict(Right.PUBLISH, topic).allowed
    for topic in ("$SYS/x", "$SYS/broker/connection/bridge2/state"):
        assert found.verdict(Right.PUBLISH, topic) == SILENCE
    for topic in ("a/b", "$SYS/broker/uptime", "$dead/g/t", "$aws/x"):
        assert found.verdict(Right.SUBSCRIBE, topic).allowed
        assert found.verdict(Right.READ_HISTORY, topic) == SILENCE


def test_admin_is_all_of_it() -> None:
    found = Rules(BUILT_IN[ADMIN], "anna", "c1")
    for right in Right:
        for topic in ("a", "$SYS/x", "$dead/g/t", "$aws/x"):
            assert found.verdict(right, topic).allowed


@pytest.mark.parametrize(
    ("topic_filter", "says"),
    [
        ("", "empty"),
        ("a#", "#"),
        ("a/+b", "+"),
        ("$share/g/a", "leave that out"),
        ("$replay/-1/a", "leave that out"),
        ("$delayed/1/a", "leave that out"),
        ("a\nb", "control character"),
        ("a/%u+", "+"),
        ("$%u/#", "begins with $"),
        ("$x%c", "begins with $"),
    ],
)
def test_a_filter_that_is_none_is_refused(topic_filter: str, says: str) -> None:
    with pytest.raises(CommandRefused) as refused:
        validate(Rule(ANNA, True, Right.PUBLISH, topic_filter))
    assert says in str(refused.value)


def test_who_administers_has_no_client_identifier() -> None:
    """A denial of it would seem to do something."""
    with pytest.raises(CommandRefused, match="no client identifier"):
        validate(Rule(ANNA, False, Right.ADMINISTER, "a/%c/#"))
    validate(Rule(ANNA, False, Right.ADMINISTER, "a/%u/#"))


@pytest.mark.parametrize("topic_filter", ["#", "$#", "%u/#", "a/%c", "x%u/+", "$SYS/#"])
def test_filters_that_rules_may_have(topic_filter: str) -> None:
    validate(Rule(ANNA, True, Right.PUBLISH, topic_filter))


@given(
    st.text(alphabet=st.characters(exclude_categories=()), max_size=12),
    st.text(max_size=5),
    st.text(max_size=5),
)
def test_any_filter_is_refused_or_can_be_asked(topic_filter: str, user: str, client: str) -> None:
    any_rule = Rule(ANNA, True, Right.PUBLISH, topic_filter)
    try:
        validate(any_rule)
    except CommandRefused:
        return
    found = Rules([any_rule], user, client)
    found.verdict(Right.PUBLISH, "a/b")
    verdict_of_filter([found], Right.PUBLISH, "a/#")


def test_what_is_remembered_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DECIDED_MAX", 5)
    found = rules("allow publish 1/#")
    for n in range(100):
        assert (found.verdict(Right.PUBLISH, f"{n}/x").allowed is True) == (n == 1)
    assert len(found._decided[Right.PUBLISH]) <= 5
    monkeypatch.setattr(module, "DECIDED_LENGTH_MAX", 50)
    for n in range(100):
        found.verdict(Right.PUBLISH, f"{n}/{'x' * 20}")
    assert len(found._decided[Right.PUBLISH]) <= 3


def test_what_many_remember_has_one_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DECIDED_MAX", 50)
    together, found = Decided(), [rule("allow publish %u/#")]
    of_users = [Rules(found, f"u{n}", decided=together) for n in range(10)]
    for topic in range(100):
        for number, one in enumerate(of_users):
            for user in (number, number + 1):
                verdict = one.verdict(Right.PUBLISH, f"u{user}/{topic}")
                assert (verdict.allowed is True) == (user == number)
    assert sum(len(one._decided[Right.PUBLISH]) for one in of_users) <= 50
