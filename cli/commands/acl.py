"""`pubsub acl`: who may do what."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli.blocks import with_blocks
from cli.options import AdminOptions

EXAMPLES = {
    "add": """\b
Examples:
  pubsub acl add anna allow publish 'home/#'
  pubsub acl add anna deny subscribe 'home/safe/#'
  pubsub acl add sensors allow publish 'sensors/%c/#' --role
""",
    "rm": """\b
Example:
  pubsub acl rm anna allow publish 'home/#'
""",
    "ls": """\b
Examples:
  pubsub acl ls
  pubsub acl ls standard --role
""",
    "check": """\b
Examples:
  pubsub acl check anna pub home/door
  pubsub acl check anna sub 'home/#'
""",
    "import": """\b
Example:
  pubsub acl import /etc/mosquitto/acl
""",
}
Name = Annotated[str, typer.Argument(metavar="NAME", help="Of a user, or with --role of a role.")]
Effect = Annotated[str, typer.Argument(metavar="allow|deny", help="A denial wins.")]
Right = Annotated[
    str,
    typer.Argument(metavar="RIGHT", help="publish, subscribe, read-history or admin."),
]
Filter = Annotated[
    str,
    typer.Argument(metavar="FILTER", help="Of topics; %u is the user, %c the client identifier."),
]
Role = Annotated[bool, typer.Option("--role", help="NAME is a role: of all who have it.")]
Json = Annotated[bool, typer.Option("--json", help="As lines of JSON.")]


@with_blocks
def add(
    name: Name,
    effect: Effect,
    right: Right,
    topic_filter: Filter,
    role: Role = False,
    *,
    broker: AdminOptions,
) -> None:
    """Add a rule, which counts at once.

    Something is allowed if some rule of the user or its roles allows it, and none denies it.
    """
    from cli.operate import acl
    from cli.operate.where import find

    acl.add(find(broker), acl.rule(name, effect, right, topic_filter, role=role))


@with_blocks
def rm(
    name: Name,
    effect: Effect,
    right: Right,
    topic_filter: Filter,
    role: Role = False,
    *,
    broker: AdminOptions,
) -> None:
    """Remove a rule. What it allowed is not delivered any more."""
    from cli.operate import acl
    from cli.operate.where import find

    acl.rm(find(broker), acl.rule(name, effect, right, topic_filter, role=role))


@with_blocks
def ls(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="Only of this one.")] = None,
    role: Role = False,
    *,
    broker: AdminOptions,
    json: Json = False,
) -> None:
    """All rules, of users and of roles."""
    from cli.operate import acl
    from cli.operate.where import find

    acl.ls(find(broker), name, role=role, json=json)


@with_blocks
def check(
    user: Annotated[str, typer.Argument(metavar="USER", help="Whose rights.")],
    right: Annotated[str, typer.Argument(metavar="pub|sub|read|admin", help="To do what.")],
    topic: Annotated[str, typer.Argument(metavar="TOPIC", help="A topic, or a filter.")],
    client_id: Annotated[
        str, typer.Option("--id", "-i", metavar="ID", help="As a client of this identifier.")
    ] = "",
    *,
    broker: AdminOptions,
    json: Json = False,
) -> None:
    """Say whether a user may do something, and which rule decides.

    `read` is to read again what was published before. Exit code 77: it is not allowed.
    """
    from cli.operate import acl
    from cli.operate.where import find

    acl.check(find(broker), user, right, topic, client_id=client_id, json=json)


@with_blocks
def take(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="As acl_file of Mosquitto.")],
    *,
    broker: AdminOptions,
) -> None:
    """Add the rules of an acl file of Mosquitto.

    All that it does not allow is denied then, so users do not have the role standard any more.
    """
    from cli.operate import acl
    from cli.operate.where import find

    acl.take(find(broker), file)
