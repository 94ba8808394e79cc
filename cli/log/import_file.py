"""`pubsub import`: publishes what an export has, through the broker, each message acknowledged.

Beside FILE is kept how far it came (`FILE.imported`), once a second and at the end: the same
command again goes on there, also when the file has grown since. Ctrl-C waits for what is on its way
to the broker. What was on its way when it was killed, or the connection broke, may come twice: at
most `WINDOW_MESSAGES` messages.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
import sys
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from broker.plural import counted
from cli.log.republish import Republisher
from cli.net.address import Address
from cli.options import unique
from cli.terminal import output
from cli.terminal.failure import CommandFailed, Exit
from cli.terminal.interrupt import Interrupt
from cli.terminal.progress import Progress

STATE_SUFFIX = ".imported"
STATE_EVERY_S = 1.0
HEAD_BYTES = 65_536
"""Of the beginning of the file: by it another file of the same name is told."""

Fields = dict[str, object]


@dataclass(slots=True)
class State:
    """How far an import came. `position`: bytes of the file, rows of a Parquet file."""

    broker: str
    position: int = 0
    messages: int = 0
    head_bytes: int = 0
    head: str = ""


def import_file(
    path: Path,
    format: str,
    address: Address,
    *,
    again: bool = False,
    no_retain: bool = False,
    as_json: bool = False,
) -> None:
    """Raises CommandFailed: a line that is no message (2), one that the broker refuses, a lost
    connection (69), interrupted. The same call goes on where it was."""
    if not path.exists():
        raise CommandFailed(f"no file {path}", code=Exit.USAGE)
    state = State(str(address)) if again else _load(path, str(address))
    before = state.messages
    if state.position:
        done = counted(before, "message is", "messages are")
        output.note(f"{path}: {done} imported already; going on (--again: anew)")
    began = time.perf_counter()
    with Interrupt() as interrupt:
        publisher = Republisher(address, f"pubsub-import-{unique()}", interrupt)
        publisher.open()
        work = _Work(path, format, state, publisher, no_retain=no_retain)
        try:
            work.run()
        except KeyboardInterrupt as error:
            publisher.drain()
            raise CommandFailed("interrupted: the same command again goes on") from error
        finally:
            publisher.close()
            work.save()
            work.progress.clear()
    record = {
        "imported": str(path),
        "messages": state.messages - before,
        "left_out": work.left_out,
        "seconds": round(time.perf_counter() - began, 3),
    }
    if as_json:
        output.data(output.json_line(record))
    else:
        output.note(f"{counted(state.messages - before, 'message')} imported from {path}")
    if work.left_out:
        output.note(f"{work.left_out:,} left out: topics that begin with $ are the broker's own")


class _Work:
    def __init__(
        self, path: Path, format: str, state: State, publisher: Republisher, *, no_retain: bool
    ) -> None:
        self.left_out = 0
        self.progress = Progress(path.stat().st_size, "imported", "bytes")
        self._path = path
        self._state = state
        self._publisher = publisher
        self._retain = False if no_retain else None
        self._records = _records(path, format, state.position)
        self._is_rows = format == "parquet"
        self._positions: deque[int] = deque()
        """Where each message ends that is sent and not acknowledged."""
        self._done = 0
        self._saved_at = time.monotonic()

    def run(self) -> None:
        end = self._state.position
        for fields, end in self._records:
            topic = fields.get("topic")
            if not isinstance(topic, str) or not topic:
                raise CommandFailed(
                    f"{self._path}: what ends at {end:,} has no topic", "", Exit.USAGE
                )
            if topic.startswith("$"):
                self.left_out += 1
                continue
            try:
                self._publisher.send(fields, retain=self._retain)
            except ValueError as error:
                raise CommandFailed(
                    f"{self._path}: what ends at {end:,} is no message: {error}", "", Exit.USAGE
                ) from error
            self._positions.append(end)
            self._advance()
        self._publisher.wait()
        self._advance()
        self._state.position = end

    def _advance(self) -> None:
        while self._done < self._publisher.done:
            self._state.position = self._positions.popleft()
            self._state.messages += 1
            self._done += 1
        if not self._is_rows:
            self.progress.looked(self._state.position)
        if time.monotonic() - self._saved_at > STATE_EVERY_S:
            self.save()

    def save(self) -> None:
        """Raises CommandFailed: the file beside cannot be written."""
        while self._done < self._publisher.done:
            self._state.position = self._positions.popleft()
            self._state.messages += 1
            self._done += 1
        state = self._state
        state.head_bytes = HEAD_BYTES if self._is_rows else min(HEAD_BYTES, state.position)
        state.head = _head(self._path, state.head_bytes)
        beside = Path(f"{self._path}{STATE_SUFFIX}")
        content = {name: getattr(state, name) for name in State.__slots__}
        try:
            new = Path(f"{beside}.new")
            new.write_text(json.dumps(content) + "\n", encoding="utf-8")
            new.replace(beside)
        except OSError as error:
            raise CommandFailed(f"{beside}: {error.strerror}") from error
        self._saved_at = time.monotonic()


def _load(path: Path, broker: str) -> State:
    """How far it came; nowhere, if that was another file or another broker."""
    try:
        content = json.loads(Path(f"{path}{STATE_SUFFIX}").read_text(encoding="utf-8"))
        state = State(**content)
    except (OSError, ValueError, TypeError):
        return State(broker)
    if state.broker != broker or state.head != _head(path, state.head_bytes):
        return State(broker)
    return state


def _head(path: Path, size: int) -> str:
    with path.open("rb") as file:
        return hashlib.sha256(file.read(size)).hexdigest()


def _records(path: Path, format: str, position: int) -> Iterator[tuple[Fields, int]]:
    """The messages of the file behind `position`, and where each ends."""
    if format == "parquet":
        from cli.log.parquet import records

        return records(path, position)
    return (_json if format == "jsonl" else _csv)(path, position)


def _json(path: Path, position: int) -> Iterator[tuple[Fields, int]]:
    with path.open("rb") as file:
        file.seek(position)
        for line in file:
            position += len(line)
            if not line.strip():
                continue
            try:
                fields = json.loads(line)
            except ValueError as error:
                if not line.endswith(b"\n"):
                    return  # Of an export that goes on.
                raise CommandFailed(
                    f"{path}: the line that ends at {position:,} is no JSON", "", Exit.USAGE
                ) from error
            if not isinstance(fields, dict):
                raise CommandFailed(
                    f"{path}: the line that ends at {position:,} is no message", "", Exit.USAGE
                )
            yield fields, position


def _csv(path: Path, position: int) -> Iterator[tuple[Fields, int]]:
    csv.field_size_limit(sys.maxsize)
    with path.open("rb") as file:
        first = file.readline().decode("utf-8-sig", "replace")
        heading = next(csv.reader([first]), [])
        if "topic" not in heading:
            raise CommandFailed(
                f"{path}: its first line has no column topic", "see: pubsub export", Exit.USAGE
            )
        position = max(position, file.tell())
        file.seek(position, os.SEEK_SET)
        rest = b""

        def lines() -> Iterator[str]:
            nonlocal position, rest
            for line in file:
                rest = line
                if not line.endswith(b"\n"):
                    break
                position += len(line)
                yield line.decode()
            else:
                rest = b""
            raise _Unfinished

        rows = csv.reader(lines())
        while True:
            before = position
            try:
                row = next(rows)
                if not row:
                    continue
                if len(row) != len(heading):
                    raise ValueError(f"it has {len(row)} columns, the heading {len(heading)}")
                fields = _of_row(dict(zip(heading, row, strict=True)))
            except _Unfinished:
                if rest or position > before:
                    output.note(f"{path}: its last row is not whole, and is left for later")
                return
            except (ValueError, csv.Error) as error:
                raise CommandFailed(
                    f"{path}: the row that ends at {position:,} is no message: {error}",
                    "",
                    Exit.USAGE,
                ) from error
            yield fields, position


class _Unfinished(Exception):
    """The file ends: in the middle of a row if any of it was read."""


def _of_row(row: dict[str, str]) -> Fields:
    fields: Fields = {name: value for name, value in row.items() if value or name == "payload"}
    if "payload_base64" in fields:
        del fields["payload"]
    if "retain" in fields:
        fields["retain"] = fields["retain"] in ("1", "true", "True")
    if "payload_format" in fields:
        fields["payload_format"] = int(str(fields["payload_format"]))
    if "user_properties" in fields:
        fields["user_properties"] = json.loads(str(fields["user_properties"]))
    return fields
