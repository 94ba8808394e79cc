"""`pubsub log get` on a database that the store wrote."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from broker.message import Message
from broker.store.sqlite.store import SqliteStore
from cli.log.one_message import show
from cli.terminal.failure import CommandFailed, Exit

TIME_US = 1_741_948_200_000_001  # 2025-03-14T10:30:00.000001Z


@pytest.fixture
async def data_dir(tmp_path: Path) -> Path:
    store = SqliteStore(tmp_path / "pubsub.db")
    await store.open()
    properties = b"\x01\x01\x03\x00\x04text\x26\x00\x01a\x00\x02\x1b["
    await store.append(
        [
            Message("weather", b"Rainy\n", 1, True, "pub1", TIME_US, None, properties),
            Message("b", b"\xff\n", 0, False, "pub1", TIME_US),
        ]
    )
    await store.close()
    return tmp_path


def test_a_pipe_gets_names_and_values(data_dir: Path, capfd: pytest.CaptureFixture[str]) -> None:
    show(data_dir, [1], json=False, raw=False)
    assert capfd.readouterr().out.splitlines() == [
        "offset\t1",
        "published\t2025-03-14T10:30:00.000001Z",
        "publisher\tpub1",
        "topic\tweather",
        "QoS\t1",
        "retain\tyes",
        "payload format\t1",
        "content type\ttext",
        "user property\ta: \\x1b[",
        "payload\tRainy\\n",
    ]


def test_a_terminal_gets_the_time_as_it_is_here(
    data_dir: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cli.terminal.output.to_terminal", lambda: True)
    show(data_dir, [2], json=False, raw=False)
    lines = capfd.readouterr().out.splitlines()
    assert lines[0] == "offset     2"
    assert "(2025-03-14T10:30:00.000001Z)" in lines[1]
    assert lines[-1] == "payload    \\xff\\n"


def test_raw_is_the_payload_and_nothing_else(
    data_dir: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    show(data_dir, [2, 1], json=False, raw=True)
    assert capfdbinary.readouterr().out == b"\xff\nRainy\n"


def test_json_has_all_of_it(data_dir: Path, capfd: pytest.CaptureFixture[str]) -> None:
    show(data_dir, [1], json=True, raw=False)
    record = json.loads(capfd.readouterr().out)
    assert record["user_properties"] == [["a", "\x1b["]]
    assert record["payload"] == "Rainy\n"


def test_what_is_not_there_is_named(data_dir: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(CommandFailed, match="offset 7, 9; the log has 1 to 2") as failed:
        show(data_dir, [7, 2, 9], json=True, raw=False)
    assert failed.value.code is Exit.NOTHING_THERE
    assert len(capfd.readouterr().out.splitlines()) == 1
