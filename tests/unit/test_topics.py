"""Topic Names and Topic Filters: the examples of the standard, the limits, the tree."""

from __future__ import annotations

import pytest

from broker.errors import TopicFilterInvalid, TopicNameInvalid, TopicNameRefused
from broker.topics import (
    TopicTree,
    has_control_character,
    is_literal,
    literal_prefix,
    matches,
    parse_shared,
    refuse_control_characters,
    refuse_reserved,
    validate_filter,
    validate_name,
    wildcard_pattern,
)


@pytest.mark.parametrize("name", ["a", "/", "//", "a/b c/d", "$SYS/x", "ä/€", "a/" * 127 + "a"])
def test_legal_names(name: str) -> None:
    validate_name(name)
    validate_filter(name)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("", "is empty"),
        ("a/+/b", "wildcard"),
        ("a/#", "wildcard"),
        ("a+b", "wildcard"),
        ("a\0b", "NUL"),
        ("a\ud800b", "surrogate"),
        ("/" * 200, "201 levels: use at most 200"),
        ("a" * 65_536, "65536 bytes long in UTF-8: use at most 65535"),
        ("€" * 21_846, "65538 bytes long in UTF-8"),
    ],
)
def test_illegal_names_say_what_is_wrong(name: str, says: str) -> None:
    """[MQTT-4.7.0-1, 4.7.3-1..3]"""
    with pytest.raises(TopicNameInvalid, match=says):
        validate_name(name)


@pytest.mark.parametrize(
    "name",
    [
        *("$SYS", "$SYS/x", "$SYS/broker/connection/state", "$SYS/broker/connection/a/state/x"),
        *("$dead/g/t", "$replay", "$replay/ended", "$replay/-1/t", "$share/g/t", "$share"),
        *("$delayed/5/$replay/-1/t", "$delayed/5/$SYS/x"),
    ],
)
def test_what_no_client_publishes_to(name: str) -> None:
    """MQTT 5, section 4.7.2"""
    with pytest.raises(TopicNameRefused):
        refuse_reserved(name)


@pytest.mark.parametrize(
    "name",
    [
        "$SYSTEM",
        "a/$SYS",
        "$replays",
        "$shared/x",
        "a/$replay/-1/t",
        "$SYS/broker/connection/a.b/state",
        "$SYS/broker/connection/a/b/state",
    ],
)
def test_a_bridge_publishes_its_state_where_mosquitto_has_it_and_others_below_their_own_names(
    name: str,
) -> None:
    refuse_reserved(name)


@pytest.mark.parametrize("filter", ["#", "+", "/#", "+/+", "+/a/#", "a/+/b/+", "/+", "$SYS/#"])
def test_legal_filters(filter: str) -> None:
    validate_filter(filter)


@pytest.mark.parametrize(
    ("filter", "says"),
    [
        ("", "is empty"),
        ("a#", "#"),
        ("a/b#", "#"),
        ("a/#/b", "#"),
        ("#/#", "#"),
        ("##", "#"),
        ("a+", r"\+"),
        ("a/+b/c", r"\+"),
        ("++", r"\+"),
        ("a+/#", r"\+"),
        ("a/\0/#", "NUL"),
        ("+/" * 200 + "+", "201 levels"),
        ("€" * 21_846, "65538 bytes"),
    ],
)
def test_illegal_filters_say_what_is_wrong(filter: str, says: str) -> None:
    """[MQTT-4.7.1-1, 4.7.1-2]"""
    with pytest.raises(TopicFilterInvalid, match=says):
        validate_filter(filter)


def test_control_characters_and_non_characters_are_those_of_the_standard() -> None:
    """[MQTT 5, 1.5.4]"""
    found = {code for code in range(0x110000) if has_control_character(f"a/{chr(code)}")}
    controls = {*range(0x20), *range(0x7F, 0xA0)}
    non_characters = {code for code in range(0x110000) if code & 0xFFFE == 0xFFFE}
    surrogates = {*range(0xD800, 0xE000)}
    assert found == controls | surrogates | non_characters | {*range(0xFDD0, 0xFDF0)}
    with pytest.raises(TopicNameRefused, match="control character"):
        refuse_control_characters("a\x1bb")
    refuse_control_characters("ä/€/\u00a0\u00ad\u202e\ufeff\U0001f600")


def test_limits_can_be_set() -> None:
    validate_name("abc/d", bytes_max=5, levels_max=2)
    with pytest.raises(TopicNameInvalid):
        validate_name("abc/de", bytes_max=5)
    with pytest.raises(TopicFilterInvalid):
        validate_filter("a/b/#", levels_max=2)


@pytest.mark.parametrize(
    ("filter", "name"),
    [
        ("sport/tennis/player1/#", "sport/tennis/player1"),
        ("sport/tennis/player1/#", "sport/tennis/player1/ranking"),
        ("sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon"),
        ("sport/#", "sport"),
        ("#", "sport/tennis"),
        ("#", "/"),
        ("sport/+", "sport/"),
        ("+/+", "/finance"),
        ("/+", "/finance"),
        ("/#", "/"),
        ("+/monitor/#", "a/monitor"),
        ("$SYS/#", "$SYS/monitor/clients"),
        ("$SYS/#", "$SYS"),
        ("$SYS/monitor/+", "$SYS/monitor/clients"),
        ("a/$b", "a/$b"),
        ("a/+", "a/$b"),
    ],
)
def test_the_standards_examples_that_match(filter: str, name: str) -> None:
    """4.7.1.2, 4.7.1.3, 4.7.2"""
    assert matches(filter, name)
    assert tree_of(filter).match(name) == [filter]


@pytest.mark.parametrize(
    ("filter", "name"),
    [
        ("sport/tennis/+", "sport/tennis/player1/ranking"),
        ("sport/+", "sport"),
        ("+", "/finance"),
        ("sport", "Sport"),
        ("a/+/c", "a/b/d"),
        ("/a", "a"),
        ("a/", "a"),
        ("a/b/#", "a"),
        ("a/b/#", "ab/b"),
        ("#", "$SYS/monitor"),
        ("+/monitor/Clients", "$SYS/monitor/Clients"),
        ("+", "$SYS"),
    ],
)
def test_the_standards_examples_that_do_not_match(filter: str, name: str) -> None:
    """4.7.1.2, 4.7.1.3, [MQTT-4.7.2-1]"""
    assert not matches(filter, name)
    assert tree_of(filter).match(name) == []


@pytest.mark.parametrize(
    ("filter", "prefix"),
    [("a/b", "a/b"), ("a/+/b", "a/"), ("a/b/#", "a/b"), ("#", ""), ("+/a", ""), ("/#", "")],
)
def test_literal_prefix_is_what_every_match_begins_with(filter: str, prefix: str) -> None:
    assert literal_prefix(filter) == prefix
    assert is_literal(filter) == (filter == prefix)


def test_shared_subscription_is_a_name_and_a_filter() -> None:
    assert parse_shared("$share/workers/jobs/+/#") == ("workers", "jobs/+/#")
    assert parse_shared("$share/workers//") == ("workers", "/")
    assert parse_shared("jobs/#") is None
    assert parse_shared("$shared/workers/jobs") is None


@pytest.mark.parametrize(
    "filter", ["$share/", "$share/g", "$share/g/", "$share//a", "$share/g+/a", "$share/#/a"]
)
def test_shared_subscription_needs_a_plain_name_and_a_filter(filter: str) -> None:
    """[MQTT-4.8.2-1, 4.8.2-2]"""
    with pytest.raises(TopicFilterInvalid, match=r"\$share/<name>/<filter>"):
        parse_shared(filter)


def test_shared_subscription_holds_its_filter_to_the_rules() -> None:
    with pytest.raises(TopicFilterInvalid, match="#"):
        parse_shared("$share/g/a/#/b")


def test_adding_a_key_again_replaces_its_value() -> None:
    tree: TopicTree[str, int] = TopicTree()
    assert tree.add("a/+", "k", 1) is None
    assert tree.add("a/+", "k", 2) == 1
    assert tree.match("a/b") == [2]
    assert len(tree) == 1


def test_a_key_comes_once_for_each_filter_that_matches() -> None:
    tree: TopicTree[str, str] = TopicTree()
    for filter in ("a/b", "a/+", "a/#", "#", "+/b", "x/#"):
        tree.add(filter, "k", filter)
    assert sorted(tree.match("a/b")) == ["#", "+/b", "a/#", "a/+", "a/b"]


def test_removing_gives_the_value_and_leaves_the_others() -> None:
    tree: TopicTree[str, int] = TopicTree()
    tree.add("a/+/#", "k", 1)
    tree.add("a/+", "k", 2)
    tree.add("a/+", "other", 3)
    assert tree.remove("a/+", "k") == 2
    assert tree.remove("a/+", "k") is None
    assert tree.remove("a/b", "k") is None
    assert sorted(tree.match("a/b")) == [1, 3]
    assert set(tree.filters()) == {"a/+/#", "a/+"}
    assert len(tree) == 2


def test_an_emptied_tree_holds_no_nodes() -> None:
    tree: TopicTree[str, int] = TopicTree()
    filters = ["a/+", "a/+/b/#", "a/#", "#", "+", "+/a/b", "x", "a/b/+/c"]
    for filter in filters:
        tree.add(filter, "k", 1)
    for filter in filters:
        tree.remove(filter, "k")
    assert len(tree) == 0
    assert not tree.filters()
    assert tree._named.is_empty()
    assert tree._leading.is_empty()


def test_thousands_of_levels_do_not_exhaust_the_stack() -> None:
    tree: TopicTree[str, int] = TopicTree()
    deep = "a/" * 20_000
    tree.add(deep + "+", "k", 1)
    tree.add(deep + "#", "k", 2)
    assert sorted(tree.match(deep + "b")) == [1, 2]
    tree.remove(deep + "+", "k")
    tree.remove(deep + "#", "k")
    assert tree._named.is_empty()


class CountedLevel(str):
    """A name whose levels count how often they are hashed: what a match looked at."""

    hashed = 0

    def __hash__(self) -> int:
        CountedLevel.hashed += 1
        return super().__hash__()

    def __eq__(self, other: object) -> bool:
        return super().__eq__(other)

    def split(self, *args: object, **kwargs: object) -> list[str]:
        return [CountedLevel(level) for level in str(self).split("/")]


def test_filters_that_do_not_match_cost_a_match_nothing() -> None:
    looked_at = []
    for filters in (10, 10_000):
        tree: TopicTree[int, int] = TopicTree()
        for number in range(filters):
            tree.add(f"site/+/device{number}/temperature/#", number, number)
            tree.add(f"+/line/device{number}/{number}/+", number, number)
            tree.add(f"site/line/device{number}/temperature/x", number, number)
        CountedLevel.hashed = 0
        assert len(tree.match(CountedLevel("site/line/device7/temperature/x"))) == 2
        looked_at.append(CountedLevel.hashed)
    assert looked_at[0] == looked_at[1] < 20


def tree_of(*filters: str) -> TopicTree[str, str]:
    tree: TopicTree[str, str] = TopicTree()
    for filter in filters:
        tree.add(filter, "k", filter)
    return tree


@pytest.mark.parametrize(
    ("topic_filter", "pattern"),
    [("a", ""), ("a/b", ""), ("a/+/b", "/+/"), ("+", "+"), ("a/b/#", "//#"), ("+/+/#", "+/+/#")],
)
def test_where_the_wildcards_of_a_filter_are(topic_filter: str, pattern: str) -> None:
    assert wildcard_pattern(topic_filter) == pattern
