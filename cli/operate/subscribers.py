"""`pubsub subscribers`: who is subscribed and how far behind, and what an operator does to them.

A broker that runs is asked over its Unix socket. Where none runs the log is looked at, or changed
as a broker would change it, with the lock of the data directory held.
"""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from broker.config import DATABASE
from broker.message import WallUs
from broker.plural import counted
from cli.log import database
from cli.operate.admin import Where, request, without_broker
from cli.operate.at_rest import ran
from cli.terminal import output, times

TIMEOUT_S = 300.0
"""For a broker that counts what is unread: of 10 million messages and many topics, seconds."""
Record = dict[str, Any]
COLUMNS = (
    *("id", "state", "address", "last_seen", "cursor", "lag", "lag_bytes", "lag_s"),
    *("in_flight", "redeliveries", "gaps", "filters"),
)
"""Of a line in a pipe, with tabs between."""
ID_WIDTH_MIN, FILTERS_WIDTH_MIN = 12, 10


def ls(where: Where, *, json: bool = False) -> None:
    """Raises CommandFailed, StoreError."""
    records = _records(where)
    if json:
        for record in records:
            output.data(output.json_line(record))
    elif output.to_terminal():
        rows = [*records]
        output.text(table(rows, shutil.get_terminal_size().columns) if rows else "")
        if not rows:
            output.note("no subscribers; make one with: pubsub sub TOPIC --id NAME")
    else:
        for record in records:
            output.text(line(record))


def show(where: Where, name: str, *, json: bool = False) -> None:
    """Raises CommandFailed, StoreError."""
    if (data_dir := without_broker(where)) is None:
        asked = {"id": name}
        record = request("GET", "/subscribers/one", where, asked, timeout_s=TIMEOUT_S)
    else:
        from broker import at_rest

        with database.reading(data_dir / DATABASE) as connection:
            overview = at_rest.overview(connection)
            record = ran(lambda: overview.one(name, _now_us()))
    output.data(output.json_line(record)) if json else output.text(details(record))


def seek(where: Where, name: str, to: str, *, dry_run: bool = False, json: bool = False) -> None:
    """Raises CommandFailed, StoreError."""
    spec, understood = times.canonical("--to", to, _now_us())
    if understood:
        output.note(f"--to {to}: {understood}")
    asked = {"id": name, "to": spec} | ({"dry_run": "true"} if dry_run else {})
    moved = _done(where, "seek", asked, lambda operator: operator.seek(name, spec, dry_run=dry_run))
    if json:
        output.data(output.json_line(moved | {"dry_run": dry_run}))
        return
    would, goes = ("would ", "go") if dry_run else ("", "goes")
    said = f"{name} {would}{goes} on at offset {moved['through'] + 1}"
    if moved["again"]:
        said += f": {_messages(moved['again'])} {'would' if dry_run else 'will'} be sent"
    if moved["skipped"]:
        were = "would be" if dry_run else "is" if moved["skipped"] == 1 else "are"
        said += f": {_messages(moved['skipped'])} {were} skipped"
    if moved["in_flight"]:
        stay = "stays" if moved["in_flight"] == 1 else "stay"
        said += f"; {_messages(moved['in_flight'])} in flight {stay} so until acknowledged"
    output.text(f"{output.one_line(said)}\n")


def fork(where: Where, name: str, new: str, *, json: bool = False) -> None:
    """Raises CommandFailed, StoreError."""
    forked = _done(
        where, "fork", {"id": name, "new": new}, lambda operator: operator.fork(name, new)
    )
    if json:
        output.data(output.json_line(forked))
        return
    filters = counted(len(forked["filters"]), "filter")
    said = f"{new} goes on above offset {forked['cursor']}, with {filters}"
    output.text(f"{output.one_line(said)}\n")
    if forked["left_out"]:
        names = ", ".join(forked["left_out"])
        output.note(f"not copied, as {new} would take messages from the others: {names}")


def rm(where: Where, name: str, *, json: bool = False) -> None:
    """Raises CommandFailed, StoreError."""
    removed = _done(where, "rm", {"id": name}, lambda operator: operator.remove(name))
    if json:
        output.data(output.json_line(removed))
        return
    cut_off = ", and its connection closed" if removed["connected"] else ""
    unread = f", with {_messages(removed['unread'])} unread" if removed["unread"] else ""
    output.text(f"{output.one_line(f'{name} is removed{cut_off}{unread}')}\n")


def _records(where: Where) -> Iterator[Record]:
    if (data_dir := without_broker(where)) is None:
        after: str | None = ""
        while after is not None:
            asked = {"after": after}
            page = request("GET", "/subscribers", where, asked, timeout_s=TIMEOUT_S)
            yield from page["subscribers"]
            after = page["next"]
        return
    from broker import at_rest

    with database.reading(data_dir / DATABASE) as connection:
        overview = at_rest.overview(connection)
        after = ""
        while after is not None:
            rest = asyncio.run(overview.page(after))
            yield from [row.record(_now_us()) for row in rest.rows]
            after = rest.next


def _done(
    where: Where,
    what: str,
    asked: Mapping[str, str],
    at_rest_do: Callable[[Any], Awaitable[Any]],
) -> Record:
    """What the broker did, or what we did where none runs."""
    if (data_dir := without_broker(where)) is None:
        return request("POST", f"/subscribers/{what}", where, asked, timeout_s=TIMEOUT_S)
    from broker import at_rest

    database.require_log(data_dir / DATABASE)

    async def do() -> Record:
        async with at_rest.administration(data_dir) as operator:
            return asdict(await at_rest_do(operator))

    with output.waiting("opening the log"):
        return ran(do)


def _now_us() -> WallUs:
    return WallUs(time.time_ns() // 1000)


def _messages(count: int) -> str:
    return counted(count, "message")


# How it looks


def line(record: Record) -> str:
    """For a program: what is not known is empty, filters have a space between."""
    shown = record | {"state": _state(record)} if "damaged" not in record else record
    texts = []
    for column in COLUMNS:
        value = shown.get(column)
        text = " ".join(value) if isinstance(value, list) else "" if value is None else str(value)
        texts.append(output.escaped(text))
    return "\t".join(texts) + "\n"


def _state(record: Record) -> str:
    return "connected" if record["connected"] else "away"


def table(records: Sequence[Record], edge: int) -> str:
    """For a person: within `edge` columns, and without columns that say 0 everywhere."""
    headings = ["ID", "STATE", "LAG", "BYTES", "BEHIND", "FLIGHT", "AGAIN", "GAPS", "FILTERS"]
    rows = [_cells(record) for record in records]
    kept = [
        at
        for at, heading in enumerate(headings)
        if heading not in ("FLIGHT", "AGAIN", "GAPS") or any(row[at] != "0" for row in rows)
    ]
    rows = [[row[at] for at in kept] for row in ([headings, *rows])]
    widths = [max(len(row[at]) for row in rows) for at in range(len(kept))]
    spare = edge - sum(widths) - 2 * (len(widths) - 1)
    if spare < 0:
        cut = min(-spare, max(0, widths[-1] - FILTERS_WIDTH_MIN))
        widths[-1] -= cut
        widths[0] -= min(-spare - cut, max(0, widths[0] - ID_WIDTH_MIN))
    lines = []
    for row in rows:
        name, state, *numbers, filters = row
        texts = [_cut(name, widths[0]).ljust(widths[0]), state.ljust(widths[1])]
        texts += [text.rjust(width) for text, width in zip(numbers, widths[2:-1], strict=True)]
        lines.append(_cut("  ".join([*texts, _cut_end(filters, widths[-1])]).rstrip(), edge))
    return "".join(f"{line}\n" for line in lines)


def _cells(record: Record) -> list[str]:
    name = output.escaped(record["id"])
    if "damaged" in record:
        return [name, "damaged", "", "", "", "0", "0", "0", output.escaped(record["damaged"])]
    if record["members"] is not None:
        state = counted(record["members"], "member")
    elif record["connected"]:
        state = "connected"
    else:
        since = _since(record["last_seen"])
        state = "away" if since is None else f"away {since}"
    filters = " ".join(output.escaped(each) for each in record["filters"])
    more = record["filter_count"] - len(record["filters"])
    return [
        name,
        state,
        f"{'' if record['exact'] else '<'}{record['lag']:,}",
        size(record["lag_bytes"]),
        "" if record["lag_s"] is None else duration(record["lag_s"]),
        *(f"{record[each]:,}" for each in ("in_flight", "redeliveries", "gaps")),
        f"{filters} +{more}" if more else filters,
    ]


def _since(last_seen: str | None) -> str | None:
    if last_seen is None:
        return None
    seen_us = times.required_us("last_seen", last_seen, _now_us())
    return duration(max(0.0, (_now_us() - seen_us) / 1e6))


def details(record: Record) -> str:
    """A line for each thing that is known."""
    pairs: list[tuple[str, str]] = []
    for name, value in record.items():
        if isinstance(value, list) and value and isinstance(value[0], dict):
            pairs += [(name, _pairs(each)) for each in value]
        elif isinstance(value, list):
            pairs += [(name, str(each)) for each in value]
        else:
            pairs.append((name, _word(value)))
    width = max(len(name) for name, _ in pairs)
    return "".join(
        f"{name:<{width}}  {output.escaped(text)}".rstrip() + "\n" for name, text in pairs
    )


def _word(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "" if value is None else str(value)


def _pairs(record: Record) -> str:
    return " ".join(
        str(value) if key in ("filter", "stage") else f"{key}={value}"
        for key, value in record.items()
        if value not in (None, False)
    )


def size(count: int) -> str:
    """As `1.2 MB`."""
    amount = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 999.5:
            return f"{amount:.0f} {unit}" if unit == "B" or amount >= 10 else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.1f} TB"


def duration(seconds: float) -> str:
    """As `3s`, `15m`, `2h`, `4d`."""
    for unit, length in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f}{unit}"
    return f"{seconds:.0f}s"


def _cut(name: str, width: int) -> str:
    """Both ends of a name: what tells names apart may be at either."""
    if len(name) <= width:
        return name
    end = (width - 1) // 2
    return f"{name[: width - 1 - end]}…{name[-end:]}"


def _cut_end(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 1]}…"
