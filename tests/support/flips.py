"""Flip one bit of a database at a time, and read everything: what was lost without a word? (P8)

python -m tests.support.flips TRIALS [SEED]
"""

from __future__ import annotations

import asyncio
import logging
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from broker.errors import PubSubError
from broker.message import Message, Offset
from broker.store import Read
from broker.store.sqlite.store import SqliteStore
from broker.topics import matches
from tests.support.messages import message

Ways = Sequence[tuple[str, ...] | None]
FILTERS: Ways = (
    None,
    ("#",),
    ("t/1",),
    ("t/+", "rare"),
    ("rare",),
    tuple(f"t/{i}" for i in range(20)),
)
"""What the log is read by: everything, and each way that the index is used."""


async def make(path: Path, seed: int, *, clean: bool = True) -> list[Message]:
    """A database with two full blocks and an open one; with payloads of all sizes."""
    choose = random.Random(seed)
    written = [
        message(
            choose.randbytes(choose.choice((0, 3, 30, 300)) if i % 200 else 6000),
            "rare" if i % 400 == 7 else f"t/{choose.randrange(25)}",
            publisher=f"pub{i % 3}",
            properties=choose.randbytes(i % 2 * 5),
            at=1_700_000_000_000_000 + i * 1000,
        )
        for i in range(2600)
    ]
    store = SqliteStore(path)
    await store.open()
    for at in range(0, len(written), 130):
        await store.append(written[at : at + 130])
    await store.close()
    return written


async def read_everything(
    store: SqliteStore, filters: tuple[str, ...] | None
) -> tuple[list[Message], list[range]]:
    messages: list[Message] = []
    damaged: list[range] = []
    position = Offset(1)
    while position <= store.high_watermark:
        read: Read = await store.read(position, store.high_watermark, filters, limit=700)
        messages += read.messages
        damaged += read.damaged
        assert read.next > position
        position = read.next
    return messages, damaged


def lost_silently(
    written: Sequence[Message],
    filters: tuple[str, ...] | None,
    found: Iterable[Offset],
    damaged: Sequence[range],
) -> list[Message]:
    """What the filters ask for, and was neither found nor named as damaged."""
    topics = {message.topic for message in written}
    if filters is not None:
        topics = {topic for topic in topics if any(matches(f, topic) for f in filters)}
    known = set(found)
    return [
        message
        for message in written
        if message.offset not in known
        and message.topic in topics
        and not any(message.offset in part for part in damaged)
    ]


async def verdict(path: Path, written: list[Message], ways: Ways = FILTERS) -> list[str]:
    """Sentences on what was lost silently, or delivered as something else, in any of the ways of
    reading; and `told` or `refused` if damage was noticed."""
    store = SqliteStore(path)
    said: set[str] = set()
    sent = {message.offset: message for message in written}
    try:
        await store.open()
    except PubSubError:
        return ["refused"]
    try:
        for filters in ways:
            messages, damaged = await read_everything(store, filters)
            found = {message.offset: message for message in messages}
            if len(found) != len(messages):
                said.add(f"{filters}: twice")
            for lost in lost_silently(written, filters, found, damaged):
                said.add(f"{filters}: {lost.offset} of {lost.topic} lost silently")
            for offset, got in found.items():
                if offset not in sent:
                    said.add(f"{filters}: {offset}, which nobody sent")
                elif got != sent[offset]:
                    said.add(f"{filters}: {offset} is something else")
            if damaged:
                said.add("told")
    except PubSubError:
        said.add("refused")
    finally:
        await store.close()
    return sorted(said)


def _replace(path: Path, content: bytes) -> None:
    """As the only file of its directory."""
    for beside in path.parent.iterdir():
        beside.unlink()
    path.write_bytes(content)


async def flip(
    directory: Path, trials: int, seed: int, *, in_payloads: bool = False
) -> Counter[str]:
    """How many trials ended how: `harmless`, `told`, `refused`; all else is a broken promise.

    `in_payloads`: not anywhere, but in a payload of a message: each of these has to be told.
    """
    path = directory / "pubsub.db"
    written = await make(path, seed)
    original = path.read_bytes()
    choose = random.Random(seed)
    ends: Counter[str] = Counter()
    long = [m.payload for m in written if len(m.payload) >= 30 and m.payload in original]
    for _ in range(trials):
        bit = choose.randrange(8 * len(original))
        if in_payloads:
            payload = choose.choice(long)
            bit = 8 * original.index(payload) + choose.randrange(8 * len(payload))
        damaged = bytearray(original)
        damaged[bit // 8] ^= 1 << bit % 8
        _replace(path, bytes(damaged))
        for end in await verdict(path, written) or ["harmless"]:
            ends[end if end in ("harmless", "told", "refused") else f"bit {bit}: {end}"] += 1
    return ends


if __name__ == "__main__":
    logging.disable()
    with tempfile.TemporaryDirectory() as name:
        seed = int(sys.argv[2]) if len(sys.argv) > 2 else 1
        for end, times in asyncio.run(flip(Path(name), int(sys.argv[1]), seed)).most_common():
            print(times, end)
