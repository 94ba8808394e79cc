from __future__ import annotations

import resource

import pytest

from broker.net.open_files import FILES_RESERVED, connections_possible


@pytest.fixture
def limits(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Of this process, as far as it knows: the last of the list."""
    limits = [(1024, 5000)]
    monkeypatch.setattr(resource, "getrlimit", lambda _: limits[-1])
    monkeypatch.setattr(resource, "setrlimit", lambda _, new: limits.append(new))
    return limits


def test_the_soft_limit_is_raised_as_far_as_needed(limits: list[tuple[int, int]]) -> None:
    assert connections_possible(2000) == 2000
    assert limits[-1] == (2000 + FILES_RESERVED, 5000)


def test_few_connections_need_no_higher_limit(limits: list[tuple[int, int]]) -> None:
    assert connections_possible(100) == 100
    assert len(limits) == 1


def test_there_are_no_more_than_the_hard_limit_leaves(limits: list[tuple[int, int]]) -> None:
    assert connections_possible(20_000) == 5000 - FILES_RESERVED
    assert limits[-1] == (5000, 5000)


def test_where_the_limit_cannot_be_raised_there_are_as_many_as_it_leaves(
    limits: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """macOS"""

    def refuse(*_: object) -> None:
        raise OSError

    monkeypatch.setattr(resource, "setrlimit", refuse)
    assert connections_possible(20_000) == 1024 - FILES_RESERVED
