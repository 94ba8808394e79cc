"""Filters against names, all of them lines of text: by `matches`, by the tree, by definition."""

from __future__ import annotations

from broker.errors import TopicFilterInvalid, TopicNameInvalid
from broker.topics import (
    TopicTree,
    literal_prefix,
    matches,
    parse_shared,
    validate_filter,
    validate_name,
)
from tests.support.topics import by_definition

LINES_MAX = 12
"""So that each can be tried with each."""


def check(data: bytes) -> None:
    words = data.decode(errors="surrogateescape").split("\n")[:LINES_MAX]
    filters = list(dict.fromkeys(word for word in words if is_filter(word)))
    tree: TopicTree[str, str] = TopicTree()
    for filter in filters:
        tree.add(filter, "client", filter)
    for name in filter_names(words):
        wanted = [filter for filter in filters if by_definition(filter, name)]
        assert [filter for filter in filters if matches(filter, name)] == wanted
        assert sorted(tree.match(name)) == sorted(wanted)
        assert all(name.startswith(literal_prefix(filter)) for filter in wanted)
    for number, filter in enumerate(filters):
        assert tree.remove(filter, "client") == filter
        assert len(tree) == len(filters) - number - 1
    assert tree._named.is_empty()
    assert tree._leading.is_empty()


def is_filter(word: str) -> bool:
    try:
        validate_filter(word)
    except TopicFilterInvalid:
        return False
    try:
        shared = parse_shared(word)
    except TopicFilterInvalid:
        assert word.startswith("$share/")
    else:
        assert (shared is not None) == word.startswith("$share/")
        assert shared is None or "/".join(("$share", *shared)) == word
    return True


def filter_names(words: list[str]) -> list[str]:
    names = []
    for word in words:
        try:
            validate_name(word)
        except TopicNameInvalid:
            continue
        assert is_filter(word)
        names.append(word)
    return names
