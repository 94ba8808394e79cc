"""`pubsub log`: which part of the history to show and how, from its options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli.options import DataDir

EXAMPLES = """\b
Examples:
  pubsub log
  pubsub log 'home/#' -f
  pubsub log --from @-1h --publisher pub1 --grep 'rain|snow' --json
"""


def run(
    filters: Annotated[list[str] | None, typer.Argument(help="Topic filters; all topics.")] = None,
    data_dir: DataDir = Path("data"),
    last: Annotated[
        int | None,
        typer.Option(
            "-n", min=0, help="The last so many, 0 for all. [20, or all with --from or --until]"
        ),
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Then what comes.")] = False,
    start: Annotated[
        str | None, typer.Option("--from", metavar="SPEC", help="As `pubsub sub --from`.")
    ] = None,
    until: Annotated[
        str | None, typer.Option("--until", metavar="SPEC", help="Up to there.")
    ] = None,
    publisher: Annotated[str | None, typer.Option(help="Only from this client.")] = None,
    grep: Annotated[
        str | None, typer.Option(help="Only payloads in which this regular expression is found.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="A line of JSON per message.")] = False,
    count: Annotated[bool, typer.Option("--count", help="Only how many there are.")] = False,
) -> None:
    """What was published, whether or not the broker runs."""
    from cli.history import Options, show

    if follow and (count or until is not None):
        raise typer.BadParameter("--follow does not end: leave --count and --until out")
    if last is None:
        last = 20 if start is None and until is None else 0
    show(
        Options(
            data_dir=data_dir,
            filters=tuple(filters or ()),
            last=last or None,
            start=start,
            until=until,
            publisher=publisher,
            grep=grep,
            follow=follow,
            json=json,
            count=count,
        )
    )
