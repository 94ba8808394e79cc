"""`pubsub user`: who may connect. A broker that runs is asked, and changes it at once.

Where none runs, the log is changed as a broker would, with the lock of the data directory held.
Passwords are hashed here: a broker never sees those that an operator gives.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from broker.config import DATABASE
from broker.errors import CommandRefused
from broker.plural import counted
from cli.log import database
from cli.net import credentials
from cli.operate.admin import Where, request, without_broker
from cli.operate.at_rest import ran
from cli.terminal import columns, output, times
from cli.terminal.failure import CommandFailed, Exit
from cli.terminal.reading import read

TAKEN_AT_ONCE_MAX = 1000
"""Users of an import that one request brings."""
TIMEOUT_S = 60.0
COLUMNS = ("name", "roles", "kept_as", "scram", "connections", "changed_at")
TRIES = 3
Record = dict[str, Any]


def add(
    where: Where,
    name: str,
    *,
    roles: Sequence[str],
    scram: bool,
    password_file: Path | None,
    password_stdin: bool,
    json: bool,
) -> None:
    """Raises CommandFailed, StoreError."""
    from broker.security.names import ANONYMOUS, validate_role, validate_user

    try:
        validate_user(name)
        for role in roles:
            validate_role(role)
    except CommandRefused as error:
        raise CommandFailed(error.reason, error.remedy, Exit.USAGE) from error
    password = ""
    if name != ANONYMOUS:
        password = _new_password(name, password_file, password_stdin=password_stdin)
    asked = _hashes(password, scram=scram) | {"name": name, "roles": [*roles]}
    record = _done(
        where,
        "add",
        asked,
        lambda accounts: accounts.add(name, asked["password"], asked["scram"], roles),
    )
    if json:
        output.data(output.json_line(record))
        return
    output.text(output.one_line(f"user {name} is added, with {_roles(record)}") + "\n")
    if scram:
        output.note("whoever steals the database can try passwords of this user faster: --scram")
    if record["first"]:
        output.note(
            "until now everybody could connect. From now on clients need a user and a password, on"
            f" this machine too: pubsub sub TOPIC -u {name} --password-file FILE"
        )
        output.note(
            "to let those in that give no name, with the rights of the user anonymous:"
            " pubsub broker start --allow-anonymous"
        )


def set_password(
    where: Where,
    name: str,
    *,
    scram: bool | None,
    password_file: Path | None,
    password_stdin: bool,
) -> None:
    """Raises CommandFailed, StoreError."""
    known = {record["name"]: record for record in _records(where)}
    if name not in known:
        raise CommandFailed(f"there is no user {name}", "pubsub user ls", Exit.NOTHING_THERE)
    scram = known[name]["scram"] if scram is None else scram
    password = _new_password(name, password_file, password_stdin=password_stdin)
    asked = _hashes(password, scram=bool(scram)) | {"name": name}
    record = _done(
        where,
        "passwd",
        asked,
        lambda accounts: accounts.set_password(name, asked["password"], asked["scram"]),
    )
    ended = counted(record["connections"], "connection")
    cut_off = f"; {ended} with the old one ended" if record["connections"] else ""
    output.text(output.one_line(f"user {name} has another password{cut_off}") + "\n")


def set_roles(where: Where, name: str, roles: Sequence[str]) -> None:
    """Raises CommandFailed, StoreError."""
    from broker.security.names import validate_role

    try:
        for role in roles:
            validate_role(role)
    except CommandRefused as error:
        raise CommandFailed(error.reason, error.remedy, Exit.USAGE) from error
    asked = {"name": name, "roles": [*roles]}
    record = _done(where, "roles", asked, lambda accounts: accounts.set_roles(name, roles))
    output.text(output.one_line(f"user {name} has {_roles(record)} from now on") + "\n")


def rm(where: Where, name: str) -> None:
    """Raises CommandFailed, StoreError."""
    record = _done(where, "rm", {"name": name}, lambda accounts: accounts.remove(name))
    ended = counted(record["connections"], "connection")
    cut_off = f", and {ended} ended" if record["connections"] else ""
    output.text(output.one_line(f"user {name} is removed{cut_off}") + "\n")


def ls(where: Where, *, json: bool) -> None:
    """Raises CommandFailed, StoreError."""
    records = [*_records(where)]
    if json:
        for record in records:
            output.data(output.json_line(record))
        return
    columns.write(
        [name.upper().replace("_", " ") for name in COLUMNS],
        [*map(_row, records)],
        empty="no users: everybody on this machine may connect; pubsub user add NAME --admin",
    )


def take(where: Where, path: Path) -> None:
    """Import a password file of Mosquitto. Raises CommandFailed, StoreError."""
    from broker.security.password_file import entries

    found = [*entries(read(path))]
    passwords = {entry.name: entry.kept for entry in found if entry.kept}
    for entry in found:
        if entry.why_not:
            output.note(output.one_line(f"{path}:{entry.line}: {entry.name}: {entry.why_not}"))
    known: list[str] = []
    for names in _parts([*passwords]):
        part = {name: passwords[name] for name in names}
        asked = {"passwords": part}
        known += _done(where, "import", asked, partial(_take, part))["known"]
    for name in known:
        output.note(output.one_line(f"{name} is there already, and stays as it is"))
    added = counted(len(passwords) - len(known), "user is", "users are")
    output.text(f"{added} added, with the role standard\n")
    output.hint("who may do what: pubsub acl import")
    if len(passwords) < len(found):
        raise CommandFailed(f"{counted(len(found) - len(passwords), 'line')} could not be used")


async def _take(passwords: Mapping[str, str], accounts: Any) -> Record:
    return {"known": await accounts.take(passwords)}


def _new_password(name: str, file: Path | None, *, password_stdin: bool) -> str:
    """From where it was said; on a terminal it is asked for, twice. Raises CommandFailed."""
    if file is not None:
        return credentials.from_file(file)
    if password_stdin:
        return credentials.from_stdin()
    if not sys.stdin.isatty():
        raise CommandFailed(
            "there is no terminal to ask for the password on",
            "give --password-stdin, or --password-file FILE",
            Exit.USAGE,
        )
    for _ in range(TRIES):
        password = credentials.from_stdin(f"password of {name}: ")
        if not password:
            output.note("it is empty: try again")
        elif password == credentials.from_stdin("again: "):
            return password
        else:
            output.note("these were not the same: try again")
    raise CommandFailed("no password was given", code=Exit.USAGE)


def _hashes(password: str, *, scram: bool) -> Record:
    """What is kept of it. Raises CommandFailed."""
    from broker.security.passwords import PASSWORD_BYTES_MAX, hashed

    if len(password.encode()) > PASSWORD_BYTES_MAX:
        raise CommandFailed("the password is too long for MQTT", code=Exit.USAGE)
    proof = ""
    if scram:
        from broker.security.scram import keys

        try:
            proof = keys(password)
        except ValueError as error:
            raise CommandFailed(f"--scram: {error}", code=Exit.USAGE) from error
    return {"password": hashed(password.encode()) if password else "", "scram": proof}


def _records(where: Where) -> list[Record]:
    if (data_dir := without_broker(where)) is None:
        found: list[Record] = request("GET", "/users", where)["users"]
        return found
    if not (data_dir / DATABASE).exists():
        return []
    from broker import at_rest

    with database.reading(data_dir / DATABASE) as connection:
        return [asdict(account) for account in at_rest.accounts_of(connection)]


def _done(
    where: Where, what: str, asked: Mapping[str, Any], at_rest_do: Callable[[Any], Awaitable[Any]]
) -> Record:
    """What the broker did, or what we did where none runs. A data directory is made if need be: the
    first user comes before the first start."""
    if (data_dir := without_broker(where)) is None:
        return request("POST", f"/users/{what}", where, body=asked, timeout_s=TIMEOUT_S)
    from broker import at_rest

    async def do() -> Record:
        async with at_rest.accounts(data_dir) as accounts:
            done = await at_rest_do(accounts)
            return done if isinstance(done, dict) else asdict(done)

    with output.waiting("opening the log"):
        return ran(do)


def _parts(names: Sequence[str]) -> Iterator[Sequence[str]]:
    for first in range(0, len(names), TAKEN_AT_ONCE_MAX):
        yield names[first : first + TAKEN_AT_ONCE_MAX]


def _roles(record: Record) -> str:
    roles = record["roles"]
    return f"the role{'s' if len(roles) > 1 else ''} {', '.join(roles)}" if roles else "no role"


def _row(record: Record) -> list[str | int]:
    return [
        output.escaped(record["name"]),
        output.escaped(" ".join(record["roles"])),
        record["kept_as"] or "none",
        "yes" if record["scram"] else "no",
        record["connections"],
        times.local(record["changed_at_us"]),
    ]
