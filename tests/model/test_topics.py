"""Matching against a three-line definition, and the tree against matching."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from broker.errors import TopicFilterInvalid, TopicNameInvalid
from broker.topics import TopicTree, literal_prefix, matches, validate_filter, validate_name
from tests.support.topics import by_definition

LEVEL = st.sampled_from(["", "a", "b", "$", "$x"])
NAMES = st.lists(LEVEL, min_size=1, max_size=5).map("/".join).filter(bool)
FILTERS = (
    st.tuples(st.lists(LEVEL | st.just("+"), max_size=5), st.sampled_from([[], ["#"]]))
    .map(lambda parts: "/".join(parts[0] + parts[1]))
    .filter(bool)
)


@given(FILTERS, NAMES)
def test_matches_is_the_definition(filter: str, name: str) -> None:
    validate_name(name)
    validate_filter(filter)
    assert matches(filter, name) == by_definition(filter, name)


@given(FILTERS, NAMES)
def test_what_matches_begins_with_the_literal_prefix(filter: str, name: str) -> None:
    assert not matches(filter, name) or name.startswith(literal_prefix(filter))


@given(
    st.lists(st.tuples(st.booleans(), FILTERS, st.integers(0, 2)), max_size=60),
    st.lists(NAMES, max_size=10),
)
def test_tree_is_a_dict_searched_with_matches(
    steps: list[tuple[bool, str, int]], names: list[str]
) -> None:
    tree: TopicTree[int, tuple[int, str, int]] = TopicTree()
    model: dict[tuple[str, int], tuple[int, str, int]] = {}
    for number, (adds, filter, key) in enumerate(steps):
        if adds:
            value = (number, filter, key)
            assert tree.add(filter, key, value) == model.get((filter, key))
            model[filter, key] = value
        else:
            assert tree.remove(filter, key) == model.pop((filter, key), None)
        assert len(tree) == len(model)
    assert set(tree.filters()) == {filter for filter, _ in model}
    for name in names:
        wanted = [value for (filter, _), value in model.items() if matches(filter, name)]
        assert sorted(tree.match(name)) == sorted(wanted)
    for filter, key in model:
        tree.remove(filter, key)
    assert tree._named.is_empty()
    assert tree._leading.is_empty()


@given(st.text(alphabet=st.characters(exclude_categories=()), max_size=20))
def test_any_text_is_legal_or_refused_by_name(text: str) -> None:
    for validate, refusal in (
        (validate_name, TopicNameInvalid),
        (validate_filter, TopicFilterInvalid),
    ):
        try:
            validate(text)
        except refusal:
            continue
        assert text.encode()
