"""Address: the broker that a command talks to, how and as whom, and what is said when that does
not work. `cli/net/sources.py` finds it."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from cli.terminal.failure import CommandFailed, ConnectionLost, Exit, Referred

PORT, TLS_PORT = 9000, 8883
T = TypeVar("T")
HOST_AND_PORT = re.compile(r"(\[[^\]]*\]|[^:]*)(?::(\d{1,5}))?")
SERVER_MOVED = 0x9D
USE_ANOTHER = (0x9C, SERVER_MOVED)
REFERRALS_MAX = 5
"""So often brokers may refer to others before one is to take us."""
STRING_BYTES_MAX = 65_535
"""Of a string in an MQTT packet, in UTF-8."""


@dataclass(frozen=True, slots=True)
class Will:
    """What the broker publishes when it loses the connection."""

    topic: str
    payload: bytes = field(repr=False)
    qos: int
    retain: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """Whom to trust, and who we are. `cafile` None: those that the system trusts."""

    cafile: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    insecure: bool = False
    """Do not look who answers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    host: str = "127.0.0.1"
    port: int = PORT
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: Tls | None = None
    websocket: str | None = None
    """The path of the URL, where MQTT goes through a WebSocket."""
    keep_alive_s: int = 60
    will: Will | None = None
    of_several: tuple[tuple[str, int], ...] = ()
    """Hosts and ports of brokers that serve the same, with this one."""
    debug: bool = False
    """Tell on standard error which packets come and go."""

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    def brokers(self) -> list[Address]:
        """Those that `host` names, with commas between: they serve the same, and any will do. Each
        of them knows all. Raises CommandFailed (2)."""
        if "," not in self.host and not self.of_several:
            return [self]
        hosts = self.of_several or self._hosts()
        return [replace(self, host=host, port=port, of_several=hosts) for host, port in hosts]

    def _hosts(self) -> tuple[tuple[str, int], ...]:
        found: list[tuple[str, int]] = []
        for each in map(str.strip, self.host.split(",")):
            host, port = host_and_port(each, self.port)
            if not host or not 0 < port < 65_536:
                raise CommandFailed(
                    f"{self.host!r} does not name brokers", "use a,b or a:9000,b:9001", Exit.USAGE
                )
            found.append((host, port))
        return tuple(found)

    def unanswered(self, error: OSError | ConnectionLost) -> CommandFailed:
        """There was no CONNACK; `error` says why."""
        import ssl

        if isinstance(error, ssl.SSLError):
            from cli.net.tls import failed

            return failed(error, self)
        if isinstance(error, ConnectionLost | ConnectionAbortedError):
            return self.silent(str(error))
        return self.unreachable(error.strerror or str(error))

    def unreachable(self, reason: str) -> CommandFailed:
        from broker.settings.listeners import is_loopback

        remedy = "is it running, and does it listen on that address?"
        if is_loopback(self.host):
            port = "" if self.port == PORT else f" --port {self.port}"
            remedy = f"is it running? start it with: pubsub broker start{port}"
        return CommandFailed(
            f"no MQTT broker answers at {self} ({reason})", remedy, Exit.UNREACHABLE
        )

    def silent(self, reason: str) -> CommandFailed:
        """Something took the connection, and did not answer CONNECT."""
        if self.tls is None:
            remedy = "does that port want TLS (mqtts://), does something else listen there,"
        elif self.tls.cert is None:
            remedy = "does it want a client certificate (--cert), does something else listen there,"
        else:
            remedy = "does it refuse the client certificate, does something else listen there,"
        return CommandFailed(
            f"no MQTT broker answers at {self} ({reason})",
            f"{remedy} or is the broker stuck?",
            Exit.UNREACHABLE,
        )

    def after(self, code: int, properties: object) -> Address:
        """Where to connect after the broker has ended the connection with this Reason Code."""
        if (other := other_broker(code, properties)) is None:
            return self
        return self.referred(other, for_good=code == SERVER_MOVED)

    def referred(self, reference: str, *, for_good: bool = False) -> Address:
        """This broker has said that another is to be used: that one first, and not this one any
        more if it was `for_good`."""
        here = self.host, self.port
        hosts = [each for each in self.of_several or (here,) if each != here or not for_good]
        if parts := HOST_AND_PORT.fullmatch(reference.partition(" ")[0]):
            there = parts[1].strip("[]"), int(parts[2] or self.port)
            if there[0] and 0 < there[1] < 65_536:
                hosts = [there, *[each for each in hosts if each != there]]
        hosts = hosts or [here]
        return replace(self, host=hosts[0][0], port=hosts[0][1], of_several=tuple(hosts))

    def refused(
        self, reason: str, *, not_authorized: bool, other: str | None = None
    ) -> CommandFailed:
        """CONNACK said no. `other`: see `other_broker`."""
        said = f"the broker at {self} refused the connection: {reason}"
        if other is not None:
            return Referred(said, other)
        if not_authorized:
            return CommandFailed(said, self._credentials_remedy(), Exit.NOT_AUTHORIZED)
        if self.tls is None and "TLS" in reason:  # Our broker's words, or another's like them.
            return CommandFailed(said, "ask for TLS with: -L mqtts://...", Exit.UNREACHABLE)
        return CommandFailed(said)

    def right_to(self, right: str, topic: str, *, reads_history: bool = False) -> str:
        """What to do where the broker said that we are not authorised."""
        from broker.topics import REPLAY_PREFIX
        from cli.terminal import output

        user = "anonymous" if self.username is None else self.username
        needs = f"{user} needs the right to {right} {output.escaped(topic)}"
        if reads_history or topic.startswith(REPLAY_PREFIX):
            needs += ", and to read history"
        return f"{needs} (or log in as another: -u)" if self.username is None else needs

    def _credentials_remedy(self) -> str:
        if self.username is None:
            return "no user name was given: use -u NAME with --password-file or --password-stdin"
        if self.password is None:
            return f"{self.username} gave no password: use --password-file FILE or --password-stdin"
        return (
            f"is the password of {self.username} right, and may {self.username} use this client"
            " identifier (--id)?"
        )


def other_broker(code: int, properties: object) -> str | None:
    """The Server Reference beside a Reason Code of CONNACK or DISCONNECT that says to use another
    broker; "": it does not say which; None: it says something else. [MQTT 5, 4.11]"""
    if code not in USE_ANOTHER:
        return None
    return str(getattr(properties, "ServerReference", ""))


def host_and_port(text: str, port: int) -> tuple[str, int]:
    """Of `a`, `a:9001`, `::1` or `[::1]:9001`; `port` where it names none."""
    if parts := HOST_AND_PORT.fullmatch(text):
        return parts[1].strip("[]"), int(parts[2] or port)
    return text, port  # An IPv6 address alone.


def first_that_answers(address: Address, open_one: Callable[[Address], T]) -> T:
    """What `open_one` returns, of one of the address's brokers, or of those that these refer to.
    Raises what it raises, of the last one if nobody is there."""
    trying, referrals = deque(address.brokers()), 0
    while True:
        broker = trying.popleft()
        try:
            return open_one(broker)
        except CommandFailed as error:
            if isinstance(error, Referred) and error.reference and referrals < REFERRALS_MAX:
                referrals += 1
                trying.appendleft(broker.referred(error.reference))
            if error.code is not Exit.UNREACHABLE or not trying:
                raise


def check_client_id(text: str | None) -> None:
    """Of `--id`. Raises CommandFailed (2)."""
    from broker.topics import has_control_character

    check_string("--id", text)
    if text is not None and not text.isprintable() and has_control_character(text):
        raise CommandFailed("--id has a control character", "leave it out", Exit.USAGE)


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
