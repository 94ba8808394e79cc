"""How messages of the log are written."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Iterator

import pytest

from broker.message import Message, Offset
from cli.log.log_lines import Table, csv_lines, formatted, has_colour, json_lines, tabbed
from cli.terminal.cells import width
from cli.terminal.failure import CommandFailed

TIME_US = 1_741_948_200_000_000  # 2025-03-14T10:30:00Z
PUBLISHER = "pubsub-pub-c45b19ff0626"


@pytest.fixture(autouse=True)
def _zone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "CET-1")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def message(
    offset: int, topic: str, payload: bytes | str, publisher: str = PUBLISHER, at_us: int = TIME_US
) -> Message:
    payload = payload if isinstance(payload, bytes) else payload.encode()
    return Message(topic, payload, 1, False, publisher, at_us, offset=Offset(offset))


def table(columns: int, *messages: Message, follows: bool = False) -> list[str]:
    made = Table(columns=lambda: columns, colour=False, follows=follows)
    return made.lines(messages).decode().splitlines()


def test_topic_and_payload_show_at_80_columns_with_real_client_identifiers() -> None:
    assert table(
        80,
        message(9, "home/cellar/boiler/temperature", "Rainy day ahead, and more to come"),
        message(10, "weather", "Sunny", "pub1"),
    ) == [
        "OFFSET  TIME +0100        PUBLISHER     QOS  TOPIC             PAYLOAD",
        "     9  2025-03-14 11:30  pubsub…f0626  1    home/cel…erature  Rainy day ahead,…",
        "    10  2025-03-14 11:30  pub1          1    weather           Sunny",
    ]


def test_names_are_whole_where_there_is_room() -> None:
    lines = table(140, message(1, "home/cellar/boiler/temperature", "Rainy day ahead"))
    assert lines[1].endswith("home/cellar/boiler/temperature  Rainy day ahead")
    assert PUBLISHER in lines[1]


@pytest.mark.parametrize(
    ("columns", "heading"),
    [
        (60, ["OFFSET", "TIME", "+0100", "TOPIC", "PAYLOAD"]),
        (42, ["OFFSET", "TOPIC", "PAYLOAD"]),
        (20, ["TOPIC", "PAYLOAD"]),
    ],
)
def test_what_is_secondary_goes_where_the_terminal_is_narrow(
    columns: int, heading: list[str]
) -> None:
    lines = table(columns, message(1, "home/cellar/boiler", "Rainy day ahead, " * 9))
    assert lines[0].split() == heading
    assert "home" in lines[1]
    assert "Rainy" in lines[1]
    assert all(width(line) <= columns for line in lines)


@pytest.mark.parametrize("columns", [20, 40, 60, 80, 120])
def test_no_line_is_wider_than_the_terminal_and_each_cut_has_its_mark(columns: int) -> None:
    rows = [
        message(1, "部屋/天気/温度", "天気予報" * 30, "客" * 20),
        message(2, "a" * 200, "e\u0301" * 200),
        message(3, "a/\x1b[2J", b"\xff\x00" * 50),
    ]
    lines = table(columns, *rows)
    assert all(width(line) <= columns for line in lines)
    assert all(line.endswith("…") for line in lines[1:])
    assert all(line.isprintable() for line in lines)
    start = lines[0].index("TOPIC")
    assert {
        width(line[: line.index(name)]) for line, name in zip(lines[2:], "aa", strict=True)
    } == {start}


def test_a_table_that_goes_on_keeps_its_columns() -> None:
    made = Table(columns=lambda: 80, colour=False, follows=True)
    first = made.lines([message(999_999, "a", "x", "p")]).decode().splitlines()
    later = made.lines([message(1_000_000, "home/cellar/boiler", "x" * 99)]).decode().splitlines()
    (line,) = later
    assert first[1].index("a  ") == first[0].index("TOPIC")
    assert line.index("home") == first[0].index("TOPIC") + 1  # A digit more.
    assert len(line) == 80


def test_a_time_of_this_year_needs_no_year(monkeypatch: pytest.MonkeyPatch) -> None:
    now_us = time.time_ns() // 1000
    line = table(80, message(1, "a", "x", at_us=now_us))[1]
    assert time.strftime("%m-%d %H:", time.localtime(now_us / 1e6)) in line
    assert time.strftime("%Y-%m", time.localtime(now_us / 1e6)) not in line


def test_what_is_retained_says_so() -> None:
    row = message(1, "a", "x")
    row.retain = True
    assert "1 r" in table(80, row)[1]


def test_an_empty_page_writes_nothing_and_keeps_the_heading_for_the_first() -> None:
    made = Table(columns=lambda: 80, colour=False)
    assert made.lines([]) == b""
    assert made.lines([message(1, "a", "x")]).startswith(b"OFFSET")


def test_what_is_secondary_is_dim_in_colour() -> None:
    made = Table(columns=lambda: 80, colour=True)
    heading, line = made.lines([message(1, "weather", "Rainy")]).decode().splitlines()
    assert heading.startswith("\x1b[2mOFFSET")
    assert heading.endswith("PAYLOAD\x1b[0m")
    assert line.endswith("\x1b[0mweather  Rainy")


@pytest.mark.parametrize(
    ("term", "no_colour", "terminal", "wants"),
    [
        ("xterm", "", True, True),
        ("xterm", "1", True, False),
        ("dumb", "", True, False),
        (None, "", True, False),
        ("xterm", "", False, False),
    ],
)
def test_who_wants_colour(
    monkeypatch: pytest.MonkeyPatch, term: str | None, no_colour: str, terminal: bool, wants: bool
) -> None:
    monkeypatch.setenv("NO_COLOR", no_colour)
    monkeypatch.setattr("cli.terminal.output.to_terminal", lambda: terminal)
    if term is None:
        monkeypatch.delenv("TERM", raising=False)
    else:
        monkeypatch.setenv("TERM", term)
    assert has_colour() == wants


def test_a_pipe_gets_whole_values_with_tabs_between() -> None:
    assert tabbed([message(1, "a/b", "Rainy\tday\n")]).decode() == (
        f"1\t2025-03-14T10:30:00.000000Z\t{PUBLISHER}\t1\ta/b\tRainy\\tday\\n\n"
    )


def test_csv_is_read_again_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cli.terminal.output.to_terminal", lambda: False)
    write = csv_lines()
    first = message(1, "a", 'says "hi",\nand more')
    first.properties = b"\x26\x00\x01a\x00\x01b"
    text = (write([first]) + write([message(2, "b", b"\xff")])).decode()
    rows = [*csv.DictReader(io.StringIO(text, newline=""))]
    assert [row["offset"] for row in rows] == ["1", "2"]
    assert rows[0]["payload"] == 'says "hi",\nand more'
    assert rows[0]["user_properties"] == '[["a", "b"]]'
    assert (rows[1]["payload"], rows[1]["payload_base64"]) == ("", "/w==")


def test_json_and_formats(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cli.terminal.output.to_terminal", lambda: False)
    row = message(7, "a", "x")
    assert b'"offset":7' in json_lines()([row])
    assert formatted("%{offset} %t=%p %@Y")([row, row]) == b"7 a=x 2025\n" * 2
    with pytest.raises(CommandFailed, match="-F has no field %k"):
        formatted("%k")
