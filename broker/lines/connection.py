r"""The line protocol: one Network Connection of it, without I/O and clock; same face as `mqtt`.

A line is UTF-8 and ends with a newline (`\r\n` will do). Tokens are separated by a space.

    SUBSCRIBE <topic filter> <subscriber>              UNSUBSCRIBE <topic filter> <subscriber>
    PUBLISH <topic> <message> <publisher>              CONFIRM
    LOGIN <user> <password>
    OK · ERROR <reason> · DELIVER <topic> <message> <publisher> <YYYY-MM-DD HH:MM:SS>

- The message begins one space behind the topic and ends one space before the last token. Spaces
  in it are kept. `PUBLISH t  p` (two spaces) has an empty message.
- LOGIN says who the peer is, where the broker asks for that. The password is all behind the user,
  spaces included; a user with spaces in the name cannot log in here.
- A command that succeeds gets no answer until the peer sends `CONFIRM`, and OK from then on, for
  CONFIRM too. The original clients print every line that they receive, and the original publisher
  never reads.
- Commands are answered in their order. An OK may have to wait for the log. So a line that cannot
  be obeyed is an event, `LineError`; its client calls `error` when it is that line's turn.
- The time of a DELIVER is the broker's local time, as the original program prints it.
- No line ends the connection. A line longer than `line_bytes_max` is refused once and skipped as it
  arrives. Empty lines are ignored, and so is a last line without a newline.
- Every message is one DELIVER line, also one that was published by MQTT. Text that fits into a line
  is sent unchanged, backslashes included. Text that does not fit (it has a newline, a carriage
  return, NUL, bytes that are not UTF-8; in a topic or publisher also a space) is sent with those
  as `\n`, `\r` and `\xNN`, and with its backslashes doubled. Commands have no such escapes: who
  wants a topic with a space subscribes with a wildcard.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache

from broker.errors import (
    ClientIdentifierNotValid,
    MalformedPacket,
    PeerError,
    TopicFilterInvalid,
)
from broker.message import Message, Monotonic
from broker.topics import (
    has_control_character,
    refuse_control_characters,
    refuse_reserved,
    validate_filter,
    validate_name,
)

IDENTIFIER_BYTES_MAX = 65_535
"""For subscribers and publishers, who are client identifiers: no longer than MQTT's may be."""

PASSWORD_CHARACTERS_MAX = 16_383
"""So it is never longer than in a CONNECT."""

_ESCAPES = {
    ord("\\"): r"\\",
    ord("\n"): r"\n",
    ord("\r"): r"\r",
    ord("\0"): r"\x00",
    **{0xDC00 + byte: f"\\x{byte:02x}" for byte in range(0x80, 0x100)},  # as surrogateescape has it
}
_TOKEN_ESCAPES = {**_ESCAPES, ord(" "): r"\x20"}


@dataclass(slots=True)
class LineSubscribe:
    filter: str
    subscriber: str


@dataclass(slots=True)
class LineUnsubscribe:
    filter: str
    subscriber: str


@dataclass(slots=True)
class LinePublish:
    topic: str
    payload: bytes
    publisher: str


@dataclass(slots=True)
class LineLogin:
    user: str
    password: bytes = field(repr=False)


@dataclass(slots=True)
class LineConfirm:
    """Answer this and every later command."""


@dataclass(slots=True)
class LineError:
    """A line that cannot be obeyed: to be answered with `error(reason)` when its turn comes."""

    reason: str


LineCommand = LinePublish | LineSubscribe | LineUnsubscribe | LineLogin | LineConfirm
LineEvent = LineCommand | LineError


class LineConnection:
    """Bytes in, events out; answers in, bytes out."""

    def __init__(
        self, *, now: Monotonic, line_bytes_max: int, topic_bytes_max: int, topic_levels_max: int
    ) -> None:
        self._line_bytes_max = self._most = line_bytes_max
        self._topic_bytes_max = topic_bytes_max
        self._topic_levels_max = topic_levels_max
        self._line = bytearray()
        """The line so far, at most `line_bytes_max` of it."""
        self._skipping = False
        """The line so far was too long: the rest of it is of no interest."""
        self._outgoing: list[bytes] = []

    @property
    def unfinished_bytes(self) -> int:
        """What is kept of a line that has not ended."""
        return len(self._line)

    def limit(self, line_bytes_max: int | None) -> None:
        """Of the lines to come; None, or more than at first: as at first."""
        self._line_bytes_max = min(self._most, line_bytes_max or self._most)

    def forget(self) -> None:
        """Keep nothing of the line so far, and skip the rest of it."""
        self._line.clear()
        self._skipping = True

    def receive_data(self, data: bytes, now: Monotonic) -> list[LineEvent]:
        """One event for each line that ends in `data`, in order; none for an empty line."""
        events: list[LineEvent] = []
        *ends, rest = data.split(b"\n")
        for end in ends:
            if (refusal := self._extend(end)) is not None:
                events.append(refusal)
            if not self._skipping and (event := self._parse(bytes(self._line))) is not None:
                events.append(event)
            self._line.clear()
            self._skipping = False
        if (refusal := self._extend(rest)) is not None:
            events.append(refusal)
        return events

    def ok(self) -> None:
        """Answer the command whose turn it is: done, and a PUBLISH is on the disk."""
        self._outgoing.append(b"OK\n")

    def error(self, reason: str) -> None:
        self._outgoing.append(b"ERROR %b\n" % _text(reason.encode()))

    def deliver(self, topic: str, payload: bytes, publisher: str, published_at_us: int) -> None:
        """Queue one DELIVER."""
        self._outgoing.append(
            b"DELIVER %b %b %b %b\n"
            % (
                _token(topic),
                _text(payload),
                _token(publisher),
                _local(published_at_us // 1_000_000),
            )
        )

    def deliver_many(self, messages: Iterable[Message]) -> None:
        for message in messages:
            self.deliver(message.topic, message.payload, message.publisher, message.published_at_us)

    def data_to_send(self) -> bytes:
        """The lines queued since the last call."""
        data = b"".join(self._outgoing)
        self._outgoing.clear()
        return data

    def deadline(self) -> Monotonic | None:
        """None: the protocol has no keep alive, so only the transport knows that a peer is gone."""
        return None

    def expire(self, now: Monotonic) -> list[LineEvent]:
        return []

    def _extend(self, piece: bytes) -> LineError | None:
        """Add to the line so far. Returns the refusal, once, if that makes it too long."""
        if self._skipping:
            return None
        if len(self._line) + len(piece) <= self._line_bytes_max:
            self._line += piece
            return None
        self._skipping = True
        self._line.clear()
        return LineError(f"line is too long: send at most {self._line_bytes_max} bytes")

    def _parse(self, line: bytes) -> LineEvent | None:
        """One line without its newline; None for an empty one."""
        try:
            whole = line.removesuffix(b"\r").decode().lstrip(" ")
            if not (text := whole.rstrip(" ")):
                return None
            if "\0" in text:
                raise MalformedPacket("line has a NUL character: leave it out")
            command, _, arguments = text.partition(" ")
            match command := command.upper():
                case "PUBLISH":
                    return self._publish(arguments.lstrip(" "))
                case "SUBSCRIBE":
                    return LineSubscribe(*self._subscription(command, arguments))
                case "UNSUBSCRIBE":
                    return LineUnsubscribe(*self._subscription(command, arguments))
                case "LOGIN":
                    user, _, password = whole[len(command) :].lstrip(" ").partition(" ")
                    if len(password) > PASSWORD_CHARACTERS_MAX or not password:
                        raise MalformedPacket("LOGIN takes a user and a password")
                    return LineLogin(user, password.encode())
                case "CONFIRM" if not arguments:
                    return LineConfirm()
                case "CONFIRM":
                    raise MalformedPacket("CONFIRM takes nothing: each command is answered then")
                case _:
                    raise MalformedPacket(
                        "unknown command: use SUBSCRIBE, UNSUBSCRIBE, PUBLISH, CONFIRM or LOGIN"
                    )
        except UnicodeDecodeError:
            return LineError("line is not valid UTF-8")
        except PeerError as error:
            return LineError(error.reason)

    def _publish(self, arguments: str) -> LinePublish:
        topic, _, rest = arguments.partition(" ")
        message, space, publisher = rest.rpartition(" ")
        if not space:
            raise MalformedPacket("PUBLISH takes a topic, a message and a publisher")
        validate_name(topic, bytes_max=self._topic_bytes_max, levels_max=self._topic_levels_max)
        refuse_reserved(topic)
        refuse_control_characters(topic)
        _validate_identifier(publisher)
        return LinePublish(topic, message.encode(), publisher)

    def _subscription(self, command: str, arguments: str) -> tuple[str, str]:
        tokens = [token for token in arguments.split(" ") if token]
        if len(tokens) != 2:
            raise MalformedPacket(f"{command} takes a topic filter and a subscriber")
        filter, subscriber = tokens
        validate_filter(filter, bytes_max=self._topic_bytes_max, levels_max=self._topic_levels_max)
        if has_control_character(filter):
            raise TopicFilterInvalid("Topic Filter has a control character: use + for that level")
        _validate_identifier(subscriber)
        return filter, subscriber


def _validate_identifier(identifier: str) -> None:
    if len(identifier.encode()) > IDENTIFIER_BYTES_MAX:
        raise ClientIdentifierNotValid(
            f"name is too long: use at most {IDENTIFIER_BYTES_MAX} bytes"
        )
    if has_control_character(identifier):
        raise ClientIdentifierNotValid("name has a control character: leave it out")


def _text(data: bytes) -> bytes:
    """Unchanged if it fits into a line, else escaped (see the module)."""
    if _fits_a_line(data):
        return data
    return data.decode(errors="surrogateescape").translate(_ESCAPES).encode()


@lru_cache(maxsize=1024)
def _token(text: str) -> bytes:
    """Unchanged if it fits into a token, else escaped. Cached: names come again and again."""
    if " " not in text and _fits_a_line(text.encode()):
        return text.encode()
    return text.translate(_TOKEN_ESCAPES).encode()


def _fits_a_line(data: bytes) -> bool:
    if b"\n" in data or b"\r" in data or b"\0" in data:
        return False
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


@lru_cache(maxsize=64)
def _local(second: int) -> bytes:
    """Cached: the messages of a batch share a second or two."""
    return datetime.fromtimestamp(second).strftime("%Y-%m-%d %H:%M:%S").encode()
