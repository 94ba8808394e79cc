"""Which broker a command talks to and as whom, and what it says when that does not work."""

from __future__ import annotations

import os
from dataclasses import dataclass
from urllib.parse import SplitResult, unquote, urlsplit

from cli.failure import CommandFailed, Exit

URL = "PUBSUB_URL"
"""The environment variable that finds the broker: mqtt://[USER[:PASSWORD]@]HOST[:PORT]."""
PORT = 9000
STRING_BYTES_MAX = 65_535
"""Of a string in an MQTT packet, in UTF-8."""


@dataclass(frozen=True, slots=True)
class Will:
    """What the broker publishes when it loses the connection."""

    topic: str
    payload: bytes
    qos: int
    retain: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    host: str = "127.0.0.1"
    port: int = PORT
    username: str | None = None
    password: str | None = None
    keep_alive_s: int = 60
    will: Will | None = None
    debug: bool = False
    """Tell on standard error which packets come and go."""

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    def unreachable(self, reason: str) -> CommandFailed:
        from broker.config import is_loopback

        remedy = "is it running, and does it listen on that address?"
        if is_loopback(self.host):
            port = "" if self.port == PORT else f" --port {self.port}"
            remedy = f"is it running? start it with: pubsub broker start{port}"
        return CommandFailed(
            f"no MQTT broker answers at {self} ({reason})", remedy, Exit.UNREACHABLE
        )

    def silent(self, reason: str) -> CommandFailed:
        """Something took the connection, and did not answer CONNECT."""
        return CommandFailed(
            f"no MQTT broker answers at {self} ({reason})",
            "does something else listen there, or is the broker stuck?",
            Exit.UNREACHABLE,
        )

    def refused(self, reason: str, *, not_authorized: bool) -> CommandFailed:
        """CONNACK said no."""
        said = f"the broker at {self} refused the connection: {reason}"
        if not_authorized:
            return CommandFailed(said, "check -u and -P", Exit.NOT_AUTHORIZED)
        return CommandFailed(said)


def find(
    host: str | None,
    port: int | None,
    username: str | None,
    password: str | None,
    keep_alive_s: int = 60,
) -> Address:
    """What the options say, then PUBSUB_URL, then a broker on this machine.

    With a host of its own a command does not tell that one the user and password of the URL.
    Raises CommandFailed (2): PUBSUB_URL is no such URL, or one of them cannot be what it is for.
    """
    url = _split(os.environ.get(URL) or "mqtt://127.0.0.1", URL)
    if url.path.strip("/"):
        raise _bad_url(URL)
    assert url.hostname is not None
    if host is None and username is None and url.username is not None:
        username = unquote(url.username)
        if password is None and url.password is not None:
            password = unquote(url.password)
    host = url.hostname if host is None else host
    try:
        possible = host.encode("idna")
    except UnicodeError:
        possible = b""
    if not possible:
        raise CommandFailed(f"{host!r} is no host name", code=Exit.USAGE)
    check_string("the user name", username)
    check_string("the password", password)
    return Address(
        host=host,
        port=(url.port or PORT) if port is None else port,
        username=username,
        password=password,
        keep_alive_s=keep_alive_s,
    )


def check_string(name: str, text: str | None) -> None:
    """Raises CommandFailed (2) where a packet cannot hold `text`. [MQTT-1.5.4-1, 2]"""
    if text is None:
        return
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise CommandFailed(f"{name} is not valid UTF-8", code=Exit.USAGE) from None
    if size > STRING_BYTES_MAX or "\0" in text:
        raise CommandFailed(
            f"{name} must have at most {STRING_BYTES_MAX:,} bytes, and no NUL", code=Exit.USAGE
        )


def find_by(url_text: str, keep_alive_s: int = 60) -> tuple[Address, str | None]:
    """What `--url` says, its topic too. Raises CommandFailed (2)."""
    scheme, _, behind = url_text.partition("://")
    authority, _, topic = behind.partition("/")
    url = _split(f"{scheme}://{authority}", "--url")
    assert url.hostname is not None
    username, password = (
        None if part is None else unquote(part) for part in (url.username, url.password)
    )
    address = find(url.hostname, url.port or PORT, username, password, keep_alive_s)
    return address, topic or None


def will_of(topic: str | None, payload: str | None, qos: int, *, retain: bool) -> Will | None:
    """The will that options ask for. Raises CommandFailed (2)."""
    from broker.errors import TopicNameInvalid
    from broker.topics import refuse_control_characters, validate_name

    if topic is None:
        if payload is not None or qos or retain:
            raise CommandFailed("a will needs its topic: --will-topic", code=Exit.USAGE)
        return None
    try:
        validate_name(topic)
        refuse_control_characters(topic)
    except TopicNameInvalid as error:
        raise CommandFailed(f"--will-topic {topic!r}: {error}", code=Exit.USAGE) from error
    return Will(topic, (payload or "").encode("utf-8", "surrogateescape"), qos, retain)


def _split(text: str, name: str) -> SplitResult:
    try:
        url = urlsplit(text)
        legal = url.scheme in ("mqtt", "tcp") and url.hostname and url.port != 0
    except ValueError:
        legal = False
    if not legal or url.query or url.fragment:
        raise _bad_url(name)
    return url


def _bad_url(name: str) -> CommandFailed:
    """Without the text, which may have a password in it."""
    topic = "" if name == URL else "[/TOPIC]"
    return CommandFailed(f"{name} must be like mqtt://127.0.0.1:9000{topic}", code=Exit.USAGE)
