"""`pubsub log` on databases that the store wrote: which messages, and in which order."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest

from broker.errors import SchemaMismatch, StoreCorrupt
from broker.message import Message
from broker.store.sqlite.store import SqliteStore
from cli.log.history import LOOK_BACK_MESSAGES_MAX, Options
from cli.log.log_lines import Table
from cli.log.show_log import show
from cli.terminal.failure import CommandFailed, Exit

TIME_US = 1_741_948_200_000_000  # 2025-03-14T10:30:00Z


def message(topic: str, payload: bytes, publisher: str = "pub1", time_us: int = TIME_US) -> Message:
    return Message(topic, payload, 1, False, publisher, time_us)


async def write(data_dir: Path, messages: list[Message]) -> None:
    store = SqliteStore(data_dir / "pubsub.db")
    await store.open()
    await store.append(messages)
    await store.close()


def options(data_dir: Path, *filters: str, **changes: object) -> Options:
    return Options(**{"data_dir": data_dir, "filters": filters, "last": None} | changes)  # type: ignore[arg-type]


def shown(capfd: pytest.CaptureFixture[str], wanted: Options) -> list[str]:
    show(wanted)
    return capfd.readouterr().out.splitlines()


def payloads(capfd: pytest.CaptureFixture[str], wanted: Options) -> list[str]:
    return [line.split("\t")[-1] for line in shown(capfd, wanted)]


async def test_a_pipe_gets_one_line_of_columns_per_message(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    await write(tmp_path, [message("weather", b"Rainy\tday\n\x1b[2J", time_us=TIME_US + 1)])
    assert shown(capfd, options(tmp_path)) == [
        "1\t2025-03-14T10:30:00.000001Z\tpub1\t1\tweather\tRainy\\tday\\n\\x1b[2J"
    ]


async def test_json_has_the_payload_as_it_is(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    await write(tmp_path, [message("a", b"\x1b\n"), message("a", b"\xff")])
    first, second = (json.loads(line) for line in shown(capfd, options(tmp_path, json=True)))
    assert first == {
        "offset": 1,
        "published_at": "2025-03-14T10:30:00.000000Z",
        "publisher": "pub1",
        "qos": 1,
        "retain": False,
        "topic": "a",
        "payload": "\x1b\n",
    }
    assert second["payload_base64"] == "/w=="


async def test_each_choice_narrows_and_the_last_are_counted_after_it(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    await write(
        tmp_path,
        [
            message(
                ("home/a", "home/b", "other")[number % 3],
                b"%d" % number,
                ("pub1", "pub2")[number % 2],
                TIME_US + number * 1_000_000,
            )
            for number in range(3000)
        ],
    )

    def show_payloads(*filters: str, **changes: object) -> list[str]:
        return payloads(capfd, options(tmp_path, *filters, **changes))

    assert show_payloads() == [str(number) for number in range(3000)]
    assert show_payloads("home/#", last=3) == ["2995", "2997", "2998"]
    assert show_payloads("home/a", "other", last=2) == ["2997", "2999"]
    assert show_payloads(publisher="pub1", last=2) == ["2996", "2998"]
    assert show_payloads(grep="^1[45]$") == ["14", "15"]
    assert show_payloads("home/a", grep="^3$", last=5) == ["3"]
    assert show_payloads(start="2999") == ["2998", "2999"]
    assert show_payloads(start="2:4") == ["1", "2", "3"]
    assert show_payloads(start="-2", until="latest") == ["2998", "2999"]
    assert show_payloads(start="@2025-03-14T10:30:02Z", until="@1741948205") == ["2", "3", "4"]
    assert show_payloads("nobody") == []
    assert shown(capfd, options(tmp_path, "home/+", count=True)) == ["2000"]


async def test_an_empty_log_shows_nothing(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    await write(tmp_path, [])
    assert shown(capfd, options(tmp_path, last=20)) == []
    assert shown(capfd, options(tmp_path, count=True)) == ["0"]
    assert capfd.readouterr().err == ""


async def test_an_empty_log_on_a_terminal_says_so_and_how_to_publish(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cli.terminal.output.to_terminal", lambda: True)
    await write(tmp_path, [])
    show(options(tmp_path, last=20))
    said = "the log is empty; publish with: pubsub pub TOPIC MESSAGE\n"
    assert capfd.readouterr() == ("", said)
    show(options(tmp_path, count=True))
    assert capfd.readouterr() == ("0\n", "")
    await write(tmp_path, [message("a", b"b")])
    show(options(tmp_path, "b"))
    said = "no such messages in the log; which topics there are: pubsub log topics\n"
    assert capfd.readouterr() == ("", said)


def test_no_log_says_how_to_get_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PUBSUB_URL", "mqtt://127.0.0.1:1")  # Where no broker is either.
    with pytest.raises(CommandFailed, match=r"no log at .*; start it with") as raised:
        show(options(tmp_path))
    assert raised.value.code is Exit.NOTHING_THERE


@pytest.mark.parametrize("grep", ["(", "[a"])
async def test_a_bad_regular_expression_is_a_usage_error(tmp_path: Path, grep: str) -> None:
    await write(tmp_path, [])
    with pytest.raises(CommandFailed, match="--grep") as raised:
        show(options(tmp_path, grep=grep))
    assert raised.value.code is Exit.USAGE


async def test_a_newer_database_is_refused(tmp_path: Path) -> None:
    await write(tmp_path, [])
    connection = sqlite3.connect(tmp_path / "pubsub.db")
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(SchemaMismatch, match="newer pubsub"):
        show(options(tmp_path))


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "pubsub.db").write_text("this is not a database" * 100)
    with pytest.raises(SchemaMismatch, match="not an SQLite database"):
        show(options(tmp_path))


async def test_a_flipped_bit_is_reported_and_not_shown(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    found = [message("a", b"a payload that is easy to find"), message("a", b"the next")]
    await write(tmp_path, found)
    path = tmp_path / "pubsub.db"
    path.write_bytes(path.read_bytes().replace(b"easy to find", b"easy to fine"))
    with pytest.raises(StoreCorrupt, match="cannot be read: 1-1"):
        show(options(tmp_path))
    shown = capfd.readouterr().out
    assert "the next" in shown
    assert "easy to" not in shown


async def test_a_topic_with_control_characters_is_found_and_shown_escaped(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """An older program stored it."""
    await write(tmp_path, [message("a/\x1b[2J", b"x", "p\x85"), message("b", b"y")])
    (line,) = shown(capfd, options(tmp_path, "a/\x1b[2J"))
    assert line.split("\t")[2:] == ["p\\x85", "1", "a/\\x1b[2J", "x"]
    assert Table(columns=lambda: 80, colour=False).lines([message("a/\x1b[2J", b"x")]).isascii()


async def test_a_range_of_times_has_what_was_published_then(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The clock was an hour ahead for ten messages, and a minute behind for another ten."""
    ahead = range(3600, 3610)
    seconds = [*range(3000), *ahead, *range(3000, 3300), *range(3240, 3250), *range(3300, 4000)]
    await write(
        tmp_path,
        [message("a", b"%d" % s, time_us=TIME_US + s * 1_000_000) for s in seconds],
    )
    wanted = [s for s in seconds if 3100 <= s < 3500]
    start, until = f"@{1_741_948_200 + 3100}", f"@{1_741_948_200 + 3500}"
    for changes in ({"start": start, "until": until}, {"start": f"{start}:{until[1:]}"}):
        assert payloads(capfd, options(tmp_path, **changes)) == [str(s) for s in wanted]
    assert payloads(capfd, options(tmp_path, start=start, until=until, last=5)) == [
        str(s) for s in wanted[-5:]
    ]
    assert shown(capfd, options(tmp_path, start=start, until=until, count=True)) == ["410"]
    assert payloads(capfd, options(tmp_path, start=start)) == [str(s) for s in seconds if s >= 3100]


async def test_the_last_of_those_that_are_rare_are_found_far_back(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    count = LOOK_BACK_MESSAGES_MAX * 2
    rare = {7, 8, 30_000}
    await write(
        tmp_path,
        [message("a", b"rare" if n in rare else b"x", "ab"[n in rare]) for n in range(count)],
    )
    for changes in ({"grep": "rare"}, {"publisher": "b"}):
        lines = shown(capfd, options(tmp_path, last=2, **changes))
        assert [int(line.split("\t")[0]) for line in lines] == [9, 30_001]
    assert shown(capfd, options(tmp_path, last=2, publisher="nobody")) == []


async def test_counting_takes_the_figures_of_whole_blocks(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    await write(tmp_path, [message("a", b"") for _ in range(5000)])
    for start, until in ((1, 5000), (1, 1024), (1000, 3000), (1024, 2047), (4990, 5000), (7, 7)):
        wanted = options(tmp_path, start=str(start), until=str(until), count=True)
        assert shown(capfd, wanted) == [str(until - start + 1)]
    with sqlite3.connect(tmp_path / "pubsub.db") as connection:
        connection.execute("DELETE FROM blocks WHERE block IN (0, 2)")
    connection.close()
    assert shown(capfd, options(tmp_path, start="5", count=True)) == ["4996"]


async def test_what_begins_with_a_dollar_is_counted_where_no_filter_is_given(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    await write(tmp_path, [message("$SYS/broker/connection/a/state", b"1"), message("a", b"x")])
    assert shown(capfd, options(tmp_path, count=True)) == ["2"]
    assert shown(capfd, options(tmp_path, "#", count=True)) == ["1"]
