"""Which broker, and as whom: an option goes before the environment, that before the selected
context, and that before a broker on this machine.

- Each thing is looked for by itself: `-p 1` beside `PUBSUB_URL=mqtts://h` is port 1 of h, by TLS.
- A context is asked only where neither options nor environment name a host, or by `--context`.
- Credentials go only to the broker that they were given with: a `-h` or `-L` of its own is not told
  the user, password and client certificate that the environment has beside its URL.
- A password belongs to the user name beside it: one from further down is not used for it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit

from cli.net.address import PORT, TLS_PORT, Address, Tls, check_string, host_and_port
from cli.net.credentials import from_file, from_stdin, hide_argument
from cli.options import BrokerOptions
from cli.terminal.failure import CommandFailed, Exit

URL, USER, PASSWORD_FILE, CAFILE = (
    "PUBSUB_URL",
    "PUBSUB_USER",
    "PUBSUB_PASSWORD_FILE",
    "PUBSUB_CAFILE",
)
"""Environment variables. The URL: mqtt://[USER[:PASSWORD]@]HOST[:PORT], also mqtts, ws and wss."""
SCHEMES = {"mqtt": False, "tcp": False, "mqtts": True, "ssl": True, "ws": False, "wss": True}
"""Whether it is with TLS."""
WEBSOCKET_PATH = "/mqtt"


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What one source says of the broker; None: nothing."""

    host: str | None = None
    port: int | None = None
    tls: bool | None = None
    websocket: str | None = None
    """The path; "": none, it is plain MQTT."""
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    password_file: Path | None = None
    cafile: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    insecure: bool | None = None


def find(options: BrokerOptions | None = None) -> tuple[Address, str | None]:
    """And the topic that `--url` names.

    Raises CommandFailed (2): a URL is none, a file cannot be read, or they contradict.
    """
    options = BrokerOptions() if options is None else options
    said, topic = of_options(options)
    sources = [said, _of_environment()]
    if options.context is not None or (sources[0].host, sources[1].host) == (None, None):
        from cli.net import contexts

        if options.context is not None and said.host is not None:
            raise CommandFailed("--context names the broker already: use one", code=Exit.USAGE)
        place = 2 if options.context is None else 1
        sources.insert(place, contexts.said(options.context))
    return joined(sources), topic


def find_without_topic(options: BrokerOptions) -> Address:
    """For a command that has no use for one. Raises CommandFailed (2)."""
    address, topic = find(options)
    if topic is not None:
        raise _bad_url("--url", with_topic=False)
    return address


def of_options(options: BrokerOptions) -> tuple[Said, str | None]:
    """And the topic. Reads the password from where the options say. Raises CommandFailed (2)."""
    password = options.password
    if password is not None:
        hide_argument(password)
    if (options.password is not None) + options.password_stdin + (
        options.password_file is not None
    ) > 1:
        raise CommandFailed("use one of -P, --password-file and --password-stdin", code=Exit.USAGE)
    if options.password_stdin:
        password = from_stdin()
    if options.key is not None and options.cert is None:
        raise CommandFailed("--key is the key of a --cert: give both", code=Exit.USAGE)
    host, port = options.host, options.port
    if host is not None and "," not in host:
        host, own = host_and_port(host, 0)
        if not host or not own < 65_536:
            raise CommandFailed(f"{options.host!r} is no host name", code=Exit.USAGE)
        port = own or port
    by_options = Said(
        host=host,
        port=port,
        tls=options.cafile is not None or options.cert is not None or options.insecure or None,
        username=options.username,
        password=password,
        password_file=options.password_file,
        cafile=options.cafile,
        cert=options.cert,
        key=options.key,
        insecure=options.insecure or None,
    )
    if options.url is None:
        return by_options, None
    by_url, topic = of_url(options.url, "--url", with_topic=True)
    if by_url.password is not None:
        hide_argument(options.url)
    for name in ("host", "port", "username", "password", "password_file"):
        if getattr(by_options, name) is not None and getattr(by_url, name) is not None:
            raise CommandFailed(f"--url has its own {name}: use one", code=Exit.USAGE)
    if by_options.tls and not by_url.tls:
        raise CommandFailed(
            "--url is without TLS, and --cafile, --cert and --insecure are for TLS: use mqtts:// or"
            " wss://",
            code=Exit.USAGE,
        )
    return _first_of([by_url, by_options]), topic


def of_url(text: str, name: str, *, with_topic: bool = False) -> tuple[Said, str | None]:
    """And the topic behind it. `name` is what to call it. Raises CommandFailed (2)."""
    scheme, _, behind = text.partition("://")
    authority, _, path = behind.partition("/")
    websocket = scheme in ("ws", "wss")
    url = _split(f"{scheme}://{authority}", name, with_topic=with_topic)
    if path and not (websocket or with_topic):
        raise _bad_url(name, with_topic=with_topic)
    tls = SCHEMES[url.scheme]
    username, password = (
        None if part is None else unquote(part) for part in (url.username, url.password)
    )
    said = Said(
        host=url.hostname,
        port=url.port or (TLS_PORT if tls else PORT),
        tls=tls,
        websocket=(f"/{path}" if path else WEBSOCKET_PATH) if websocket else "",
        username=username,
        password=password,
    )
    return said, None if websocket else path or None


def url_of(said: Said) -> str:
    """Without credentials and topic."""
    host = f"[{said.host}]" if ":" in (said.host or "") else said.host
    scheme = ("ws" if said.websocket else "mqtt") + ("s" if said.tls else "")
    port = said.port or (TLS_PORT if said.tls else PORT)
    return f"{scheme}://{host}:{port}{said.websocket or ''}"


def of_environment() -> Said:
    """Without the URL."""
    cafile = os.environ.get(CAFILE)
    password_file = os.environ.get(PASSWORD_FILE)
    return Said(
        tls=True if cafile else None,
        username=os.environ.get(USER) or None,
        password_file=Path(password_file) if password_file else None,
        cafile=Path(cafile) if cafile else None,
    )


def _of_environment() -> Said:
    own, url = of_environment(), os.environ.get(URL)
    if not url:
        return own
    by_url, _ = of_url(url, URL)
    if own.username is not None and own.username != by_url.username:
        by_url = _without_credentials(by_url)
    return _first_of([by_url, own])


def joined(sources: list[Said]) -> Address:
    """The first that says a thing counts; credentials as the module says."""
    addressed = next((n for n, said in enumerate(sources) if said.host is not None), None)
    if addressed is not None:
        sources = [
            said if said.host is None or n == addressed else _without_credentials(said)
            for n, said in enumerate(sources)
        ]
    place, password = _first_of(sources), _password_of(sources)
    host = "127.0.0.1" if place.host is None else place.host
    try:
        possible = host.encode("idna")
    except UnicodeError:
        possible = b""
    if not possible:
        raise CommandFailed(f"{host!r} is no host name", code=Exit.USAGE)
    check_string("the user name", place.username)
    check_string("the password", password)
    tls = Tls(cafile=place.cafile, cert=place.cert, key=place.key, insecure=bool(place.insecure))
    return Address(
        host=host,
        port=place.port or (TLS_PORT if place.tls else PORT),
        username=place.username,
        password=password,
        tls=tls if place.tls else None,
        websocket=place.websocket or None,
    )


def _password_of(sources: list[Said]) -> str | None:
    for said in sources:
        if said.password is not None:
            return said.password
        if said.password_file is not None:
            return from_file(said.password_file)
        if said.username is not None:
            return None
    return None


def _first_of(sources: Iterable[Said]) -> Said:
    """What the first says that says anything of it."""
    joined: dict[str, Any] = {}
    for said in sources:
        for one in fields(said):
            if joined.get(one.name) is None:
                joined[one.name] = getattr(said, one.name)
    return Said(**joined)


def _without_credentials(said: Said) -> Said:
    return Said(
        host=said.host,
        port=said.port,
        tls=said.tls,
        websocket=said.websocket,
        cafile=said.cafile,
    )


def _split(text: str, name: str, *, with_topic: bool) -> SplitResult:
    try:
        url = urlsplit(text)
        legal = url.scheme in SCHEMES and url.hostname and url.port != 0
    except ValueError:
        legal = False
    if not legal or url.query or url.fragment:
        raise _bad_url(name, with_topic=with_topic)
    return url


def _bad_url(name: str, *, with_topic: bool) -> CommandFailed:
    """Without the text, which may have a password in it."""
    topic = "[/TOPIC]" if with_topic else ""
    return CommandFailed(
        f"{name} must be like mqtt://127.0.0.1:9000{topic}, mqtts://HOST, ws://HOST:PORT/mqtt or"
        " wss://...",
        code=Exit.USAGE,
    )
