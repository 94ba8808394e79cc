"""`pubsub user`: who may connect, and as whom."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli.blocks import with_blocks
from cli.options import AccountOptions, AdminOptions

EXAMPLES = {
    "add": """\b
Examples:
  pubsub user add anna --admin
  pubsub user add sensors --password-file sensors.password
""",
    "passwd": """\b
Example:
  pubsub user passwd anna
""",
    "roles": """\b
Examples:
  pubsub user roles anna standard night
  pubsub user roles anna --none
""",
    "rm": """\b
Example:
  pubsub user rm sensors
""",
    "ls": """\b
Example:
  pubsub user ls
""",
    "import": """\b
Example:
  pubsub user import /etc/mosquitto/passwd
""",
}
UserName = Annotated[str, typer.Argument(metavar="NAME", help="Of the user.")]
PasswordFile = Annotated[
    Path | None,
    typer.Option("--password-file", metavar="FILE", help="The password is its first line."),
]
PasswordStdin = Annotated[
    bool, typer.Option("--password-stdin", help="It is the first line of standard input.")
]


@with_blocks
def add(
    name: UserName,
    admin: Annotated[
        bool, typer.Option("--admin", help="May do everything; else the role standard.")
    ] = False,
    role: Annotated[
        list[str] | None,
        typer.Option("--role", metavar="ROLE", help="In place of standard; may come again."),
    ] = None,
    scram: Annotated[
        bool, typer.Option("--scram", help="Also for clients that prove the password, see docs.")
    ] = False,
    password_file: PasswordFile = None,
    password_stdin: PasswordStdin = False,
    *,
    broker: AccountOptions,
    json: Annotated[bool, typer.Option("--json", help="As one line of JSON.")] = False,
) -> None:
    """Add a user. The password is asked for, twice.

    Once there is a user, clients need a name and a password. The user `anonymous` has none: it is
    who gives no name, where --allow-anonymous lets that in.
    """
    from broker.security.names import ADMIN, STANDARD
    from cli.operate import users
    from cli.operate.where import find

    where = find(broker)
    users.add(
        where,
        name,
        roles=[*(role or ([] if admin else [STANDARD])), *([ADMIN] if admin else [])],
        scram=scram,
        password_file=password_file,
        password_stdin=password_stdin,
        json=json,
    )


@with_blocks
def passwd(
    name: UserName,
    scram: Annotated[
        bool | None, typer.Option("--scram/--no-scram", help="As `user add`; else as it was.")
    ] = None,
    password_file: PasswordFile = None,
    password_stdin: PasswordStdin = False,
    *,
    broker: AccountOptions,
) -> None:
    """Give a user another password. What is connected with the old one is disconnected."""
    from cli.operate import users
    from cli.operate.where import find

    users.set_password(
        find(broker),
        name,
        scram=scram,
        password_file=password_file,
        password_stdin=password_stdin,
    )


@with_blocks
def roles(
    name: UserName,
    role: Annotated[
        list[str] | None,
        typer.Argument(metavar="ROLE...", help="All that it has then; `admin` may do everything."),
    ] = None,
    none: Annotated[bool, typer.Option("--none", help="No role: only rules of its own.")] = False,
    *,
    broker: AdminOptions,
) -> None:
    """Give a user other roles, in place of those that it has. They count at once.

    The rules of a role, and its quota, are for all who have it; `pubsub acl ls` lists the rules.
    """
    from cli.operate import users
    from cli.operate.where import find

    if bool(role) == none:
        raise typer.BadParameter("name the roles that it has from now on, or --none")
    users.set_roles(find(broker), name, role or [])


@with_blocks
def rm(name: UserName, *, broker: AdminOptions) -> None:
    """Remove a user, and end its connections.

    Its sessions stay until they expire, for who has its name then; `pubsub subscribers rm` ends
    one.
    """
    from cli.operate import users
    from cli.operate.where import find

    users.rm(find(broker), name)


@with_blocks
def ls(
    *,
    broker: AdminOptions,
    json: Annotated[bool, typer.Option("--json", help="A line of JSON for each user.")] = False,
) -> None:
    """All users, with their roles."""
    from cli.operate import users
    from cli.operate.where import find

    users.ls(find(broker), json=json)


@with_blocks
def take(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="As mosquitto_passwd makes it.")],
    *,
    broker: AdminOptions,
) -> None:
    """Add the users of a password file of Mosquitto.

    They have the same passwords. Who is there already stays as it is. A hash of an older kind is
    replaced at the first login.
    """
    from cli.operate import users
    from cli.operate.where import find

    users.take(find(broker), file)
