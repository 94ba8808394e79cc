"""`pubsub quota`: how much of the broker a user may use."""

from __future__ import annotations

from typing import Annotated

import typer

from cli.blocks import with_blocks
from cli.options import AdminOptions

EXAMPLES = {
    "set": """\b
Examples:
  pubsub quota set standard --role --connections 10 --publish-rate 1000
  pubsub quota set ann --connections 100

What is not given has no limit but the broker's own. What the user itself has goes before what its
roles have; of several roles the largest counts. It holds at once.
""",
    "ls": """\b
Example:
  pubsub quota ls
""",
    "rm": """\b
Example:
  pubsub quota rm standard --role
""",
}
Name = Annotated[str, typer.Argument(metavar="NAME", help="Of a user, or with --role of a role.")]
Role = Annotated[bool, typer.Option("--role", help="For each user that has the role.")]


@with_blocks
def put(
    name: Name,
    role: Role = False,
    connections: Annotated[int | None, typer.Option(metavar="N", min=1, help="At a time.")] = None,
    sessions: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="That outlive their connections.")
    ] = None,
    groups: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Of Shared Subscriptions.")
    ] = None,
    subscriptions: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Of each session.")
    ] = None,
    packet_bytes: Annotated[
        int | None, typer.Option(metavar="N", min=256, help="Of one packet.")
    ] = None,
    publish_rate: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Messages a second, of all connections.")
    ] = None,
    publish_bytes: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Bytes a second, of all connections.")
    ] = None,
    retained: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Topics with a retained message of the user."),
    ] = None,
    *,
    broker: AdminOptions,
) -> None:
    """Limit what a user may use, in place of the quota that it had."""
    from cli.operate import quotas
    from cli.operate.where import find

    limits = {
        "connections": connections,
        "sessions": sessions,
        "groups": groups,
        "subscriptions": subscriptions,
        "packet_bytes": packet_bytes,
        "publish_per_s": publish_rate,
        "publish_bytes_per_s": publish_bytes,
        "retained": retained,
    }
    if all(limit is None for limit in limits.values()):
        raise typer.BadParameter("a limit is missing, such as --connections 10")
    quotas.put(find(broker), name, limits, role=role)


@with_blocks
def ls(
    *,
    broker: AdminOptions,
    json: Annotated[bool, typer.Option("--json", help="A line of JSON for each.")] = False,
) -> None:
    """Which there are."""
    from cli.operate import quotas
    from cli.operate.where import find

    quotas.ls(find(broker), as_json=json)


@with_blocks
def rm(name: Name, role: Role = False, *, broker: AdminOptions) -> None:
    """Limit it no more."""
    from cli.operate import quotas
    from cli.operate.where import find

    quotas.remove(find(broker), name, role=role)
