"""Exports: what is in the file, and how they go on."""

from __future__ import annotations

import csv
import json
import stat
from pathlib import Path

import pytest

from broker.config import DATABASE
from broker.message import Message, Offset
from broker.store.sqlite.store import SqliteStore
from cli.log.export import export, format_of
from cli.log.history import Options
from cli.terminal.failure import CommandFailed, Exit

TIME_US = 1_741_948_200_000_000
PAYLOADS = [b"plain", b"\xff\x00\xfe", b'says "hi",\r\nand\nmore', "天気".encode(), b"", b"\x00\r"]


async def append(directory: Path, payloads: list[bytes], publisher: str = "p") -> None:
    store = SqliteStore(directory / "pubsub.db")
    await store.open()
    properties = b"\x09\x00\x01\xff\x26\x00\x01a\x00\x01b"
    await store.append(
        [
            Message(f"t/{n % 2}", p, 1, False, publisher, TIME_US, None, properties)
            for n, p in enumerate(payloads)
        ]
    )
    await store.close()


@pytest.fixture
async def data_dir(tmp_path: Path) -> Path:
    await append(tmp_path, PAYLOADS)
    return tmp_path


def run(data_dir: Path, path: Path, *filters: str, **changes: object) -> None:
    options = Options(
        **{"data_dir": data_dir, "filters": filters, "last": None} | changes  # type: ignore[arg-type]
    )
    export(options, path, format_of(path, None), as_json=False)


def offsets(path: Path) -> list[int]:
    if path.suffix == ".jsonl":
        return [json.loads(line)["offset"] for line in path.read_text().splitlines()]
    with path.open(newline="") as file:
        return [int(row["offset"]) for row in csv.DictReader(file)]


@pytest.mark.parametrize(
    ("name", "given", "format"),
    [
        ("a.jsonl", None, "jsonl"),
        ("a.NDJSON", None, "jsonl"),
        ("a.csv", None, "csv"),
        ("a.parquet", None, "parquet"),
        ("a", "csv", "csv"),
        ("-", None, "jsonl"),
    ],
)
def test_the_name_of_the_file_says_the_format(name: str, given: str | None, format: str) -> None:
    assert format_of(Path(name), given) == format


@pytest.mark.parametrize(("name", "given"), [("a", None), ("a.txt", None), ("a.csv", "xml")])
def test_who_does_not_say_is_asked(name: str, given: str | None) -> None:
    with pytest.raises(CommandFailed, match="which format") as failed:
        format_of(Path(name), given)
    assert failed.value.code is Exit.USAGE


@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
async def test_an_export_goes_on_behind_its_last_message(data_dir: Path, suffix: str) -> None:
    path = data_dir / f"all{suffix}"
    run(data_dir, path)
    whole = path.read_bytes()
    assert offsets(path) == [1, 2, 3, 4, 5, 6]
    run(data_dir, path)
    assert path.read_bytes() == whole
    await append(data_dir, [b"new"])
    run(data_dir, path)
    assert offsets(path) == [1, 2, 3, 4, 5, 6, 7]
    assert path.read_bytes().startswith(whole)


@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
async def test_what_is_in_the_file_stays_though_the_log_has_it_no_more(
    data_dir: Path, suffix: str
) -> None:
    path = data_dir / f"all{suffix}"
    run(data_dir, path)
    whole = path.read_bytes()
    store = SqliteStore(data_dir / DATABASE)
    await store.open()
    await store.trim(Offset(5))
    await store.close()
    run(data_dir, path)
    assert path.read_bytes() == whole
    await append(data_dir, [b"new"])
    run(data_dir, path)
    assert offsets(path) == [1, 2, 3, 4, 5, 6, 7]


@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
@pytest.mark.parametrize("count", [len(PAYLOADS), 3, 20])
async def test_a_file_of_another_log_is_left_alone(
    data_dir: Path, suffix: str, count: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Also where that is shorter or longer than this one."""
    path = data_dir / f"all{suffix}"
    run(data_dir, path)
    whole = path.read_bytes()
    other = tmp_path_factory.mktemp("other")
    await append(other, [b"x"] * count, publisher="another")
    with pytest.raises(CommandFailed, match="another log") as failed:
        run(other, path)
    assert "another name" in str(failed.value)
    assert failed.value.code is Exit.USAGE
    assert path.read_bytes() == whole


@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
async def test_it_is_said_where_it_cannot_be_told(
    data_dir: Path, suffix: str, capfd: pytest.CaptureFixture[str]
) -> None:
    path = data_dir / f"all{suffix}"
    run(data_dir, path)
    assert "cannot be told" not in capfd.readouterr().err
    store = SqliteStore(data_dir / DATABASE)
    await store.open()
    await store.trim(Offset(7))
    await store.close()
    run(data_dir, path)
    assert "cannot be told" in capfd.readouterr().err
    assert len(offsets(path)) == 6


@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
def test_an_interrupted_export_goes_on_wherever_it_was_cut(data_dir: Path, suffix: str) -> None:
    path = data_dir / f"all{suffix}"
    run(data_dir, path)
    whole = path.read_bytes()
    for size in range(0, len(whole), 7):
        path.write_bytes(whole[:size])
        run(data_dir, path)
        assert path.read_bytes() == whole, size


@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
def test_what_is_not_whole_is_removed_also_where_nothing_follows(
    data_dir: Path, suffix: str
) -> None:
    path = data_dir / f"all{suffix}"
    run(data_dir, path, until="5")
    whole = path.read_bytes()
    run(data_dir, path)
    path.write_bytes(path.read_bytes()[:-3])
    run(data_dir, path, until="5")
    assert path.read_bytes() == whole


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.jsonl", b"my notes\n"), ("a.jsonl", b'{"x":1}\n'), ("a.csv", b"a,b\n1,2\n")],
)
def test_a_file_of_something_else_is_left_alone(data_dir: Path, name: str, content: bytes) -> None:
    path = data_dir / name
    path.write_bytes(content)
    with pytest.raises(CommandFailed, match="is no export of this format"):
        run(data_dir, path)
    assert path.read_bytes() == content


def test_filters_and_places_choose(data_dir: Path) -> None:
    path = data_dir / "some.jsonl"
    run(data_dir, path, "t/1", start="3")
    assert offsets(path) == [4, 6]


def test_standard_output_is_a_file_too(data_dir: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run(data_dir, Path("-"))
    shown = capfd.readouterr()
    assert [json.loads(line)["offset"] for line in shown.out.splitlines()] == [1, 2, 3, 4, 5, 6]
    assert shown.err == ""


def test_what_was_done_is_told(data_dir: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run(data_dir, data_dir / "all.jsonl")
    assert "6 messages (offsets 1 to 6)" in capfd.readouterr().err


def test_a_file_that_cannot_be_written_is_told(data_dir: Path) -> None:
    with pytest.raises(CommandFailed, match="No such file or directory"):
        run(data_dir, data_dir / "none" / "all.jsonl")


@pytest.mark.parametrize("suffix", ["jsonl", "csv"])
def test_it_is_for_its_owner_alone(data_dir: Path, suffix: str) -> None:
    path = data_dir / f"all.{suffix}"
    run(data_dir, path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
