"""`pubsub sql`: which query, and how its rows are written, from the options."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from cli.options import DataDir

EXAMPLES = """\b
Examples:
  pubsub sql
  pubsub sql "SELECT topic, count(*) FROM history GROUP BY topic"
  pubsub sql "SELECT * FROM subscribers" --json
  echo "SELECT count(*) AS messages FROM history" | pubsub sql - --csv

The views are for people: their columns stay, and `docs/reference.md` describes them. The tables
behind them may change with any version. What is asked is read, nothing can be written. While a
query runs, the broker's write-ahead log cannot start over: so it ends after --timeout.
"""


def run(
    query: Annotated[
        str | None, typer.Argument(help="One SELECT; - reads it from standard input.")
    ] = None,
    data_dir: DataDir = Path("data"),
    timeout: Annotated[
        str, typer.Option("--timeout", metavar="TIME", help="Like 500ms, 5s or 2m.")
    ] = "5s",
    json: Annotated[bool, typer.Option("--json", help="A line of JSON per row.")] = False,
    csv: Annotated[bool, typer.Option("--csv", help="Comma-separated, with a heading.")] = False,
) -> None:
    """Ask the log with SQL.

    Without a query: the views that there are.
    """
    from cli.log.sql import list_views, show
    from cli.terminal.times import seconds

    if json and csv:
        raise typer.BadParameter("use one of --json and --csv")
    timeout_s = seconds(timeout)
    if not timeout_s:
        raise typer.BadParameter(f"--timeout {timeout!r} is not like 500ms, 5s or 2m")
    if query == "-":
        query = sys.stdin.read()
    if query is None:
        list_views(data_dir, json=json)
    else:
        show(data_dir, query, timeout_s=timeout_s, json=json, csv=csv)
