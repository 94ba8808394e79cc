"""Where the broker is that a command administers: an option goes before the environment, that
before the selected context, and that before the directory `data` here.

- By a directory (`--data-dir`, PUBSUB_DATA_DIR), or elsewhere by the URL of its listener for
  administration (`-L`, PUBSUB_ADMIN_URL, or a context that has one).
- Credentials go only to the broker that they were given with, as in `cli/net/sources.py`.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote, urlsplit

from cli.net.sources import URL, Said, joined, of_environment, of_options, of_url
from cli.operate.admin import Where
from cli.operate.remote import Remote
from cli.options import (
    DATA_DIR,
    AccountOptions,
    AdministratorOptions,
    AdminOptions,
    BrokerOptions,
)
from cli.terminal.failure import CommandFailed, Exit

ADMIN_URL = "PUBSUB_ADMIN_URL"
PORTS = {"https": 443, "http": 80}


def find(options: AdministratorOptions) -> Where:
    """Raises CommandFailed: 2, a URL is none, a file cannot be read, or they contradict; 66, there
    is no such context."""
    said = _of_options(options)
    named = [
        name
        for name, given in (
            ("--data-dir", options.data_dir),
            ("--url", options.url),
            ("--context", options.context),
        )
        if given is not None
    ]
    if len(named) > 1:
        raise CommandFailed(f"use one of {' and '.join(named)}", code=Exit.USAGE)
    if options.data_dir is not None:
        return _directory(options, said)
    if not named:
        named = [name for name in (DATA_DIR, ADMIN_URL) if os.environ.get(name)]
        if len(named) > 1:
            raise CommandFailed(f"{' and '.join(named)} are both set: use one", code=Exit.USAGE)
    sources = [said, _of_environment(said)]
    if not named or options.context is not None:
        from cli.net import contexts

        context = contexts.administered(options.context)
        sources.insert(1 if options.context is not None else 2, context)
    if all(each.host is None for each in sources):
        return _directory(options, said)
    return Remote(joined(sources))


def of_admin_url(text: str, name: str) -> Said:
    """`name` is what to call it. Raises CommandFailed (2), without the text, which may have a
    password in it."""
    try:
        url = urlsplit(text)
        legal = url.scheme in PORTS and url.hostname and url.port != 0
    except ValueError:
        legal = False
    if not legal or url.path not in ("", "/") or url.query or url.fragment:
        raise CommandFailed(f"{name} must be like https://HOST:PORT", code=Exit.USAGE)
    username, password = (
        None if part is None else unquote(part) for part in (url.username, url.password)
    )
    return Said(
        host=url.hostname,
        port=url.port or PORTS[url.scheme],
        tls=url.scheme == "https",
        username=username,
        password=password,
    )


def _of_options(options: AdministratorOptions) -> Said:
    said, _ = of_options(
        BrokerOptions(
            username=options.username,
            password=options.password,
            password_file=_password_file(options),
            password_stdin=isinstance(options, AdminOptions) and options.password_stdin,
            cafile=options.cafile,
            cert=options.cert,
            key=options.key,
            insecure=options.insecure,
        )
    )
    if options.url is None:
        return said
    by_url = of_admin_url(options.url, "--url")
    if by_url.password is not None:
        from cli.net.credentials import hide_argument

        hide_argument(options.url)
    if said.username is not None and by_url.username is not None:
        raise CommandFailed("--url has its own user: use one", code=Exit.USAGE)
    if said.tls and not by_url.tls:
        raise CommandFailed(
            "--url is without TLS, and --cafile, --cert and --insecure are for TLS: use https://",
            code=Exit.USAGE,
        )
    return replace(
        said,
        host=by_url.host,
        port=by_url.port,
        tls=by_url.tls,
        username=said.username or by_url.username,
        password=by_url.password if said.password is None else said.password,
    )


def _password_file(options: AdministratorOptions) -> Path | None:
    if isinstance(options, AccountOptions):
        return options.admin_password_file
    return options.password_file if isinstance(options, AdminOptions) else None


def _of_environment(options: Said) -> Said:
    """What is there beside a URL of MQTT is for that host alone."""
    own, url, mqtt = of_environment(), os.environ.get(ADMIN_URL), os.environ.get(URL)
    if url:
        by_url = of_admin_url(url, ADMIN_URL)
        user = own.username or by_url.username
        password = by_url.password if user == by_url.username else None
        own = replace(own, username=user, password=password)
        return replace(own, host=by_url.host, port=by_url.port, tls=by_url.tls)
    host = of_url(mqtt, URL)[0].host if mqtt else None
    return own if host in (None, options.host) else Said(cafile=own.cafile)


def _directory(options: AdministratorOptions, said: Said) -> Path:
    for name, given in (("-u", said.username), ("-P", said.password), ("--cafile", said.tls)):
        if given is not None:
            raise CommandFailed(
                f"{name} is for a broker elsewhere: say where with -L https://HOST:PORT",
                code=Exit.USAGE,
            )
    return options.data_dir or Path(os.environ.get(DATA_DIR) or "data")
