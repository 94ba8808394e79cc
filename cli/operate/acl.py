"""`pubsub acl`: who may do what. A broker that runs is asked, and changes it at once.

Where none runs, the log is changed as a broker would, with the lock of the data directory held.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from broker.config import DATABASE
from broker.documents import RuleDocument
from broker.plural import counted
from cli.operate.admin import WHERE_IT_IS, Where, request, without_broker
from cli.operate.at_rest import ran
from cli.terminal import columns, output
from cli.terminal.failure import CommandFailed, Exit
from cli.terminal.reading import read

TAKEN_AT_ONCE_MAX = 1000
"""Rules of an import that one request brings."""
TIMEOUT_S = 60.0
RIGHTS = {
    "pub": "publish",
    "sub": "subscribe",
    "read": "read-history",
    **dict.fromkeys(["publish", "subscribe", "read-history", "admin"], ""),
}
"""What a right may be called, and what it is called then."""
EFFECTS = {"allow": True, "deny": False}
Record = dict[str, Any]
Rules = Sequence[RuleDocument]


def rule(name: str, effect: str, right: str, topic_filter: str, *, role: bool) -> RuleDocument:
    """Raises CommandFailed: it is none."""
    if effect not in EFFECTS:
        raise CommandFailed(f"{effect!r} is neither allow nor deny", code=Exit.USAGE)
    return RuleDocument(name, role, EFFECTS[effect], _right(right), topic_filter)


def add(where: Where, added: RuleDocument) -> None:
    """Raises CommandFailed, StoreError."""

    async def at_rest(acl: Any) -> Record:
        count = await acl.add([added])
        return {"count": count, "unknown": [*map(asdict, acl.unknown([added]))]}

    done = _done(where, "add", [added], at_rest)
    said = "from now on" if done["count"] else "there already"
    output.text(output.one_line(f"{said}: {_told(asdict(added))}") + "\n")
    if done["unknown"]:
        nobody = "no user here has the role" if added.is_role else "there is no user"
        output.note(output.one_line(f"{nobody} {added.name} yet: pubsub user ls"))


def rm(where: Where, removed: RuleDocument) -> None:
    """Raises CommandFailed, StoreError."""

    async def at_rest(acl: Any) -> Record:
        return {"count": await acl.remove([removed])}

    _done(where, "rm", [removed], at_rest)
    output.text(output.one_line(f"not any more: {_told(asdict(removed))}") + "\n")


def ls(where: Where, name: str | None, *, role: bool, json: bool) -> None:
    """Raises CommandFailed, StoreError."""
    records = [
        record
        for record in _records(where)
        if name is None or (record["name"], record["is_role"]) == (name, role)
    ]
    if json:
        for record in records:
            output.data(output.json_line(record))
        return
    columns.write(
        ["OF", "", "EFFECT", "RIGHT", "FILTER", ""],
        [*map(_row, records)],
        empty=output.one_line(
            f"no rules of {'role' if role else 'user'} {name}; all rules: pubsub acl ls"
        ),
    )


def check(
    where: Where, user: str, right: str, topic_filter: str, *, client_id: str, json: bool
) -> None:
    """Raises CommandFailed: 77, it is not allowed; StoreError."""
    right = _right(right)
    asked = {"user": user, "right": right, "filter": topic_filter, "client_id": client_id}

    async def at_rest(acl: Any) -> Record:
        return asdict(acl.check(user, right, topic_filter, client_id))

    if (data_dir := without_broker(where)) is None:
        checked = request("GET", "/acl/check", where, asked)
    else:
        checked = _at_rest(data_dir, at_rest)
    what = f"{user}: {right} {topic_filter}"
    decided = [rule for rule in (checked["rule"], *checked["beside"]) if rule is not None]
    by = ", ".join(map(_told, decided)) or "no rule says so"
    if not checked["allowed"] and checked["access"] != right:
        by = f"it takes {checked['access']}, too: {by}"
    if json:
        output.data(output.json_line(asked | checked))
    elif checked["allowed"]:
        by = "there is no user yet, so everything is" if checked["rule"] is None else by
        output.text(output.one_line(f"{what} is allowed: {by}") + "\n")
    if not checked["allowed"]:
        raise CommandFailed(
            output.one_line(f"{what} is not allowed: {by}"), code=Exit.NOT_AUTHORIZED
        )


def take(where: Where, path: Path) -> None:
    """Import an acl file of Mosquitto. Raises CommandFailed, StoreError."""
    from broker.security.acl_file import entries
    from broker.security.rules import document_of

    found = [*entries(read(path))]
    unusable = [entry for entry in found if entry.why_not]
    for entry in unusable:
        output.note(output.one_line(f"{path}:{entry.line}: {entry.why_not}"))
    rules = [*dict.fromkeys([rule for entry in found for rule in entry.rules])]
    documents = [document_of(rule) for rule in rules]
    left: list[str] = []
    for part in _parts(documents):

        async def at_rest(acl: Any, part: Rules = part) -> Record:
            return {"left": await acl.take(part)}

        left += _done(where, "import", part, at_rest)["left"]
    output.text(f"{counted(len(rules), 'rule is', 'rules are')} in force\n")
    for name in left:
        output.note(
            output.one_line(f"{name} does not have the role standard any more: the file says all")
        )
    output.hint("patterns are rules of the role everyone; history is a right of its own")
    if unusable:
        raise CommandFailed(f"{counted(len(unusable), 'line')} could not be used")


def _right(word: str) -> str:
    if word not in RIGHTS:
        raise CommandFailed(f"{word!r} is no right", f"use {', '.join(RIGHTS)}", Exit.USAGE)
    return RIGHTS[word] or word


def _records(where: Where) -> list[Record]:
    async def at_rest(acl: Any) -> Record:
        return {"rules": [asdict(each) for each in acl.all()]}

    if (data_dir := without_broker(where)) is None:
        found: list[Record] = request("GET", "/acl", where)["rules"]
    else:
        found = _at_rest(data_dir, at_rest)["rules"]
    return found


def _done(
    where: Where, what: str, rules: Rules, at_rest_do: Callable[[Any], Awaitable[Record]]
) -> Record:
    """What the broker did, or what we did where none runs."""
    if (data_dir := without_broker(where)) is None:
        body = {"rules": [asdict(each) for each in rules]}
        return request("POST", f"/acl/{what}", where, body=body, timeout_s=TIMEOUT_S)
    return _at_rest(data_dir, at_rest_do)


def _at_rest(data_dir: Path, do: Callable[[Any], Awaitable[Record]]) -> Record:
    if not (data_dir / DATABASE).exists():
        raise CommandFailed(
            f"there is no log in {data_dir}/ yet",
            f"pubsub user add NAME begins one; or {WHERE_IT_IS}",
            Exit.NOTHING_THERE,
        )
    from broker import at_rest

    async def run() -> Record:
        async with at_rest.acl(data_dir) as acl:
            return await do(acl)

    with output.waiting("opening the log"):
        return ran(run)


def _parts(rules: Rules) -> Iterator[Rules]:
    for first in range(0, len(rules), TAKEN_AT_ONCE_MAX):
        yield rules[first : first + TAKEN_AT_ONCE_MAX]


def _told(record: Mapping[str, Any]) -> str:
    effect = "allow" if record["allow"] else "deny"
    of = "role" if record["is_role"] else "user"
    return f"{effect} {record['access']} {record['filter']} (of the {of} {record['name']})"


def _row(record: Record) -> list[str | int]:
    return [
        output.escaped(record["name"]),
        "role" if record["is_role"] else "user",
        "allow" if record["allow"] else "deny",
        record["access"],
        output.escaped(record["filter"]),
        "built in" if record["built_in"] else "",
    ]
