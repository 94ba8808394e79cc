"""What a payload may do to a terminal: nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading

import pytest

from cli.terminal import output
from cli.terminal.output import escaped, harmless, one_line, payload_fields
from tests.support.broker_process import ROOT


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (b"Rainy day ahead!", "Rainy day ahead!"),
        ("Grüße 雨".encode(), "Grüße 雨"),
        (b"\x1b[2J", "\\x1b[2J"),
        ("\x9b31m".encode(), "\\x9b31m"),
        ("\u202egnp.exe".encode(), "\\u202egnp.exe"),
        (b"a\tb\r\nc\0", "a\\tb\\r\\nc\\x00"),
        (b"\xff\xfe", "\\xff\\xfe"),
        (b"\\x1b", "\\\\x1b"),
    ],
)
def test_a_line_of_text_says_exactly_what_the_bytes_are(value: bytes, shown: str) -> None:
    assert escaped(value) == shown
    assert escaped(value).isprintable()


def test_lines_and_backslashes_stay_on_a_terminal_but_nothing_acts_on_it() -> None:
    assert harmless(b"C:\\dir\n\tnext\x1b]0;title\x07") == "C:\\dir\n\tnext\\x1b]0;title\\x07"


def test_a_payload_that_is_not_text_is_base64() -> None:
    assert payload_fields("grün".encode()) == {"payload": "grün"}
    assert payload_fields(b"\xff\x00") == {"payload_base64": "/wA="}


def test_what_is_escaped_already_stays_so_on_one_line() -> None:
    assert one_line("'a\\x1b'\n\x1b") == "'a\\x1b'\\n\\x1b"


def test_an_error_that_nobody_reads_does_not_change_the_exit_code() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    script = (
        "import sys; from cli.terminal import output;"
        " output.error('x'); output.note('y'); sys.exit(69)"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, stderr=writer, timeout=20)
    os.close(writer)
    assert done.returncode == 69


def test_a_long_wait_is_told_while_it_lasts_and_a_short_one_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: list[str] = []
    came = threading.Event()

    def hint(sentence: str) -> None:
        told.append(sentence)
        came.set()

    monkeypatch.setattr(output, "hint", hint)
    with output.waiting("too short to be told"):
        pass
    monkeypatch.setattr(output, "SILENT_S", 0.0)
    with output.waiting("waiting for the disk"):
        assert came.wait(10)
    assert told == ["waiting for the disk"]


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan")])
def test_what_is_no_number_of_json_is_a_text(value: float) -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    record = {"a": value, "b": [value, {"c": value}], "d": 1.5}
    read = json.loads(output.json_line(record), parse_constant=refuse)
    word = json.dumps(value)
    assert read == {"a": word, "b": [word, {"c": word}], "d": 1.5}


def test_a_name_that_is_no_utf_8_is_json_all_the_same() -> None:
    record = {"exported": b"a\xff.jsonl".decode("utf-8", "surrogateescape")}
    assert json.loads(output.json_line(record)) == record
