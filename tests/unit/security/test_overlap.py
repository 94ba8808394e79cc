"""What two filters have in common, beside every name of a small alphabet."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from broker.security.overlap import common, covers, levels_of, names
from broker.topics import matches

LEVEL = st.sampled_from(["", "a", "b", "$x", "+"])
FILTERS = (
    st.tuples(st.lists(LEVEL, max_size=3), st.sampled_from([[], ["#"]]))
    .map(lambda parts: "/".join(parts[0] + parts[1]))
    .filter(bool)
)
NAMES = [
    name
    for length in (1, 2, 3, 4)
    for levels in product(["", "a", "b", "$x"], repeat=length)
    if (name := "/".join(levels))
]
"""One level more than the filters have, so that `#` shows."""
ALL_NAMES = [
    name
    for length in (1, 2, 3, 4, 5)
    for levels in product(["", "a", "b", "$x", "other"], repeat=length)
    if (name := "/".join(levels))
]
"""Also with a level that no filter has."""


def matching(topic_filter: str) -> set[str]:
    return {name for name in NAMES if matches(topic_filter, name)}


@given(FILTERS, FILTERS)
@example("/#", "+")  # Only the empty name would match both.
def test_it_matches_what_both_match(first: str, second: str) -> None:
    both = common(levels_of(first), levels_of(second))
    expected = matching(first) & matching(second)
    assert expected == (set() if both is None else matching("/".join(both)))
    assert (both is None) == (not expected)


@given(FILTERS, FILTERS)
def test_what_covers_matches_all_of_it(wide: str, narrow: str) -> None:
    if covers(levels_of(wide), levels_of(narrow)):
        assert matching(wide) >= matching(narrow)


@pytest.mark.parametrize(
    ("wide", "narrow", "does"),
    [
        ("#", "a/#", True),
        ("a/#", "a", True),
        ("a/+", "a/b", True),
        ("a/+", "a/#", False),
        ("a/#", "a/#", True),
        ("#", "$x/#", False),
        ("a", "+", False),
    ],
)
def test_covering(wide: str, narrow: str, does: bool) -> None:
    assert covers(levels_of(wide), levels_of(narrow)) is does


@given(FILTERS, st.lists(FILTERS, max_size=4))
def test_some_names_stand_for_all_that_a_filter_has(topic_filter: str, others: list[str]) -> None:
    """Each of `ALL_NAMES` is matched by one of the others exactly if each of these few is."""
    exact = {len(levels_of(other)) for other in others if not other.endswith("#")}
    few = ["/".join(name) for name in names(levels_of(topic_filter), exact)]
    every = [name for name in ALL_NAMES if matches(topic_filter, name)]
    assert all(matches(topic_filter, name) for name in few)

    def covered(name: str) -> bool:
        return any(matches(other, name) for other in others)

    assert all(map(covered, few)) == all(map(covered, every))
