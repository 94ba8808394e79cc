"""`pubsub group`: makes, shows and removes the groups of workers that share a queue."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli.options import DataDir, DryRun, GroupFilter, GroupName, SeekTo

EXAMPLES = {
    "create": """\b
Examples:
  pubsub group create workers --filter 'jobs/#'
  pubsub group create mailers --filter 'mail/#' --attempts 10 --from earliest
""",
    "ls": """\b
Example:
  pubsub group ls
""",
    "show": """\b
Example:
  pubsub group show workers
""",
    "seek": """\b
Examples:
  pubsub group seek workers --to @-1h --dry-run
  pubsub group seek workers --to latest
""",
    "rm": """\b
Example:
  pubsub group rm workers
""",
}


def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="As in sub --group NAME.")],
    topic_filter: Annotated[
        str, typer.Option("--filter", metavar="FILTER", help="Which messages are for the group.")
    ],
    start: Annotated[
        str | None,
        typer.Option("--from", metavar="SPEC", help="Begin there, not at the end of the log."),
    ] = None,
    attempts: Annotated[
        int, typer.Option("--attempts", min=1, help="After so many failed ones: a dead letter.")
    ] = 5,
    backoff: Annotated[
        str, typer.Option("--backoff", metavar="FIRST..MAX", help="Pauses: each twice the last.")
    ] = "1s..5m",
    lease: Annotated[
        str, typer.Option("--lease", metavar="TIME", help="How long a worker may take.")
    ] = "5m",
    data_dir: DataDir = Path("data"),
    json: Annotated[bool, typer.Option("--json", help="As one line of JSON.")] = False,
) -> None:
    """Make a group, whose workers share the messages of a filter.

    It keeps all of them from now on, stays until `pubsub group rm`, and tries again what a worker
    refuses.
    """
    from cli import queues
    from cli.periods import milliseconds, span_ms

    first_ms, max_ms = span_ms("--backoff", backoff)
    asked = {
        "attempts": str(attempts),
        "backoff_first_ms": str(first_ms),
        "backoff_max_ms": str(max_ms),
        "lease_ms": str(milliseconds("--lease", lease)),
    }
    queues.create(data_dir, name, topic_filter, start=start, asked=asked, json=json)


def ls(
    data_dir: DataDir = Path("data"),
    json: Annotated[bool, typer.Option("--json", help="A line of JSON for each group.")] = False,
) -> None:
    """Groups of workers. Those of Shared Subscriptions of clients, too."""
    from cli import queues

    queues.ls(data_dir, json=json)


def show(
    name: GroupName,
    topic_filter: GroupFilter = None,
    data_dir: DataDir = Path("data"),
    json: Annotated[bool, typer.Option("--json", help="As one line of JSON.")] = False,
) -> None:
    """What a group is, and what waits in it."""
    from cli import queues

    queues.show(data_dir, name, topic_filter, json=json)


def seek(
    name: GroupName,
    to: SeekTo,
    dry_run: DryRun = False,
    topic_filter: GroupFilter = None,
    data_dir: DataDir = Path("data"),
    json: Annotated[bool, typer.Option("--json", help="As one line of JSON.")] = False,
) -> None:
    """Let a group go on at another place, as `pubsub subscribers seek`."""
    from cli import queues, subscribers

    group = queues.named(data_dir, name, topic_filter)
    subscribers.seek(data_dir, group, to, dry_run=dry_run, json=json)


def rm(
    name: GroupName,
    topic_filter: GroupFilter = None,
    data_dir: DataDir = Path("data"),
    json: Annotated[bool, typer.Option("--json", help="As one line of JSON.")] = False,
) -> None:
    """Remove a group of `pubsub group create`.

    Its workers have to be stopped.

    What it has not handed out is counted as dropped. Its dead letters stay.
    """
    from cli import queues

    queues.rm(data_dir, name, topic_filter, json=json)
