"""`pubsub group` and `pubsub dead-letters`: seen as in `queue_view`, changed by the broker.

A broker that runs, or one elsewhere, is asked for what changes something. Where none runs, it is
done as a broker would do it, with the lock of the data directory held.

A group is its name and its filter together. A bare name is enough where one filter has it.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from broker.config import DATABASE
from broker.documents.queues import GroupDocument
from broker.plural import counted
from broker.topics import SHARE_PREFIX, is_shared, parse_shared
from cli.log import database
from cli.operate.admin import Where, request, without_broker
from cli.operate.at_rest import ran
from cli.operate.queue_view import letters, looking
from cli.terminal import output, times
from cli.terminal.failure import CommandFailed, Exit

TIMEOUT_S = 300.0
"""For a broker that gives 100,000 dead letters back."""
PAGE = 500
"""Dead letters that are written at once."""
Record = dict[str, Any]

# Groups


def create(
    where: Where,
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
    made = _done(where, "/groups/create", query, lambda queues: _create(queues, query))
    if json:
        output.data(output.json_line(made))
        return
    how = "goes on" if made["taken_over"] else "begins"
    output.text(output.one_line(f"{group} {how} at offset {made['begins_at']}") + "\n")
    output.hint(f"its workers: pubsub sub '{topic_filter}' --group {name} --exec CMD")


async def _create(queues: Any, asked: Mapping[str, str]) -> Record:
    return asdict(await queues.create(GroupDocument.asked(asked), asked.get("from", "")))


def ls(where: Where, *, json: bool) -> None:
    """Raises CommandFailed, StoreError."""
    with looking(where) as view:
        records = view.groups()
    if json:
        for record in records:
            output.data(output.json_line(record))
        return
    terminal = output.to_terminal()
    if not records and terminal:
        output.note("no groups; make one with: pubsub group create NAME --filter FILTER")
    columns = ("group", "made_by", "members", "cursor", "retries", "dead_letters")
    _write(columns, records, terminal=terminal)


def show(where: Where, name: str, topic_filter: str | None, *, json: bool) -> None:
    """Raises CommandFailed, StoreError."""
    with looking(where) as view:
        records = {record["group"]: record for record in view.groups()}
        record = records[resolve(name, topic_filter, records)]
        record["unread"] = view.unread(record)
    if json:
        output.data(output.json_line(record))
        return
    width = max(map(len, record))
    lines = [f"{key:<{width}}  {output.escaped(str(value))}\n" for key, value in record.items()]
    output.text("".join(lines))


def rm(where: Where, name: str, topic_filter: str | None, *, json: bool) -> None:
    """Raises CommandFailed, StoreError."""
    group = named(where, name, topic_filter)
    _done(where, "/groups/rm", {"name": group}, lambda queues: _remove(queues, group))
    if json:
        output.data(output.json_line({"group": group}))
    else:
        output.text(output.one_line(f"{group} is removed: it ends with its last member") + "\n")


async def _remove(queues: Any, group: str) -> Record:
    await queues.remove(group)
    return {}


def named(where: Where, name: str, topic_filter: str | None) -> str:
    """The group that is meant, of those that are there. Raises as `resolve`; StoreError."""
    with looking(where) as view:
        return resolve(name, topic_filter, [record["group"] for record in view.groups()])


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


# Dead letters


def list_letters(where: Where, group: str | None, topic_filter: str | None, *, json: bool) -> None:
    """Raises CommandFailed, StoreError."""
    terminal = output.to_terminal() and not json
    with looking(where) as view:
        if group is not None:
            group = resolve(group, topic_filter, view.names())
        rows: list[Record] = []
        for record in letters(view, group):
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
    where: Where, group: str, offset: int, topic_filter: str | None, *, json: bool
) -> None:
    """Raises CommandFailed, StoreError."""
    with looking(where) as view:
        group = resolve(group, topic_filter, view.names())
        letter = next(letters(view, group, offset), None)
    if letter is None or letter["offset"] != offset:
        raise CommandFailed(
            f"{output.escaped(group)} has no dead letter at offset {offset}",
            "pubsub dead-letters lists them",
            Exit.NOTHING_THERE,
        )
    record = _told(letter)
    if json:
        output.data(output.json_line(record))
        return
    width = max(map(len, record))
    lines = [f"{key:<{width}}  {output.escaped(str(value))}\n" for key, value in record.items()]
    output.text("".join(lines))


def change_letters(
    where: Where,
    what: str,
    group: str,
    offset: int | None,
    topic_filter: str | None,
    *,
    json: bool,
) -> None:
    """`what` is redrive or drop, of `registry/queues.py`. Raises CommandFailed, StoreError."""
    with looking(where) as view:
        group = resolve(group, topic_filter, view.names())
    asked = {"group": group} | ({} if offset is None else {"offset": str(offset)})

    async def change(queues: Any) -> Record:
        return {"count": await getattr(queues, what)(group, offset)}

    count = _done(where, f"/dead-letters/{what}", asked, change)["count"]
    if json:
        output.data(output.json_line({"group": group, "count": count}))
        return
    said = counted(count, "dead letter")
    said += " dropped" if what == "drop" else f" given back to {group}"
    output.text(output.one_line(said) + "\n")


def _done(
    where: Where,
    path: str,
    asked: Mapping[str, str],
    at_rest_do: Callable[[Any], Awaitable[Record]],
) -> Record:
    """What the broker did, or what we did where none runs."""
    if (data_dir := without_broker(where)) is None:
        return request("POST", path, where, asked, timeout_s=TIMEOUT_S)
    from broker import at_rest

    database.require_log(data_dir / DATABASE)

    async def do() -> Record:
        async with at_rest.queues(data_dir) as queues:
            return await at_rest_do(queues)

    with output.waiting("opening the log"):
        return ran(do)


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
