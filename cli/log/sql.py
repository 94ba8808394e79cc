"""`pubsub sql`: questions to the log in SQL, which can neither write nor stay.

- The connection is read-only, and SQLite asks us before each step of a query: only reading is
  granted, so that ATTACH, VACUUM INTO, PRAGMA and transactions are refused, too.
- A query that runs keeps the broker's write-ahead log from starting over. So it ends after its
  timeout, and its rows are put aside before anybody reads them: a pager does not keep it open.
"""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO

from broker.config import DATABASE
from cli.log import database
from cli.log.properties import text_or_base64
from cli.terminal import output
from cli.terminal.cells import cut, padded, width
from cli.terminal.failure import CommandFailed, Exit

MEMORY_BYTES_MAX = 16 << 20
"""Of the rows that are put aside; more goes to a temporary file."""
ROWS_AT_ONCE = 500
TABLE_ROWS_MAX = 10_000
"""What a terminal gets: whoever wants more wants a file."""
STEPS = 20_000
"""Of SQLite's own machine, between two looks at the clock: about a millisecond."""
CELL_WIDTH_MIN = 8
GAP = "  "

Row = Sequence[object]

_MAY = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_RECURSIVE}
_FUNCTIONS_DENIED = {"load_extension"}
_VIEWS = "SELECT name FROM sqlite_schema WHERE type = 'view' ORDER BY name"


def list_views(data_dir: Path, *, json: bool) -> None:
    """The views, and the columns of each. Raises CommandFailed: no log; StoreError."""
    with database.reading(data_dir / DATABASE) as connection:
        views = {
            name: [row[1] for row in connection.execute(f"PRAGMA table_info({name})")]
            for (name,) in connection.execute(_VIEWS).fetchall()
        }
    if json:
        output.data(b"".join(output.json_line({"view": v, "columns": c}) for v, c in views.items()))
    elif output.to_terminal():
        from textwrap import fill

        columns = shutil.get_terminal_size().columns
        for view, names in views.items():
            text = fill(", ".join(names), columns, initial_indent="    ", subsequent_indent="    ")
            output.text(f"{view}\n{text}\n")
        output.hint('for example: pubsub sql "SELECT * FROM history ORDER BY offset DESC LIMIT 5"')
    else:
        output.text("".join(f"{view}\t{','.join(names)}\n" for view, names in views.items()))


def show(data_dir: Path, query: str, *, timeout_s: float, json: bool, csv: bool) -> None:
    """Raises CommandFailed: no log, an error in the query (2), the timeout (27); StoreError."""
    table = output.to_terminal() and not (json or csv)
    with (
        tempfile.SpooledTemporaryFile(MEMORY_BYTES_MAX) as aside,
        database.reading(data_dir / DATABASE) as connection,
    ):
        rows: list[Row] = []
        names: list[str] = []
        more = False
        write: Callable[[Sequence[str], Sequence[Row]], bytes]
        write = _json_lines if json else _csv_lines() if csv else _tabbed
        for names, part in _rows(connection, query, timeout_s):
            if not table:
                aside.write(write(names, part))
            elif len(rows) + len(part) > TABLE_ROWS_MAX:
                rows += part[: TABLE_ROWS_MAX - len(rows)]
                more = True
                break
            else:
                rows += part
        connection.interrupt()
        connection.close()  # Its snapshot ends here, however long it takes to write.
        if table:
            output.data(_table(names, rows))
        else:
            _copy(aside)
    if more:
        output.note(f"these are the first {TABLE_ROWS_MAX:,} rows: --csv and --json have all")


def _rows(
    connection: sqlite3.Connection, query: str, timeout_s: float
) -> Iterator[tuple[list[str], list[Row]]]:
    """The names of the columns with some rows, again and again; once at least."""
    deadline = time.monotonic() + timeout_s
    refused: list[str] = []
    late = CommandFailed(
        f"the query takes longer than {timeout_s:g} s",
        "--timeout 1m gives it more; the broker's write-ahead log grows meanwhile",
        Exit.TIMEOUT,
    )

    def may(action: int, first: str | None, second: str | None, *_: object) -> int:
        if action in _MAY or (
            action == sqlite3.SQLITE_FUNCTION and second not in _FUNCTIONS_DENIED
        ):
            return sqlite3.SQLITE_OK
        refused.append(str(first))
        return sqlite3.SQLITE_DENY

    connection.execute("PRAGMA query_only = 1")
    connection.text_factory = lambda text: text.decode("utf-8", "replace")
    connection.set_authorizer(may)
    connection.set_progress_handler(lambda: time.monotonic() > deadline, STEPS)
    try:
        cursor = connection.execute(query)
        if cursor.description is None:
            raise CommandFailed("the query is empty", "try: pubsub sql", Exit.USAGE)
        names = _unique([column[0] for column in cursor.description])
        part: list[Row] = cursor.fetchmany(ROWS_AT_ONCE)
        yield names, part
        while part := cursor.fetchmany(ROWS_AT_ONCE):
            if time.monotonic() > deadline:
                raise late
            yield names, part
    except (sqlite3.Error, sqlite3.Warning) as error:
        if isinstance(error, sqlite3.OperationalError) and time.monotonic() > deadline:
            raise late from error
        if refused or "readonly" in str(error):
            raise CommandFailed(
                "pubsub sql only reads: this would change something, or is no SELECT",
                "what may be changed has a command of its own: pubsub --help",
                Exit.USAGE,
            ) from error
        if isinstance(error, sqlite3.DatabaseError) and not isinstance(
            error, (sqlite3.OperationalError, sqlite3.ProgrammingError)
        ):
            raise  # Damage, which database.reading tells.
        raise CommandFailed(
            f"the query: {error}", "pubsub sql lists the views", Exit.USAGE
        ) from error


def _unique(names: list[str]) -> list[str]:
    """A second column of a name gets a number: in JSON it would take the place of the first."""
    found: list[str] = []
    for name in names:
        number, again = 2, name
        while again in found:
            again, number = f"{name}_{number}", number + 1
        found.append(again)
    return found


def _json_lines(names: Sequence[str], rows: Sequence[Row]) -> bytes:
    return b"".join(
        output.json_line(
            {
                key: text
                for name, value in zip(names, row, strict=True)
                for key, text in (
                    text_or_base64(name, value) if isinstance(value, bytes) else {name: value}
                ).items()
            }
        )
        for row in rows
    )


def _csv_lines() -> Callable[[Sequence[str], Sequence[Row]], bytes]:
    import csv
    import io

    heading = True

    def write(names: Sequence[str], rows: Sequence[Row]) -> bytes:
        nonlocal heading
        block = io.StringIO()
        writer = csv.writer(block)
        if heading:
            writer.writerow(names)
            heading = False
        writer.writerows([[_plain(value) for value in row] for row in rows])
        return block.getvalue().encode("utf-8", "surrogateescape")

    return write


def _plain(value: object) -> object:
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else value


def _tabbed(names: Sequence[str], rows: Sequence[Row]) -> bytes:
    return "".join("\t".join(map(_text, row)) + "\n" for row in rows).encode()


def _text(value: object) -> str:
    if value is None:
        return ""
    return output.escaped(value if isinstance(value, (bytes, str)) else str(value))


def _table(names: Sequence[str], rows: Sequence[Row]) -> bytes:
    """Columns that are too wide for the terminal give way to each other, the widest first."""
    texts = [[_text(value) for value in row] for row in rows]
    headings = [name.upper() for name in map(output.escaped, names)]
    widths = [max(map(width, column)) for column in zip(headings, *texts, strict=True)]
    edge = shutil.get_terminal_size().columns
    while (over := sum(widths) + len(GAP) * (len(widths) - 1) - edge) > 0:
        widest = max(range(len(widths)), key=widths.__getitem__)
        if widths[widest] <= CELL_WIDTH_MIN:
            break
        widths[widest] = max(CELL_WIDTH_MIN, widths[widest] - over)
    right = [all(isinstance(row[i], (int, float)) for row in rows) for i in range(len(names))]
    lines = []
    for cells in (headings, *texts):
        shown = [
            padded(cut(text, cells_wide), cells_wide, right=aligned)
            for text, cells_wide, aligned in zip(cells, widths, right, strict=True)
        ]
        lines.append(GAP.join(shown).rstrip() + "\n")
    return "".join(lines).encode()


def _copy(aside: IO[bytes]) -> None:
    aside.seek(0)
    while block := aside.read(1 << 20):
        output.data(output.harmless(block).encode() if output.to_terminal() else block)
