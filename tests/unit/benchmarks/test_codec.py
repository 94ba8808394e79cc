"""Each row does the work that it is named for, and all together take no longer than is said."""

from __future__ import annotations

import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.codec import SECONDS, Row, main, rows

ROOT = Path(__file__).parents[3]
ROWS = list(rows())


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_a_row_does_the_work_for_all_its_messages_each_time(row: Row) -> None:
    """Also when the caches and the connection are no longer new."""
    for _ in range(3):
        assert row.call() == row.messages


def test_all_rows_are_measured_in_less_than_half_a_minute() -> None:
    assert len({row.name for row in ROWS}) == len(ROWS)
    assert len(ROWS) * SECONDS < 30


def test_the_chosen_rows_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--only", "PUBACK", "--seconds", "0.001"]) == 0
    heading, *lines = capsys.readouterr().out.splitlines()
    assert heading.split() == ["µs", "each"]
    assert [line[:-9].rstrip() for line in lines] == [
        row.name for row in ROWS if "PUBACK" in row.name
    ]
    assert all(0 < float(line[-9:]) < 1e6 for line in lines)


def test_work_left_undone_is_no_measurement() -> None:
    with pytest.raises(AssertionError, match="lazy: 1 of 2 messages"):
        Row("lazy", 2, lambda: 1).fastest_us(0.001)


def test_a_name_that_no_row_has_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["--only", "nothing"])
    assert "no row has 'nothing' in its name" in capsys.readouterr().err


def comments(path: Path) -> Iterator[str]:
    """The docstrings, other texts, and blocks of comments in a module."""
    block = ""
    for token in tokenize.generate_tokens(io.StringIO(path.read_text(encoding="utf-8")).readline):
        if token.type == tokenize.COMMENT:
            block += token.string
        elif token.type != tokenize.NL:
            yield block
            block = ""
            if token.type == tokenize.STRING:
                yield token.string


@pytest.mark.parametrize("package", ["broker", "cli", "benchmarks"])
def test_microseconds_come_with_the_command_that_measures_them(package: str) -> None:
    """And what is in *italics* beside the command is in the name of a row."""
    for path in sorted((ROOT / package).rglob("*.py")):
        for comment in comments(path):
            if "µs" in comment and comment.startswith(('"""', "#")):
                assert "benchmarks." in comment or "make bench" in comment, (path, comment)
            if package == "broker" and "benchmarks.codec" in comment:
                for name in re.findall(r"\*([^*\n]+)\*", comment):
                    assert any(name in row.name for row in ROWS), (path, name)
