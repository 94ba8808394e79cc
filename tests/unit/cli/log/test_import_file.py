"""Imports: what is published, and how they go on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from broker.message import Message, Offset
from cli.log import import_file as module
from cli.log.import_file import import_file
from cli.log.log_lines import csv_lines, json_lines
from cli.log.republish import Republisher, payload_of
from cli.net.address import Address
from cli.terminal.failure import CommandFailed, Exit

PAYLOADS = [b"plain", b"\xff\x00\xfe", b'says "hi",\r\nand\nmore', "天気".encode(), b"", b"\x00\r"]


class Broker:
    """Takes messages; breaks off after `breaks_after`, with `in_flight` of them unacknowledged."""

    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []
        self.retain: list[bool | None] = []
        self.breaks_after = 10**9
        self.in_flight = 0

    def publisher(self, *_: object) -> Broker:
        self.done, self._before = 0, len(self.sent)
        return self

    def open(self) -> None: ...

    def close(self) -> None: ...

    def send(self, fields: dict[str, Any], *, retain: bool | None = None) -> None:
        if len(self.sent) >= self.breaks_after:
            raise CommandFailed("connection lost", code=Exit.UNREACHABLE)
        self.sent.append(fields)
        self.retain.append(retain)
        self.done = max(self.done, len(self.sent) - self._before - self.in_flight)

    def drain(self) -> None:
        self.done = len(self.sent) - self._before

    def wait(self) -> None:
        self.done = len(self.sent) - self._before


@pytest.fixture
def broker(monkeypatch: pytest.MonkeyPatch) -> Broker:
    broker = Broker()
    monkeypatch.setattr(module, "Republisher", broker.publisher)
    return broker


def written(path: Path, payloads: list[bytes] = PAYLOADS) -> Path:
    properties = b"\x01\x01\x09\x00\x01\xff\x26\x00\x01a\x00\x01b"
    messages = [
        Message("t", p, 1, n == 1, "p", 1_000_000, 3_000_000, properties, Offset(n))
        for n, p in enumerate(payloads, 1)
    ]
    write = json_lines() if path.suffix == ".jsonl" else csv_lines(to_file=True)
    path.write_bytes(write(messages))
    return path


def run(path: Path, **how: bool) -> None:
    import_file(path, path.suffix[1:], Address(), **how)


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv"])
def test_what_is_published_is_what_was_exported(broker: Broker, tmp_path: Path, name: str) -> None:
    run(written(tmp_path / name))
    assert [payload_of(fields) for fields in broker.sent] == PAYLOADS
    first = broker.sent[0]
    assert first["user_properties"] == [["a", "b"]]
    assert (first["payload_format"], first["correlation_data_base64"]) == (1, "/w==")
    assert (first["retain"], broker.sent[1].get("retain", False)) == (True, False)
    assert first["expires_at"] == "1970-01-01T00:00:03.000000Z"
    assert set(broker.retain) == {None}


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv"])
def test_the_same_again_goes_on_where_it_was(broker: Broker, tmp_path: Path, name: str) -> None:
    path = written(tmp_path / name)
    broker.breaks_after, broker.in_flight = 3, 1
    with pytest.raises(CommandFailed):
        run(path)
    again = Broker()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "Republisher", again.publisher)
        run(path)
        assert [payload_of(fields) for fields in again.sent] == PAYLOADS[2:]
        run(path)
        assert len(again.sent) == len(PAYLOADS) - 2
        with path.open("ab") as file:
            file.write(
                written(tmp_path / f"more{path.suffix}", [b"new"]).read_bytes().splitlines(True)[-1]
            )
        run(path)
        assert [payload_of(fields) for fields in again.sent[4:]] == [b"new"]
        run(path, again=True)
        assert len(again.sent) == 5 + len(PAYLOADS) + 1


def test_ctrl_c_waits_for_what_is_on_its_way(broker: Broker, tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl")
    broker.in_flight = 2

    def interrupted() -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(broker, "wait", interrupted)
        with pytest.raises(CommandFailed, match="interrupted: the same command again goes on"):
            run(path)
    run(path)
    assert [payload_of(fields) for fields in broker.sent] == PAYLOADS


def test_another_file_of_the_same_name_is_imported_whole(broker: Broker, tmp_path: Path) -> None:
    run(written(tmp_path / "a.jsonl"))
    run(written(tmp_path / "a.jsonl", [b"other", b"messages"]))
    assert [payload_of(fields) for fields in broker.sent[-2:]] == [b"other", b"messages"]


def test_another_broker_gets_it_whole(broker: Broker, tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl", [b"x"])
    run(path)
    import_file(path, "jsonl", Address(port=1), as_json=True)
    assert len(broker.sent) == 2


def test_what_is_retained_may_stay(broker: Broker, tmp_path: Path) -> None:
    run(written(tmp_path / "a.jsonl"), no_retain=True)
    assert set(broker.retain) == {False}


def test_what_the_broker_says_of_itself_is_left_out(
    broker: Broker, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"topic":"$SYS/x","payload":"1"}\n{"topic":"a","payload":"1"}\n')
    run(path, as_json=True)
    assert [fields["topic"] for fields in broker.sent] == ["a"]
    shown = capfd.readouterr()
    assert json.loads(shown.out)["left_out"] == 1
    assert "1 left out" in shown.err


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.jsonl", "nonsense\n", "ends at 9 is no JSON"),
        ("a.jsonl", "[1]\n", "is no message"),
        ("a.jsonl", '{"payload":"x"}\n', "has no topic"),
        ("a.csv", "a,b\n1,2\n", "no column topic"),
        ("a.csv", "topic,payload\na\n", "ends at 16 is no message: it has 1 columns"),
        ("a.csv", "topic,payload\na,b,c\n", "it has 3 columns"),
        ("a.csv", "topic,payload_format\na,x\n", "is no message"),
        ("a.csv", "topic,user_properties\na,x\n", "is no message"),
        ("a.csv", b"topic,payload\na,\xff\n", "is no message"),
        ("a.csv", b"\xff,topic\xff\n", "no column topic"),
    ],
)
def test_what_is_no_message_is_told(
    broker: Broker, tmp_path: Path, name: str, content: str | bytes, says: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(CommandFailed, match=says) as failed:
        run(path)
    assert failed.value.code is Exit.USAGE
    assert broker.sent == []


def test_a_line_that_is_not_whole_yet_is_left_for_later(broker: Broker, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"topic":"a","payload":"1"}\n{"topic":"b","pay')
    run(path)
    assert [fields["topic"] for fields in broker.sent] == ["a"]
    path.write_text('{"topic":"a","payload":"1"}\n{"topic":"b","payload":"2"}\n')
    run(path)
    assert [fields["topic"] for fields in broker.sent] == ["a", "b"]


@pytest.mark.parametrize("content", ["a,1\n", "a,1\n\n", 'a,1\nb,"x\ny"\n', "a,1\r\nb,2\r\n"])
def test_a_row_that_was_cut_anywhere_is_left_for_later(
    broker: Broker, tmp_path: Path, content: str, capfd: pytest.CaptureFixture[str]
) -> None:
    whole = f"topic,payload\n{content}".encode()
    path = tmp_path / "a.csv"
    path.write_bytes(whole)
    run(path)
    expected, broker.sent = broker.sent, []
    for size in range(len(b"topic,payload\n"), len(whole)):
        path.write_bytes(whole[:size])
        run(path, again=True)
        assert broker.sent == expected[: len(broker.sent)], size
        cut = whole[:size].endswith(b"\n") or "left for later" in capfd.readouterr().err
        assert cut or not whole[:size].strip().endswith(b"\n"), size
        path.write_bytes(whole)
        run(path)
        assert broker.sent == expected, size
        broker.sent = []


@pytest.mark.parametrize(
    "fields",
    [
        {"payload": 5},
        {"payload": {"a": 1}},
        {"payload": "\ud800"},
        {"payload_base64": "$"},
        {"user_properties": 5},
        {"user_properties": [5]},
        {"user_properties": [[1, 2]]},
        {"content_type": 5},
        {"content_type": "x" * 70_000},
        {"payload_format": 7},
        {"payload_format": []},
        {"correlation_data_base64": "$"},
        {"qos": "x"},
        {"qos": 3},
        {"expires_at": "soon", "published_at": "2026-01-01T00:00:00Z"},
        {"expires_at": "2026-01-01T00:00:00Z"},
    ],
)
def test_a_field_that_is_not_as_it_should_be_is_told(
    tmp_path: Path, fields: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Republisher, "open", lambda _: None)
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"topic": "a"} | fields) + "\n")
    with pytest.raises(CommandFailed, match="is no message") as failed:
        run(path)
    assert failed.value.code is Exit.USAGE


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(CommandFailed, match="no file") as failed:
        run(tmp_path / "a.jsonl")
    assert failed.value.code is Exit.USAGE
