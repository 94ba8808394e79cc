"""Contexts: brokers with names, in `$XDG_CONFIG_HOME/pubsub/contexts.toml`; one may be selected.

The file has passwords, so it is for its owner alone (0600, its directory 0700). A change replaces
it as a whole: another command sees the old one or the new one, also after a power cut.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from cli.net.credentials import tell_if_others_may_read
from cli.net.sources import Said, of_options, of_url, url_of
from cli.options import BrokerOptions
from cli.terminal import columns, output
from cli.terminal.failure import CommandFailed, Exit

SELECTED, CONTEXTS = "selected", "contexts"
NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What the file has of one: see `Said`."""

    url: str
    admin: str | None = None
    """Where it is administered: https://HOST:PORT."""
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    password_file: str | None = None
    cafile: str | None = None
    cert: str | None = None
    key: str | None = None
    insecure: bool | None = None


@dataclass(frozen=True, slots=True)
class Contexts:
    named: Mapping[str, Context] = field(default_factory=dict)
    selected: str | None = None

    def __getitem__(self, name: str) -> Context:
        """Raises CommandFailed (66)."""
        if name not in self.named:
            known = ", ".join(sorted(self.named)) or "none yet"
            raise CommandFailed(
                f"there is no context {name!r} ({known})",
                "make it: pubsub context add NAME -L mqtts://USER@HOST",
                Exit.NOTHING_THERE,
            )
        return self.named[name]

    def with_one(self, name: str, context: Context, *, select: bool) -> Contexts:
        return Contexts({**self.named, name: context}, name if select else self.selected)

    def without(self, name: str) -> Contexts:
        """Raises CommandFailed (66)."""
        assert self[name]
        left = {one: context for one, context in self.named.items() if one != name}
        return Contexts(left, None if self.selected == name else self.selected)

    def selecting(self, name: str) -> Contexts:
        """Raises CommandFailed (66)."""
        assert self[name]
        return replace(self, selected=name)


def path() -> Path:
    home = os.environ.get("XDG_CONFIG_HOME")
    return (Path(home) if home else Path.home() / ".config") / "pubsub" / "contexts.toml"


def said(name: str | None) -> Said:
    """By the context of this name, or by the selected one; nothing if none is.

    Raises CommandFailed: 66, there is none; 2, the file is damaged.
    """
    contexts = load()
    name = contexts.selected if name is None else name
    if name is None:
        return Said()
    context = contexts[name]
    by_url, _ = of_url(context.url, f"the URL of context {name}")
    return _as(context, by_url)


def administered(name: str | None) -> Said:
    """As `said`, for who administers; nothing if the selected one does not say where. Raises
    CommandFailed (2): the one of this name does not."""
    from cli.operate.where import of_admin_url

    contexts = load()
    context = contexts[name] if name else contexts.named.get(contexts.selected or "")
    if context is not None and context.admin is not None:
        return _as(context, of_admin_url(context.admin, "the administration of the context"))
    if name is not None:
        raise CommandFailed(
            f"context {name} does not say where the broker is administered",
            f"make it anew: pubsub context add {name} ... --admin https://HOST:PORT",
            Exit.USAGE,
        )
    return Said()


def _as(context: Context, by_url: Said) -> Said:
    return replace(
        by_url,
        username=context.username,
        password=context.password,
        password_file=_path(context.password_file),
        cafile=_path(context.cafile),
        cert=_path(context.cert),
        key=_path(context.key),
        insecure=context.insecure,
    )


def _path(text: str | None) -> Path | None:
    return None if text is None else Path(text)


def made_of(name: str, options: BrokerOptions, admin: str | None = None) -> Context:
    """What to keep; `admin`: the URL of its administration. Raises CommandFailed (2)."""
    if NAME.fullmatch(name) is None:
        raise CommandFailed(
            f"{name!r} is no name of a context: letters, digits, - and _", code=Exit.USAGE
        )
    given, topic = of_options(options)
    if given.host is None or topic is not None or options.context is not None:
        raise CommandFailed(
            "a context needs where the broker is: -L mqtts://HOST[:PORT], or -h", code=Exit.USAGE
        )
    if admin is not None:
        from cli.operate.where import of_admin_url

        if (by_url := of_admin_url(admin, "--admin")).username or by_url.password:
            raise CommandFailed("--admin has no user of its own: use -u", code=Exit.USAGE)
    return Context(
        url=url_of(given),
        admin=admin,
        username=given.username,
        password=given.password,
        password_file=_absolute(given.password_file),
        cafile=_absolute(given.cafile),
        cert=_absolute(given.cert),
        key=_absolute(given.key),
        insecure=given.insecure,
    )


def _absolute(file: Path | None) -> str | None:
    return None if file is None else str(file.absolute())


def show(*, as_json: bool) -> None:
    contexts = load()
    rows = [(name, *_shown(contexts[name])) for name in sorted(contexts.named)]
    if as_json:
        for name, url, user, admin in rows:
            record = {"name": name, "url": url, "username": user, "admin": admin or None}
            output.data(output.json_line({**record, "selected": name == contexts.selected}))
        return
    columns.write(
        ("NAME", "URL", "USER", "SELECTED", "ADMINISTRATION"),
        [(*row[:3], "*" if row[0] == contexts.selected else "", row[3]) for row in rows],
        empty="no contexts; keep where a broker is with: pubsub context add NAME -L URL",
    )


def _shown(context: Context) -> tuple[str, str, str]:
    return context.url, context.username or "", context.admin or ""


def load() -> Contexts:
    """None, if there is no file. Raises CommandFailed (2): it is damaged, or cannot be read."""
    try:
        file = path().open("rb")
    except FileNotFoundError:
        return Contexts()
    except OSError as error:
        raise CommandFailed(f"{path()}: {error.strerror}", code=Exit.USAGE) from error
    import tomllib

    with file:
        tell_if_others_may_read(path(), os.fstat(file.fileno()))
        try:
            return _contexts(tomllib.load(file))
        except (ValueError, TypeError) as error:
            # Without what stands there, which may be a password.
            reason = error if isinstance(error, TypeError) else "it is no TOML"
            raise CommandFailed(f"{path()}: {reason}", "mend or remove it", Exit.USAGE) from None


def save(contexts: Contexts) -> None:
    """Raises CommandFailed: it cannot be written, and is as it was."""
    file = path()
    new = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with open(descriptor, "w", encoding="utf-8") as written:
                written.write(_toml(contexts))
                written.flush()
                os.fsync(descriptor)
            new.replace(file)
        finally:
            new.unlink(missing_ok=True)
    except OSError as error:
        raise CommandFailed(f"{file}: {error.strerror}") from error


def _contexts(content: dict[str, Any]) -> Contexts:
    """Raises TypeError: it is not what `_toml` makes."""
    types = {one.name: bool if one.name == "insecure" else str for one in fields(Context)}
    named: dict[str, Context] = {}
    tables = content.get(CONTEXTS, {})
    if not isinstance(tables, dict):
        raise TypeError(f"{CONTEXTS} is no table")
    for name, table in tables.items():
        if not isinstance(table, dict) or "url" not in table:
            raise TypeError(f"context {name} has no url")
        for key, value in table.items():
            if not isinstance(value, types.get(key, ())):
                raise TypeError(f"context {name} has an unknown setting or a wrong value: {key}")
        named[name] = Context(**table)
    selected = content.get(SELECTED)
    if selected is not None and selected not in named:
        raise TypeError(f"{SELECTED} names no context")
    return Contexts(named, selected)


def _toml(contexts: Contexts) -> str:
    lines = [] if contexts.selected is None else [f"{SELECTED} = {_value(contexts.selected)}"]
    for name, context in contexts.named.items():
        lines += ["", f"[{CONTEXTS}.{name}]"]
        for one in fields(context):
            if (value := getattr(context, one.name)) is not None:
                lines.append(f"{one.name} = {_value(value)}")
    return "\n".join(lines) + "\n"


def _value(value: str | bool) -> str:
    """JSON's strings and booleans are TOML's, but for DEL."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
