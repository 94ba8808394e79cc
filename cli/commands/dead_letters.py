"""`pubsub dead-letters`: what the workers of groups could not deal with."""

from __future__ import annotations

from typing import Annotated

import typer

from cli.blocks import with_blocks
from cli.options import OFFSET_MAX, AdminOptions, GroupFilter, GroupName

EXAMPLES = {
    "ls": """\b
Examples:
  pubsub dead-letters
  pubsub dead-letters --group workers --json
  pubsub dead-letters show workers 17
  pubsub dead-letters redrive workers 17
  pubsub dead-letters drop workers --all
""",
    "show": """\b
Example:
  pubsub dead-letters show workers 17
""",
    "redrive": """\b
Examples:
  pubsub dead-letters redrive workers 17
  pubsub dead-letters redrive workers --all
""",
    "drop": """\b
Examples:
  pubsub dead-letters drop workers 17
  pubsub dead-letters drop workers --all
""",
}

OneOffset = Annotated[
    int | None, typer.Argument(min=1, max=OFFSET_MAX, metavar="[OFFSET]", help="Of one.")
]
AllOfThem = Annotated[bool, typer.Option("--all", help="All of the group.")]


@with_blocks
def ls(
    group: Annotated[str | None, typer.Option("--group", help="Only of this group.")] = None,
    topic_filter: GroupFilter = None,
    *,
    broker: AdminOptions,
    json: Annotated[bool, typer.Option("--json", help="A line of JSON for each.")] = False,
) -> None:
    """Messages that no worker of a group could deal with, and why."""
    from cli.operate import queues
    from cli.operate.where import find

    queues.list_letters(find(broker), group, topic_filter, json=json)


@with_blocks
def show(
    group: GroupName,
    offset: Annotated[
        int, typer.Argument(min=1, max=OFFSET_MAX, metavar="OFFSET", help="Of its message.")
    ],
    topic_filter: GroupFilter = None,
    *,
    broker: AdminOptions,
    json: Annotated[bool, typer.Option("--json", help="As one line of JSON.")] = False,
) -> None:
    """A dead letter, and the payload of its message."""
    from cli.operate import queues
    from cli.operate.where import find

    queues.show_letter(find(broker), group, offset, topic_filter, json=json)


@with_blocks
def redrive(
    group: GroupName,
    offset: OneOffset = None,
    all_of_them: AllOfThem = False,
    topic_filter: GroupFilter = None,
    *,
    broker: AdminOptions,
    json: Annotated[bool, typer.Option("--json", help="As one line of JSON.")] = False,
) -> None:
    """Give dead letters back to their group.

    It tries them as if it had never done so.
    """
    from cli.operate import queues
    from cli.operate.where import find

    _say_which(offset, all_of_them)
    queues.change_letters(find(broker), "redrive", group, offset, topic_filter, json=json)


@with_blocks
def drop(
    group: GroupName,
    offset: OneOffset = None,
    all_of_them: AllOfThem = False,
    topic_filter: GroupFilter = None,
    *,
    broker: AdminOptions,
    json: Annotated[bool, typer.Option("--json", help="As one line of JSON.")] = False,
) -> None:
    """Drop dead letters.

    Their messages are not kept for them any more.
    """
    from cli.operate import queues
    from cli.operate.where import find

    _say_which(offset, all_of_them)
    queues.change_letters(find(broker), "drop", group, offset, topic_filter, json=json)


def _say_which(offset: int | None, all_of_them: bool) -> None:
    if (offset is None) != all_of_them:
        raise typer.BadParameter("say which: an OFFSET, or --all")
