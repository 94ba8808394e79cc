"""`pubsub group` and `pubsub dead-letters`: read from the database, changed by the broker.

What is shown is read from the database itself, whether or not a broker runs. A broker that runs is
asked over its Unix socket for what changes something; where none runs, it is done as a broker would
do it, with the lock of the data directory held.

A group is its name and its filter together. A bare name is enough where one filter has it.
"""

from __future__ import annotations

import shutil
import sqlite3
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from broker.config import DATABASE
from broker.documents.queues import (
    ATTEMPTS_MAX,
    BACKOFF_FIRST_MS,
    BACKOFF_MAX_MS,
    LEASE_MS,
    GroupDocument,
)
from broker.plural import counted
from broker.store.sqlite.reader import Reader
from broker.topics import SHARE_PREFIX, is_shared, parse_shared
from cli import database, output, times
from cli.admin import is_running, request
from cli.at_rest import ran
from cli.failure import CommandFailed, Exit

TIMEOUT_S = 300.0
"""For a broker that gives 100,000 dead letters back."""
UNREAD_MAX = 1_000_000
"""Messages that `show` counts as unread; beyond, it says that there are more."""
Record = dict[str, Any]

_AFTER_GROUPS = f"{SHARE_PREFIX[:-1]}0"
"""Names of groups lie between the prefix and this."""
_GROUPS = f"""
SELECT s.client_id, g.client_id IS NOT NULL, ifnull(g.attempts_max, {ATTEMPTS_MAX}),
    ifnull(g.backoff_first_ms, {BACKOFF_FIRST_MS}),
    ifnull(g.backoff_max_ms, {BACKOFF_MAX_MS}), ifnull(g.lease_ms, {LEASE_MS}),
    ifnull(c.offset, 0),
    (SELECT count(*) FROM subscriptions f INDEXED BY subscriptions_shared
        WHERE f.filter = s.client_id
        AND f.filter >= '{SHARE_PREFIX}' AND f.filter < '{_AFTER_GROUPS}'),
    (SELECT count(*) FROM retries r WHERE r.client_id = s.client_id),
    (SELECT count(*) FROM dead_letters d WHERE d.group_name = s.client_id)
FROM sessions s LEFT JOIN group_settings g USING (client_id) LEFT JOIN cursors c USING (client_id)
WHERE s.client_id >= '{SHARE_PREFIX}' AND s.client_id < '{_AFTER_GROUPS}' ORDER BY s.client_id
"""
_LETTERS = """
SELECT group_name, offset, died_at, attempts, reason, worker, topic, published_at, publisher,
    payload FROM dead WHERE (group_name, offset) > (?, ?) ORDER BY group_name, offset LIMIT ?
"""
_LETTER_COLUMNS = (
    *("group", "offset", "died_at", "attempts", "reason", "worker"),
    *("topic", "published_at", "publisher", "payload"),
)
PAGE = 500


# Groups


def create(
    data_dir: Path,
    name: str,
    topic_filter: str,
    *,
    start: str | None,
    asked: Mapping[str, str],
    json: bool,
) -> None:
    """Raises CommandFailed."""
    now_us = time.time_ns() // 1000
    if start is not None:
        start, understood = times.canonical("--from", start, now_us)
        if understood:
            output.note(f"--from: {understood}")
    group = f"{SHARE_PREFIX}{name}/{topic_filter}"
    _check_name(name)
    parse_shared(group)
    query = {"name": group, **asked} | ({"from": start} if start is not None else {})
    made = _done(data_dir, "/groups/create", query, lambda queues: _create(queues, query))
    if json:
        output.data(output.json_line(made))
        return
    how = "goes on" if made["taken_over"] else "begins"
    output.text(output.one_line(f"{group} {how} at offset {made['begins_at']}") + "\n")
    output.hint(f"its workers: pubsub sub '{topic_filter}' --group {name} --exec CMD")


async def _create(queues: Any, asked: Mapping[str, str]) -> Record:
    return asdict(await queues.create(GroupDocument.asked(asked), asked.get("from", "")))


def ls(data_dir: Path, *, json: bool) -> None:
    """Raises CommandFailed, StoreError."""
    with database.reading(data_dir / DATABASE) as connection:
        records = [*_groups(connection)]
    if json:
        for record in records:
            output.data(output.json_line(record))
        return
    terminal = output.to_terminal()
    if not records and terminal:
        output.note("no groups; make one with: pubsub group create NAME --filter FILTER")
    columns = ("group", "made_by", "members", "cursor", "retries", "dead_letters")
    _write(columns, records, terminal=terminal)


def show(data_dir: Path, name: str, topic_filter: str | None, *, json: bool) -> None:
    """Raises CommandFailed, StoreError."""
    with database.reading(data_dir / DATABASE) as connection:
        records = {record["group"]: record for record in _groups(connection)}
        record = records[resolve(name, topic_filter, records)]
        record["unread"] = _unread(connection, record)
    if json:
        output.data(output.json_line(record))
        return
    width = max(map(len, record))
    lines = [f"{key:<{width}}  {output.escaped(str(value))}\n" for key, value in record.items()]
    output.text("".join(lines))


def rm(data_dir: Path, name: str, topic_filter: str | None, *, json: bool) -> None:
    """Raises CommandFailed, StoreError."""
    group = named(data_dir, name, topic_filter)
    _done(data_dir, "/groups/rm", {"name": group}, lambda queues: _remove(queues, group))
    if json:
        output.data(output.json_line({"group": group}))
    else:
        output.text(output.one_line(f"{group} is removed: it ends with its last member") + "\n")


async def _remove(queues: Any, group: str) -> Record:
    await queues.remove(group)
    return {}


def named(data_dir: Path, name: str, topic_filter: str | None) -> str:
    """The group that is meant, of those that are there. Raises as `resolve`; StoreError."""
    with database.reading(data_dir / DATABASE) as connection:
        return resolve(name, topic_filter, [record["group"] for record in _groups(connection)])


def resolve(name: str, topic_filter: str | None, groups: Sequence[str] | Mapping[str, Any]) -> str:
    """The group that is meant. Raises CommandFailed: none (66), or one of several (2)."""
    if topic_filter is not None:
        name = f"{SHARE_PREFIX}{name}/{topic_filter}"
    if is_shared(name):
        found = [group for group in groups if group == name]
    else:
        found = [group for group in groups if group.startswith(f"{SHARE_PREFIX}{name}/")]
    if not found:
        raise CommandFailed(
            f"there is no group {output.escaped(name)}",
            "pubsub group ls lists them",
            Exit.NOTHING_THERE,
        )
    if len(found) > 1:
        named = ", ".join(output.escaped(group) for group in found[:10])
        raise CommandFailed(
            f"{len(found)} groups are named {output.escaped(name)}: {named}",
            "say which one with --filter",
            Exit.USAGE,
        )
    return found[0]


def _groups(connection: sqlite3.Connection) -> Iterator[Record]:
    for row in connection.execute(_GROUPS):
        shared = parse_shared(row[0])
        assert shared is not None
        yield {
            "group": row[0],
            "name": shared[0],
            "filter": shared[1],
            "made_by": "command" if row[1] else "members",
            "attempts": row[2],
            "backoff_first_s": row[3] / 1000,
            "backoff_max_s": row[4] / 1000,
            "lease_s": row[5] / 1000,
            "cursor": row[6],
            "members": row[7],
            "retries": row[8],
            "dead_letters": row[9],
        }


def _unread(connection: sqlite3.Connection, record: Record) -> int:
    """Messages above the cursor that match: what members have, and what nobody has yet."""
    reader = Reader(connection)
    position, count = record["cursor"] + 1, 0
    (high,) = connection.execute("SELECT ifnull(max(offset), 0) FROM messages").fetchone()
    while position <= high and count < UNREAD_MAX:
        found, position = reader.count_part([record["filter"]], position, high)
        count += found
    return count


# Dead letters


def list_letters(
    data_dir: Path, group: str | None, topic_filter: str | None, *, json: bool
) -> None:
    """Raises CommandFailed, StoreError."""
    terminal = output.to_terminal() and not json
    with database.reading(data_dir / DATABASE) as connection:
        if group is not None:
            group = resolve(group, topic_filter, _named(connection))
        rows: list[Record] = []
        for record in _letters(connection, group):
            if json:
                output.data(output.json_line(_told(record)))
            else:
                rows.append(record)
            if len(rows) == PAGE and not terminal:
                _write(LISTED, rows, terminal=False)
                rows = []
    if not json:
        if not rows and terminal:
            output.note("no dead letters")
        _write(LISTED, rows, terminal=terminal)


LISTED = ("group", "offset", "died_at", "attempts", "topic", "reason")


def show_letter(
    data_dir: Path, group: str, offset: int, topic_filter: str | None, *, json: bool
) -> None:
    """Raises CommandFailed, StoreError."""
    with database.reading(data_dir / DATABASE) as connection:
        group = resolve(group, topic_filter, _named(connection))
        rows = connection.execute(_LETTERS, (group, offset - 1, 1)).fetchall()
        if not rows or rows[0][:2] != (group, offset):
            raise CommandFailed(
                f"{output.escaped(group)} has no dead letter at offset {offset}",
                "pubsub dead-letters lists them",
                Exit.NOTHING_THERE,
            )
    record = _told(dict(zip(_LETTER_COLUMNS, rows[0], strict=True)))
    if json:
        output.data(output.json_line(record))
        return
    width = max(map(len, record))
    lines = [f"{key:<{width}}  {output.escaped(str(value))}\n" for key, value in record.items()]
    output.text("".join(lines))


def change_letters(
    data_dir: Path,
    what: str,
    group: str,
    offset: int | None,
    topic_filter: str | None,
    *,
    json: bool,
) -> None:
    """`what` is redrive or drop, of `registry/queues.py`. Raises CommandFailed, StoreError."""
    with database.reading(data_dir / DATABASE) as connection:
        group = resolve(group, topic_filter, _named(connection))
    asked = {"group": group} | ({} if offset is None else {"offset": str(offset)})

    async def change(queues: Any) -> Record:
        return {"count": await getattr(queues, what)(group, offset)}

    count = _done(data_dir, f"/dead-letters/{what}", asked, change)["count"]
    if json:
        output.data(output.json_line({"group": group, "count": count}))
        return
    letters = counted(count, "dead letter")
    said = f"{letters} dropped" if what == "drop" else f"{letters} given back to {group}"
    output.text(output.one_line(said) + "\n")


def _done(
    data_dir: Path,
    path: str,
    asked: Mapping[str, str],
    at_rest_do: Callable[[Any], Awaitable[Record]],
) -> Record:
    """What the broker did, or what we did where none runs."""
    if is_running(data_dir):
        return request("POST", path, data_dir, asked, timeout_s=TIMEOUT_S)
    from broker import at_rest

    database.require_log(data_dir / DATABASE)

    async def do() -> Record:
        async with at_rest.queues(data_dir) as queues:
            return await at_rest_do(queues)

    with output.waiting("opening the log"):
        return ran(do)


def _named(connection: sqlite3.Connection) -> list[str]:
    """Groups that are there, or that have dead letters."""
    rows = connection.execute("SELECT DISTINCT group_name FROM dead_letters")
    return sorted({*(name for (name,) in rows), *(r["group"] for r in _groups(connection))})


def _letters(connection: sqlite3.Connection, group: str | None) -> Iterator[Record]:
    """In pages, so that no look at the database is long."""
    after = (group or "", -1)
    while rows := connection.execute(_LETTERS, (*after, PAGE)).fetchall():
        for row in rows:
            if group is not None and row[0] != group:
                return
            yield dict(zip(_LETTER_COLUMNS, row, strict=True))
        after = rows[-1][:2]


def _told(record: Record) -> Record:
    told = {key: value for key, value in record.items() if key != "payload"}
    if record["payload"] is not None:
        told |= output.payload_fields(record["payload"])
    return told


def _write(columns: Sequence[str], records: Sequence[Record], *, terminal: bool) -> None:
    """A table for a person, lines with tabs for a pipe."""
    cells = [[output.escaped(str(record[column])) for column in columns] for record in records]
    if not terminal:
        output.text("".join("\t".join(row) + "\n" for row in cells))
        return
    if not cells:
        return
    cells.insert(0, [column.upper().replace("_", " ") for column in columns])
    widths = [max(len(row[n]) for row in cells) for n in range(len(columns))]
    room = shutil.get_terminal_size().columns
    lines = ["  ".join(f"{c:<{w}}" for c, w in zip(row, widths, strict=True)) for row in cells]
    output.text("".join(f"{_cut(line.rstrip(), room)}\n" for line in lines))


def _cut(line: str, room: int) -> str:
    return line if len(line) <= room else f"{line[: room - 1]}…"


def _check_name(name: str) -> None:
    if not name or any(character in name for character in "/+#"):
        raise CommandFailed(f"{name!r} is no name of a group", "leave /, + and # out", Exit.USAGE)
