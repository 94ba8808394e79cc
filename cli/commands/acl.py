"""`pubsub acl`: who may do what."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli.options import DataDir

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
    typer.Argument(metavar="RIGHT", help="publish, subscribe or read-history."),
]
Filter = Annotated[
    str,
    typer.Argument(metavar="FILTER", help="Of topics; %u is the user, %c the client identifier."),
]
Role = Annotated[bool, typer.Option("--role", help="NAME is a role: of all who have it.")]
Json = Annotated[bool, typer.Option("--json", help="As lines of JSON.")]


def add(
    name: Name,
    effect: Effect,
    right: Right,
    topic_filter: Filter,
    role: Role = False,
    data_dir: DataDir = Path("data"),
) -> None:
    """Add a rule, which counts at once.

    Something is allowed if some rule of the user or its roles allows it, and none denies it.
    """
    from cli import acl

    acl.add(data_dir, acl.rule(name, effect, right, topic_filter, role=role))


def rm(
    name: Name,
    effect: Effect,
    right: Right,
    topic_filter: Filter,
    role: Role = False,
    data_dir: DataDir = Path("data"),
) -> None:
    """Remove a rule. What it allowed is not delivered any more."""
    from cli import acl

    acl.rm(data_dir, acl.rule(name, effect, right, topic_filter, role=role))


def ls(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="Only of this one.")] = None,
    role: Role = False,
    data_dir: DataDir = Path("data"),
    json: Json = False,
) -> None:
    """All rules, of users and of roles."""
    from cli import acl

    acl.ls(data_dir, name, role=role, json=json)


def check(
    user: Annotated[str, typer.Argument(metavar="USER", help="Whose rights.")],
    right: Annotated[str, typer.Argument(metavar="pub|sub|read", help="To do what.")],
    topic: Annotated[str, typer.Argument(metavar="TOPIC", help="A topic, or a filter.")],
    client_id: Annotated[
        str, typer.Option("--id", "-i", metavar="ID", help="As a client of this identifier.")
    ] = "",
    data_dir: DataDir = Path("data"),
    json: Json = False,
) -> None:
    """Say whether a user may do something, and which rule decides.

    `read` is to read again what was published before. Exit code 77: it is not allowed.
    """
    from cli import acl

    acl.check(data_dir, user, right, topic, client_id=client_id, json=json)


def take(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="As acl_file of Mosquitto.")],
    data_dir: DataDir = Path("data"),
) -> None:
    """Add the rules of an acl file of Mosquitto.

    All that it does not allow is denied then, so users do not have the role standard any more.
    """
    from cli import acl

    acl.take(data_dir, file)
