"""Groups and dead letters of a broker elsewhere are seen as those of a database here are."""

from __future__ import annotations

from typing import Any

import pytest

from cli.net.address import Address
from cli.operate import queue_view
from cli.operate.queue_view import letters, looking
from cli.operate.remote import Remote

ELSEWHERE = Remote(Address(host="h"))


def letter(group: str, offset: int, payload: str | None = None) -> dict[str, Any]:
    return {"group": group, "offset": offset, "payload": payload}


def test_pages_are_read_on_also_where_one_shows_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str]] = []
    pages: list[dict[str, Any]] = [
        {"letters": [letter("a", 1, "AP8="), letter("a", 2)], "next": ["a", 2]},
        {"letters": [], "next": ["b", 9]},
        {"letters": [letter("c", 3)], "next": ["c", 3]},
        {"letters": [], "next": None},
    ]

    def request(method: str, path: str, where: Remote, query: dict[str, str]) -> dict[str, Any]:
        assert (method, path, where) == ("GET", "/dead-letters", ELSEWHERE)
        asked.append((query["group"], query["offset"]))
        return pages.pop(0)

    monkeypatch.setattr(queue_view, "request", request)
    with looking(ELSEWHERE) as view:
        found = [*letters(view, None)]
    assert [(each["group"], each["offset"]) for each in found] == [("a", 1), ("a", 2), ("c", 3)]
    assert [each["payload"] for each in found] == [b"\0\xff", None, None]
    assert asked == [("", "-1"), ("a", "2"), ("b", "9"), ("c", "3")]


def test_those_of_one_group_end_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    page = {"letters": [letter("a", 5), letter("b", 1)], "next": ["b", 1]}
    monkeypatch.setattr(queue_view, "request", lambda *_: page)
    with looking(ELSEWHERE) as view:
        assert [each["offset"] for each in letters(view, "a", 5)] == [5]


def test_groups_their_names_and_what_is_unread(monkeypatch: pytest.MonkeyPatch) -> None:
    answers: dict[str, dict[str, Any]] = {
        "/groups": {"groups": [{"group": "$share/a/t"}], "names": ["$share/a/t", "$share/b/t"]},
        "/groups/one": {"unread": 7},
    }
    monkeypatch.setattr(queue_view, "request", lambda method, path, *_, **__: answers[path])
    with looking(ELSEWHERE) as view:
        assert view.groups() == [{"group": "$share/a/t"}]
        assert view.names() == ["$share/a/t", "$share/b/t"]
        assert view.unread({"group": "$share/a/t"}) == 7
