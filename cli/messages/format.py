r"""How a received message is written: mosquitto_sub's `-F` language, and ours for `--json`.

    %t topic   %p payload   %x %X payload in hex   %l its length   %q QoS   %r retain (0 or 1)
    %m Packet Identifier    %C %D %E %F %P %R %S   Content Type, Correlation Data, Message Expiry,
    Payload Format, User Properties, Response Topic, Subscription Identifiers
    %I %U %@x   time received: ISO 8601, epoch seconds with nanoseconds, strftime's %x
    %j %J   one line of JSON, the payload as text or as the JSON it is
    \\ \0 \a \e \n \r \t \v   and %% for a percent sign

and, where a message is in our log: %{offset} %{publisher} %{published_at}.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import datetime

from paho.mqtt.client import MQTTMessage

from broker.message import rfc3339
from cli.log.logged import LoggedMessage
from cli.net.user_properties import user_properties_of
from cli.terminal import output
from cli.terminal.failure import CommandFailed, Exit

METADATA_NAMES = {"offset": "offset", "publisher": "publisher", "published_at": "published-at"}
"""Our name for it, and the user property of the delivered message that carries it."""

Format = Callable[[MQTTMessage, float], bytes]
"""From a message and the time it was received (epoch seconds) to the bytes to write."""

_FIELD = re.compile(r"%(?:\{(\w+)\}|@(.)|(.))|\\(.)|[^%\\]+|.", re.DOTALL)
_ESCAPES = {
    "\\": "\\",
    "0": "\0",
    "a": "\a",
    "e": "\x1b",
    "n": "\n",
    "r": "\r",
    "t": "\t",
    "v": "\v",
}


def compile_format(text: str, *, terminal: bool) -> Format:
    """Raises CommandFailed (usage): a field that does not exist.

    For a terminal, what comes from the message is made harmless; the format itself is the user's.
    """
    parts: list[bytes | Format] = []
    for match in _FIELD.finditer(text):
        name, time_letter, letter, escape = match.groups()
        if name is not None:
            parts.append(_metadata(name))
        elif time_letter is not None:
            parts.append(_strftime(time_letter))
        elif letter == "%":
            parts.append(b"%")
        elif letter is not None:
            if letter not in _FIELDS:
                raise _unknown(f"%{letter}")
            parts.append(_FIELDS[letter])
        elif escape is not None:
            parts.append(_ESCAPES.get(escape, match.group()).encode())
        else:
            parts.append(match.group().encode())

    def write(message: MQTTMessage, now: float) -> bytes:
        return b"".join(
            part
            if isinstance(part, bytes)
            else output.harmless(part(message, now)).encode()
            if terminal
            else part(message, now)
            for part in parts
        )

    return write


def plain_format(*, verbose: bool, newline: bool, terminal: bool) -> Format:
    """mosquitto_sub's own: the payload and a newline, with `verbose` the topic before it."""
    end = b"\n" if newline else b""
    if terminal:
        text = ("%t %p" if verbose else "%p") + ("\\n" if newline else "")
        return compile_format(text, terminal=True)
    if verbose:
        return lambda message, _: b"%b %b%b" % (message.topic.encode(), bytes(message.payload), end)
    return lambda message, _: bytes(message.payload) + end


def json_format(message: MQTTMessage, _now: float) -> bytes:
    return output.json_line(record(message))


def record(message: MQTTMessage) -> dict[str, object]:
    """What is known of a message, for --json."""
    fields: dict[str, object] = {
        "topic": message.topic,
        **output.payload_fields(bytes(message.payload)),
        "qos": message.qos,
        "retain": bool(message.retain),
    }
    return fields | metadata(message)


def metadata(message: MQTTMessage) -> dict[str, object]:
    """Offset, publisher and time of publication: those that the broker sent along."""
    if isinstance(message, LoggedMessage):
        logged = message.logged
        return {
            "offset": int(logged.offset),
            "publisher": logged.publisher,
            "published_at": rfc3339(logged.published_at_us),
        }
    sent = user_properties_of(message.properties)
    found: dict[str, object] = {
        name: sent[key] for name, key in METADATA_NAMES.items() if key in sent
    }
    if "offset" in found:
        found["offset"] = int(sent["offset"])
    return found


def _mosquitto_json(message: MQTTMessage, now: float, payload: object) -> bytes:
    fields: dict[str, object] = {
        "tst": datetime.fromtimestamp(now).astimezone().strftime("%Y-%m-%dT%H:%M:%S.%f%z"),
        "topic": message.topic,
        "qos": message.qos,
        "retain": int(message.retain),
        "payloadlen": len(message.payload),
    }
    if message.qos:
        fields["mid"] = message.mid
    return json.dumps(fields | {"payload": payload}, ensure_ascii=False).encode()


def _json_of_text(message: MQTTMessage, now: float) -> bytes:
    return _mosquitto_json(message, now, message.payload.decode("utf-8", "replace"))


def _json_of_json(message: MQTTMessage, now: float) -> bytes:
    try:
        payload = json.loads(message.payload)
    except ValueError:
        return _json_of_text(message, now)
    return _mosquitto_json(message, now, payload)


def _property(name: str) -> Format:
    def write(message: MQTTMessage, _now: float) -> bytes:
        value = getattr(message.properties, name, b"")
        return value if isinstance(value, bytes) else str(value).encode()

    return write


def _user_properties(message: MQTTMessage, _now: float) -> bytes:
    pairs = getattr(message.properties, "UserProperty", ())
    return " ".join(f"{key}:{value}" for key, value in pairs).encode()


def _subscription_identifiers(message: MQTTMessage, _now: float) -> bytes:
    numbers = getattr(message.properties, "SubscriptionIdentifier", ())
    return " ".join(str(number) for number in numbers).encode()


def _metadata(name: str) -> Format:
    if name not in METADATA_NAMES:
        raise _unknown(f"%{{{name}}}")
    return lambda message, _: str(metadata(message).get(name, "")).encode("utf-8", "replace")


def _strftime(letter: str) -> Format:
    return lambda _, now: datetime.fromtimestamp(now).astimezone().strftime(f"%{letter}").encode()


def _iso_time(_message: MQTTMessage, now: float) -> bytes:
    return datetime.fromtimestamp(now).astimezone().strftime("%Y-%m-%dT%H:%M:%S%z").encode()


def _unknown(field: str) -> CommandFailed:
    return CommandFailed(
        f"-F has no field {field}", "`pubsub sub --help` lists them", code=Exit.USAGE
    )


_FIELDS: dict[str, Format] = {
    "t": lambda message, _: message.topic.encode(),
    "p": lambda message, _: bytes(message.payload),
    "x": lambda message, _: message.payload.hex().encode(),
    "X": lambda message, _: message.payload.hex().upper().encode(),
    "l": lambda message, _: b"%d" % len(message.payload),
    "q": lambda message, _: b"%d" % message.qos,
    "r": lambda message, _: b"%d" % message.retain,
    "m": lambda message, _: b"%d" % message.mid,
    "C": _property("ContentType"),
    "D": _property("CorrelationData"),
    "E": _property("MessageExpiryInterval"),
    "F": _property("PayloadFormatIndicator"),
    "P": _user_properties,
    "R": _property("ResponseTopic"),
    "S": _subscription_identifiers,
    "I": _iso_time,
    "U": lambda _, now: b"%.9f" % now,
    "j": _json_of_text,
    "J": _json_of_json,
}
