"""`pubsub context`: gives brokers names, and chooses the one that commands talk to."""

from __future__ import annotations

from typing import Annotated

import typer

from cli.blocks import with_blocks
from cli.options import BrokerOptions

EXAMPLES = {
    "add": """\b
Examples:
  pubsub context add home -L mqtts://ann@broker.example --password-stdin
  pubsub context add work -L wss://work.example/mqtt --cafile ca.crt --select
  pubsub context add home -L mqtts://ann@h.lan --admin https://h.lan:8884
""",
    "select": """\b
Example:
  pubsub context select home
""",
    "ls": """\b
Example:
  pubsub context ls
""",
    "rm": """\b
Example:
  pubsub context rm work
""",
}
Name = Annotated[str, typer.Argument(metavar="NAME", help="Letters, digits, - and _.")]


@with_blocks
def add(
    name: Name,
    *,
    broker: BrokerOptions,
    admin: Annotated[
        str | None, typer.Option(help="Where it is administered: https://HOST:PORT.")
    ] = None,
    select: Annotated[
        bool, typer.Option("--select", help="Let commands talk to it from now on.")
    ] = False,
) -> None:
    """Keep where a broker is, and as whom to connect.

    What has the name is replaced. A password that is typed or piped in is kept in the file, which
    is for its owner alone.
    """
    from cli.net import contexts
    from cli.terminal import output

    context = contexts.made_of(name, broker, admin)
    contexts.save(contexts.load().with_one(name, context, select=select))
    output.note(f"kept in {contexts.path()}")
    if not select:
        output.hint(f"select it with: pubsub context select {name}")


def select(name: Name) -> None:
    """Let commands talk to this one.

    They do, where neither options nor PUBSUB_URL name another.
    """
    from cli.net import contexts

    contexts.save(contexts.load().selecting(name))


def ls(
    json: Annotated[bool, typer.Option("--json", help="A line of JSON for each.")] = False,
) -> None:
    """Which there are; * is the selected one. Passwords are not shown."""
    from cli.net import contexts

    contexts.show(as_json=json)


def rm(name: Name) -> None:
    """Forget one, and its password."""
    from cli.net import contexts

    contexts.save(contexts.load().without(name))
