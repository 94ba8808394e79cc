"""`pubsub log`: which part of the history to show and how, from its options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli.blocks import with_blocks
from cli.options import BrokerOptions, DataDir

EXAMPLES = """\b
Examples:
  pubsub log
  pubsub log 'home/#' -f
  pubsub log --from @11:00 --until @12:00
  pubsub log --from yesterday --publisher pub1 --grep 'rain|snow' --json
  pubsub log 'home/#' --latest --as-of yesterday
  pubsub log -n 0 --csv > weather.csv
  pubsub log -F '%{offset} %t %p'
  pubsub log 'home/#' --from -10min -h broker.example

\b
SPEC is earliest, latest, N (offset), -N (last N), N:M, @TIME or @T1:T2.
  TIME is like 11:00, today, yesterday, 2026-11-28, '2026-11-28 11:00',
  2026-11-28T10:00:00Z or -10min (ago); without a zone it is local, as are
  the times of the table. Pipes, --json and --csv have UTC.
-F has the fields of `pubsub sub -F`; their times are those of publication.
The log is read where it lies (--data-dir); with -h, -p, -L or --context, or
  where none is, the broker is asked.
A command's name as the first word is that command; the Topic Filter of that
  name: pubsub log -- get
"""


@with_blocks
def run(
    filters: Annotated[list[str] | None, typer.Argument(help="Topic filters; all topics.")] = None,
    data_dir: DataDir = Path("data"),
    *,
    broker: BrokerOptions,
    last: Annotated[
        int | None,
        typer.Option(
            "-n",
            metavar="N",
            min=0,
            help="The last so many, 0 for all. [20, or all with --from or --until]",
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
    csv: Annotated[bool, typer.Option("--csv", help="Comma-separated, with a heading.")] = False,
    format: Annotated[
        str | None, typer.Option("--format", "-F", help="How to write a message.")
    ] = None,
    latest: Annotated[
        bool, typer.Option("--latest", help="The last message of each topic.")
    ] = False,
    as_of: Annotated[
        str | None, typer.Option("--as-of", metavar="TIME", help="With --latest: as it was then.")
    ] = None,
    count: Annotated[bool, typer.Option("--count", help="Only how many there are.")] = False,
) -> None:
    """What was published, whether or not the broker runs."""
    from cli.log.history import Options

    if follow and (count or until is not None):
        raise typer.BadParameter("--follow does not end: leave --count and --until out")
    if json + csv + count + (format is not None) > 1:
        raise typer.BadParameter("use one of --json, --csv, -F and --count")
    if as_of is not None and not latest:
        raise typer.BadParameter("--as-of is for --latest")
    others = (last, start, until, publisher, grep)
    if latest and (follow or count or any(other is not None for other in others)):
        raise typer.BadParameter("--latest takes topics, --as-of, and how to write them")
    address = None
    if broker.names_one:
        from cli.net.sources import find

        address, url_topic = find(broker)
        filters = [*(filters or ()), *([] if url_topic is None else [url_topic])]
    if latest and address is not None:
        raise typer.BadParameter(
            "--latest reads the log where it lies, so without --host, --port, --url and --context"
        )
    if last is None:
        last = 20 if start is None and until is None else 0
    options = Options(
        data_dir=data_dir,
        filters=tuple(filters or ()),
        last=last or None,
        start=start,
        until=until,
        publisher=publisher,
        grep=grep,
        follow=follow,
        json=json,
        csv=csv,
        format=format,
        count=count,
        latest=latest,
        as_of=as_of,
        address=address,
    )
    if latest:
        from cli.log.show_topics import show_latest

        show_latest(options)
    else:
        from cli.log.show_log import show

        show(options)
