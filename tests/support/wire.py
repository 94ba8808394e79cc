"""Wire: a script of bytes between a client and a Connection that is always willing to accept.

A script has hexadecimal bytes, 'text' in UTF-8 and `00*40` for repetition; blanks are for the eye.
`( )` puts the length of what is inside in front of it, in one byte, where it is not the point.
What the broker sends is compared byte for byte, but `..` stands for any byte and `*` for any number
of them (the Reason String, which is for people).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from broker.message import Monotonic
from broker.mqtt.authentication import Methods
from broker.mqtt.connection import Connection, Event
from broker.mqtt.fields import PACKET_BYTES_MAX
from broker.mqtt.limits import Limits
from broker.mqtt.packets import (
    RECEIVE_MAXIMUM_DEFAULT,
    Ack,
    Connack,
    Connect,
    FromServer,
    Properties,
)

LIMITS = Limits(
    packet_bytes_max=PACKET_BYTES_MAX,
    topic_bytes_max=65_535,
    topic_levels_max=128,
    receive_max=RECEIVE_MAXIMUM_DEFAULT,
    topic_alias_max=0,
    properties_per_packet_max=1000,
    filters_per_packet_max=1000,
    connect_timeout_s=10.0,
)
"""What MQTT takes for granted, where it does."""

_TOKEN = re.compile(
    r"'(?P<text>[^']*)'|(?P<hex>[0-9A-Fa-f]+)(?:\*(?P<times>\d+))?|(?P<any>\.\.|\*)|(?P<length>[()])"
)


class Wire:
    def __init__(self, *, byte_by_byte: bool) -> None:
        self.now = Monotonic(0.0)
        self.connack: Properties = {}
        """What the CONNACK is to carry beside the limits."""
        self._byte_by_byte = byte_by_byte
        self._events: list[Event] = []
        self.limits()

    def limits(self, **limits: Any) -> None:
        """Begin a connection with these limits instead of `LIMITS`."""
        self.connection = Connection(now=self.now, limits=replace(LIMITS, **limits))

    def methods(self, methods: Methods) -> None:
        """Begin a connection with these methods of authentication."""
        self.connection = Connection(now=self.now, limits=LIMITS, methods=methods)

    def client(self, script: str) -> None:
        """The client writes."""
        data = script_bytes(script)
        for chunk in chunks(data, 1) if self._byte_by_byte else (data,):
            for event in self.connection.receive_data(chunk, self.now):
                self._events.append(event)
                if isinstance(event, Connect) and not self.connection.closed:
                    self.connection.accept(Connack(False, 0, dict(self.connack)))

    def connect(self, version: int = 5) -> None:
        """The client connects as simply as can be, and is accepted."""
        self.client(
            "10 0D  0004 'MQTT' 04 02 003C  0001 'a'"
            if version == 4
            else "10 0E  0004 'MQTT' 05 02 003C 00  0001 'a'"
        )
        assert self.connection.data_to_send()[0] == 0x20
        self.took()

    def send(self, packet: FromServer) -> None:
        """The session sends."""
        self.connection.send(packet)

    def broker(self, script: str) -> None:
        """What the broker has written since this was asked last."""
        written = self.connection.data_to_send()
        assert re.fullmatch(script_pattern(script), written, re.DOTALL), written.hex(" ")

    def closed(self) -> None:
        """The broker has closed the connection and says nothing more."""
        self.broker("")
        assert self.connection.closed

    def open(self) -> None:
        self.broker("")
        assert not self.connection.closed

    def took(self) -> list[Event]:
        """The events since this was asked last; acknowledgements one by one."""
        events = list(one_by_one(self._events))
        self._events.clear()
        return events


def one_by_one(events: list[Event]) -> Iterator[Event]:
    """Runs of acknowledgements depend on the chunking; what they say does not."""
    for event in events:
        if isinstance(event, Ack):
            for packet_id in event.packet_ids:
                yield Ack(
                    event.type,
                    [packet_id],
                    event.reason_code,
                    event.reason_string,
                    event.user_properties,
                )
        else:
            yield event


def chunks(data: bytes, size: int) -> Iterator[bytes]:
    return (data[start : start + size] for start in range(0, len(data), size))


def script_bytes(script: str) -> bytes:
    nested = [b""]
    for token in _tokens(script):
        assert not token["any"], "a client cannot write a wildcard"
        if token["length"] == "(":
            nested.append(b"")
        elif token["length"] == ")":
            inner = nested.pop()
            nested[-1] += bytes((len(inner),)) + inner
        else:
            nested[-1] += _token_bytes(token)
    [data] = nested
    return data


def script_pattern(script: str) -> bytes:
    wildcards = {"..": b".", "*": b".*"}
    return b"".join(
        wildcards[token["any"]] if token["any"] else re.escape(_token_bytes(token))
        for token in _tokens(script)
    )


def _tokens(script: str) -> Iterator[re.Match[str]]:
    position = 0
    script = script.strip()
    while position < len(script):
        token = _TOKEN.match(script, position)
        assert token, f"cannot read {script[position:]!r}"
        yield token
        position = token.end()
        while position < len(script) and script[position].isspace():
            position += 1


def _token_bytes(token: re.Match[str]) -> bytes:
    if token["text"] is not None:
        return token["text"].encode()
    return bytes.fromhex(token["hex"]) * int(token["times"] or 1)
