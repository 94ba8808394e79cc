"""Parquet, for `pubsub export` and `pubsub import`: an extra, as Arrow is larger than all the rest.

One row per message; payload and correlation data are bytes, times are timestamps in UTC with
microseconds, User Properties are pairs. A Parquet file has its table of contents at its end and
cannot go on: the file gets its name when it is whole.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from broker.message import Message, rfc3339
from cli.log.export import Target
from cli.log.properties import named
from cli.terminal.failure import CommandFailed

ROWS_AT_ONCE = 20_000
BYTES_AT_ONCE = 32 << 20
"""A group of rows has so many, or so many bytes of payload."""
PARTIAL = ".partial"


def arrow() -> tuple[ModuleType, ModuleType]:
    """pyarrow and its Parquet. Raises CommandFailed: it is not installed."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise CommandFailed(
            "Parquet needs pyarrow", "install it with: pip install 'pubsub-broker[parquet]'"
        ) from error
    return pyarrow, pyarrow.parquet


def schema(pa: Any) -> Any:
    moment = pa.timestamp("us", tz="UTC")
    return pa.schema(
        [
            ("offset", pa.int64()),
            ("published_at", moment),
            ("publisher", pa.string()),
            ("qos", pa.int8()),
            ("retain", pa.bool_()),
            ("topic", pa.string()),
            ("payload", pa.binary()),
            ("payload_format", pa.int8()),
            ("content_type", pa.string()),
            ("response_topic", pa.string()),
            ("correlation_data", pa.binary()),
            ("user_properties", pa.list_(pa.list_(pa.string()))),
            ("expires_at", moment),
        ]
    )


class ParquetTarget(Target):
    def __init__(self, path: Path, age_us: int) -> None:
        super().__init__()
        if path.exists():
            raise CommandFailed(
                f"{path} is there, and a Parquet file cannot go on",
                "give another name, or remove it",
            )
        self._pa, parquet = arrow()
        self._path = path
        self._partial = Path(f"{path}{PARTIAL}")
        self._age_us = age_us
        self._schema = schema(self._pa)
        self._rows: list[dict[str, object]] = []
        self._size = 0
        try:
            os.close(os.open(self._partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600))
            self._writer = parquet.ParquetWriter(self._partial, self._schema, compression="zstd")
        except OSError as error:
            raise CommandFailed(f"{path}: {error.strerror or error}") from error

    def put(self, messages: Sequence[Message]) -> int:
        self._rows += [self._row(message) for message in messages]
        size = sum(message.size for message in messages)
        self._size += size
        if len(self._rows) >= ROWS_AT_ONCE or self._size >= BYTES_AT_ONCE:
            self._flush()
        return size

    def finish(self) -> None:
        self._flush()
        self._writer.close()
        self._partial.replace(self._path)
        self.bytes = self._path.stat().st_size

    def close(self) -> None:
        self._writer.close()
        self._partial.unlink(missing_ok=True)

    def _flush(self) -> None:
        if self._rows:
            table = self._pa.Table.from_pylist(self._rows, schema=self._schema)
            try:
                self._writer.write_table(table)
            except OSError as error:
                raise CommandFailed(f"{self._path}: {error.strerror or error}") from error
            self._rows, self._size = [], 0

    def _row(self, message: Message) -> dict[str, object]:
        fields = named(message.properties)
        if "correlation_data_base64" in fields:
            fields["correlation_data"] = base64.b64decode(
                str(fields.pop("correlation_data_base64"))
            )
        elif "correlation_data" in fields:
            fields["correlation_data"] = str(fields["correlation_data"]).encode()
        expires_at_us = message.expires_at_us
        return {
            "offset": message.offset,
            "published_at": message.published_at_us,
            "publisher": message.publisher,
            "qos": message.qos,
            "retain": message.retain,
            "topic": message.topic,
            "payload": message.payload,
            "expires_at": None if expires_at_us is None else expires_at_us + self._age_us,
            **fields,
        }


def records(path: Path, skip: int) -> Iterator[tuple[dict[str, object], int]]:
    """The rows behind the first `skip`, with fields as in `cli/log/record.py`, and how many."""
    pa, parquet = arrow()
    number = 0
    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=1000):
                if number + batch.num_rows <= skip:
                    number += batch.num_rows
                    continue
                for row in batch.to_pylist():
                    number += 1
                    if number > skip:
                        yield _fields(row), number
    except (pa.ArrowInvalid, OSError) as error:
        raise CommandFailed(f"{path}: {error}") from error


def _fields(row: dict[str, Any]) -> dict[str, object]:
    fields = {name: value for name, value in row.items() if value is not None}
    for name in ("payload", "correlation_data"):
        value = fields.pop(name, None)
        if value is not None:
            raw = value if isinstance(value, bytes) else str(value).encode()
            fields[f"{name}_base64"] = base64.b64encode(raw).decode()
    for name in ("published_at", "expires_at"):
        if name in fields:
            fields[name] = rfc3339(round(fields[name].timestamp() * 1_000_000))
    return fields
