"""Messages as rows of `messages`, and the checksum that finds a flipped bit (S8).

The checksum covers topic and publisher by name, not by identifier, so it also finds damage in the
tables of names. The names are in its seed, which readers and the writer remember for each pair of
topic and publisher; for each message one `crc32` over the payload is left to do.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any
from zlib import crc32

from broker.message import Message

BLOCK_SHIFT = 10
"""`topic_blocks` indexes blocks of 1024 offsets."""

ROWS_PER_STATEMENT = 512
"""SQLite takes at most 32,766 parameters, which are 10 a row. More than 64 rows gain little."""

COLUMNS = (
    "offset, topic_id, publisher_id, published_at_us, qos, retain, expires_at_us,"
    " payload, properties, crc"
)

INSERT_MESSAGES = f"INSERT INTO messages ({COLUMNS}) VALUES "
ROW = "(?,?,?,?,?,?,?,?,?,?)"
WIDTH = 10
"""Parameters of one message."""
TOPIC_ID, PUBLISHED_AT_US, RETAIN, EXPIRES_AT_US = 1, 3, 5, 6
PAYLOAD, PROPERTIES, CHECKSUM = 7, 8, 9
"""Where these are among the parameters of a message."""

ADAPTED_BYTES_MIN = 4096
"""Larger payloads are bound as bytes: to copy them takes longer than sqlite3's adapters."""

_NO_BYTES = bytearray()

_PRIME = 0xFFFF_FFFB
"""The largest prime below 2**32: a flipped bit of the numbers always changes the remainder."""

OFFSET_RULE = 1 << 32
"""Set in every checksum that has the offset in it. The checksum itself is below."""


def text(stored: bytes) -> str:
    """A text column, for `text_factory`. Bytes that are no UTF-8 are damage: the checksum tells."""
    return stored.decode("utf-8", "replace")


def seed(topic: str, publisher: str) -> int:
    return crc32(f"{topic}\0{publisher}".encode())


def checksum(
    seed: int,
    offset: int,
    published_at_us: int,
    qos: int,
    retain: int,
    expires_at_us: int,
    payload: bytes,
    properties: bytes,
) -> int:
    """The offset comes in last, and by XOR, so that `without_offset` can take it out again."""
    numbers = (published_at_us << 3 | qos << 1 | retain) + expires_at_us * 5
    crc = crc32(payload, seed ^ numbers % _PRIME)
    if properties:
        crc = crc32(properties, crc)
    return OFFSET_RULE | crc ^ offset % _PRIME


def without_offset(checksum: int, offset: int) -> int:
    """The checksum that an older program gave this row: without offset, and below OFFSET_RULE."""
    return (checksum ^ offset % _PRIME) & OFFSET_RULE - 1


def flat_rows(
    messages: Sequence[Message],
    pairs: Mapping[tuple[str, str], tuple[int, int, int]],
    first: int,
) -> list[Any]:
    """The parameters of these messages, one after the other. Hot: `make bench` shows it.

    The offsets are not among them: they are `first` and the offsets that follow it.

    `pairs` gives the identifiers of topic and publisher, and their seed. sqlite3 binds exact ints
    and bytearrays directly, while bool, None and bytes first go through its adapters, at 0.4 µs
    each (`python -m benchmarks.codec`, *one value adapted*).
    """
    parameters: list[Any] = []
    extend = parameters.extend
    for offset, message in enumerate(messages, first):
        topic_id, publisher_id, seed = pairs[message.topic, message.publisher]
        published_at_us = message.published_at_us
        qos = message.qos
        retain = 1 if message.retain else 0
        expires_at_us = message.expires_at_us or 0
        payload = message.payload
        properties = message.properties
        # As `checksum`, without a call for each message.
        numbers = (published_at_us << 3 | qos << 1 | retain) + expires_at_us * 5
        crc = crc32(payload, seed ^ numbers % _PRIME)
        if properties:
            crc = crc32(properties, crc)
        extend(
            (
                offset,
                topic_id,
                publisher_id,
                published_at_us,
                qos,
                retain,
                expires_at_us,
                bytearray(payload) if message.size <= ADAPTED_BYTES_MIN else payload,
                bytearray(properties) if properties else _NO_BYTES,
                OFFSET_RULE | crc ^ offset % _PRIME,
            )
        )
    return parameters


def insert_rows(
    connection: sqlite3.Connection,
    insert: str,
    row: str,
    suffix: str,
    width: int,
    parameters: list[Any],
) -> int:
    """Insert rows of `width` parameters, given flat, in few statements; the last rowid.

    Each statement holds a power of two of rows, so that the texts are few and stay prepared.
    Many rows a statement because sqlite3 gives up the GIL and takes it back for each: that takes a
    quarter of the time (`python -m benchmarks.codec`, *row inserted*), and a busy event loop has
    far fewer chances to keep the writer waiting.
    """
    if len(parameters) == width:  # One that comes alone.
        return connection.execute(_statement(insert, row, suffix, 1), parameters).lastrowid or 0
    rowid = 0
    rows, done = len(parameters) // width, 0
    while done < rows:
        size = min(ROWS_PER_STATEMENT, 1 << (rows - done).bit_length() - 1)
        part = parameters[done * width : (done + size) * width]
        rowid = connection.execute(_statement(insert, row, suffix, size), part).lastrowid or 0
        done += size
    return rowid


@cache
def _statement(insert: str, row: str, suffix: str, size: int) -> str:
    return insert + ",".join([row] * size) + suffix
