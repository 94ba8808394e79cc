"""`pubsub group`: makes, shows and removes the groups of workers that share a queue."""

from __future__ import annotations

from typing import Annotated

import typer

from cli.blocks import with_blocks
from cli.options import AdminOptions, DryRun, GroupFilter, GroupName, SeekTo

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


@with_blocks
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
        int,
        typer.Option(
            "--attempts", metavar="N", min=1, help="After so many failed ones: a dead letter."
        ),
    ] = 5,
    backoff: Annotated[
        str, typer.Option("--backoff", metavar="FIRST..MAX", help="Pauses: each twice the last.")
    ] = "1s..5m",
    lease: Annotated[
        str, typer.Option("--lease", metavar="TIME", help="How long a worker may take.")
    ] = "5m",
    *,
    broker: AdminOptions,
    json: Annotated[bool, typer.Option("--json", help="As one line of JSON.")] = False,
) -> None:
    """Make a group, whose workers share the messages of a filter.

    It keeps all of them from now on, stays until `pubsub group rm`, and tries again what a worker
    refuses.
    """
    from cli.operate import queues
    from cli.operate.where import find
    from cli.terminal.periods import milliseconds, span_ms

    first_ms, max_ms = span_ms("--backoff", backoff)
    asked = {
        "attempts": str(attempts),
        "backoff_first_ms": str(first_ms),
        "backoff_max_ms": str(max_ms),
        "lease_ms": str(milliseconds("--lease", lease)),
    }
    queues.create(find(broker), name, topic_filter, start=start, asked=asked, json=json)


@with_blocks
def ls(
    *,
    broker: AdminOptions,
    json: Annotated[bool, typer.Option("--json", help="A line of JSON for each group.")] = False,
) -> None:
    """Groups of workers. Those of Shared Subscriptions of clients, too."""
    from cli.operate import queues
    from cli.operate.where import find

    queues.ls(find(broker), json=json)


@with_blocks
def show(
    name: GroupName,
    topic_filter: GroupFilter = None,
    *,
    broker: AdminOptions,
    json: Annotated[bool, typer.Option("--json", help="As one line of JSON.")] = False,
) -> None:
    """What a group is, and what waits in it."""
    from cli.operate import queues
    from cli.operate.where import find

    queues.show(find(broker), name, topic_filter, json=json)


@with_blocks
def seek(
    name: GroupName,
    to: SeekTo,
    dry_run: DryRun = False,
    topic_filter: GroupFilter = None,
    *,
    broker: AdminOptions,
    json: Annotated[bool, typer.Option("--json", help="As one line of JSON.")] = False,
) -> None:
    """Let a group go on at another place, as `pubsub subscribers seek`."""
    from cli.operate import queues, subscribers
    from cli.operate.where import find

    where = find(broker)
    group = queues.named(where, name, topic_filter)
    subscribers.seek(where, group, to, dry_run=dry_run, json=json)


@with_blocks
def rm(
    name: GroupName,
    topic_filter: GroupFilter = None,
    *,
    broker: AdminOptions,
    json: Annotated[bool, typer.Option("--json", help="As one line of JSON.")] = False,
) -> None:
    """Remove a group of `pubsub group create`.

    Its workers have to be stopped.

    What it has not handed out is counted as dropped. Its dead letters stay.
    """
    from cli.operate import queues
    from cli.operate.where import find

    queues.rm(find(broker), name, topic_filter, json=json)
