"""What is seen of groups and dead letters: in the database itself, whether or not a broker runs; of
a broker elsewhere, as much as whoever asks may administer."""

from __future__ import annotations

import sqlite3
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from broker.config import DATABASE
from broker.store.sqlite import queues as tables
from broker.store.sqlite.queues import Record
from cli.log import database
from cli.operate.admin import Where, is_running, request
from cli.operate.remote import Remote

TIMEOUT_S = 300.0
"""For a broker that counts a million unread messages of a group."""


class View(Protocol):
    """Raises CommandFailed, StoreError."""

    def groups(self) -> list[Record]: ...

    def names(self) -> list[str]:
        """Groups that are there, or that have dead letters."""
        ...

    def unread(self, group: Record) -> int: ...

    def page(self, after: tuple[str, int]) -> tuple[list[Record], tuple[str, int] | None]:
        """Dead letters after this one, and after which to ask on; None: there are no more."""
        ...


@contextmanager
def looking(where: Where) -> Iterator[View]:
    """Raises CommandFailed: there is no log; StoreError."""
    if isinstance(where, Remote):
        yield _Elsewhere(where)
        return
    with database.reading(where / DATABASE) as connection:
        yield _Here(connection, where)


def letters(view: View, group: str | None, offset: int = 0) -> Iterator[Record]:
    """Of this group, None: of all; from this offset on."""
    after: tuple[str, int] | None = (group or "", offset - 1)
    while after is not None:
        page, after = view.page(after)
        for letter in page:
            if group is not None and letter["group"] != group:
                return
            yield letter


class _Here:
    def __init__(self, connection: sqlite3.Connection, data_dir: Path) -> None:
        self._log = connection
        self._data_dir = data_dir

    def groups(self) -> list[Record]:
        if is_running(self._data_dir):  # The broker knows who is connected.
            return _Elsewhere(self._data_dir).groups()
        return [*tables.groups(self._log)]

    def names(self) -> list[str]:
        return tables.names(self._log)

    def unread(self, group: Record) -> int:
        return tables.unread(self._log, group)

    def page(self, after: tuple[str, int]) -> tuple[list[Record], tuple[str, int] | None]:
        page = tables.letters(self._log, after)
        return page, (page[-1]["group"], page[-1]["offset"]) if page else None


class _Elsewhere:
    def __init__(self, broker: Where) -> None:
        self._broker = broker

    def groups(self) -> list[Record]:
        found: list[Record] = request("GET", "/groups", self._broker)["groups"]
        return found

    def names(self) -> list[str]:
        found: list[str] = request("GET", "/groups", self._broker)["names"]
        return found

    def unread(self, group: Record) -> int:
        asked = {"name": group["group"]}
        shown = request("GET", "/groups/one", self._broker, asked, timeout_s=TIMEOUT_S)
        return int(shown["unread"])

    def page(self, after: tuple[str, int]) -> tuple[list[Record], tuple[str, int] | None]:
        asked = {"group": after[0], "offset": str(after[1])}
        answer = request("GET", "/dead-letters", self._broker, asked)
        for letter in answer["letters"]:
            if letter["payload"] is not None:
                letter["payload"] = b64decode(letter["payload"])
        following = answer["next"]
        return answer["letters"], None if following is None else (following[0], following[1])
