"""Parquet: what comes back is what was exported."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from broker.message import Message, Offset
from cli.log.parquet import ParquetTarget, arrow, records
from cli.log.properties import named
from cli.log.republish import payload_of
from cli.terminal.failure import CommandFailed


def test_without_arrow_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(CommandFailed, match=r"pip install 'pubsub-broker\[parquet\]'"):
        arrow()


def test_messages_come_back_bit_for_bit(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow", reason="an extra")
    path = tmp_path / "a.parquet"
    properties = b"\x01\x01\x03\x00\x04text\x09\x00\x01\xff\x26\x00\x01a\x00\x01b"
    messages = [
        Message("t", b"\xff\x00", 2, True, "p", 1_741_948_200_000_001, 1_741_948_300_000_000),
        Message("t", b"", 0, False, "p", 2, None, properties),
    ]
    messages[0].offset, messages[1].offset = Offset(7), Offset(9)
    with ParquetTarget(path, 0) as target:
        target.write(messages)
        target.finish()
    assert not (tmp_path / "a.parquet.partial").exists()
    (first, _), (second, end) = records(path, 0)
    assert payload_of(first) == b"\xff\x00"
    assert first["published_at"] == "2025-03-14T10:30:00.000001Z"
    assert first["expires_at"] == "2025-03-14T10:31:40.000000Z"
    assert (first["offset"], first["qos"], first["retain"]) == (7, 2, True)
    assert payload_of(second) == b""
    assert second.items() >= named(properties).items()
    assert [number for _, number in records(path, 1)] == [end] == [2]
    with pytest.raises(CommandFailed, match="cannot go on"):
        ParquetTarget(path, 0)


def test_what_was_not_finished_is_not_there(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow", reason="an extra")
    with ParquetTarget(tmp_path / "a.parquet", 0) as target:
        target.write([Message("t", b"x", 1, False, "p", 1)])
    assert [*tmp_path.iterdir()] == []


def test_a_file_of_something_else_is_told(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow", reason="an extra")
    path = tmp_path / "a.parquet"
    path.write_bytes(b"my notes")
    with pytest.raises(CommandFailed, match=r"a\.parquet"):
        [*records(path, 0)]
