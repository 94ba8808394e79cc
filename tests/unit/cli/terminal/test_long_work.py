"""How far long work is, and its end by Ctrl-C."""

from __future__ import annotations

import os
import pty
import signal
import sqlite3
import sys
import threading
from contextlib import closing
from threading import Timer

import pytest

from cli.terminal import long_work, output
from cli.terminal.failure import CommandFailed, Exit
from cli.terminal.long_work import LongWork, speed


def test_a_signal_ends_the_work_at_its_next_step() -> None:
    steps: list[int] = []

    def work() -> None:
        with LongWork("copying", "nothing was made") as work:
            for done in range(3):
                work.step(done, 10)
                steps.append(done)
                signal.raise_signal(signal.SIGTERM)

    with pytest.raises(CommandFailed, match=r"^interrupted: nothing was made$") as failed:
        work()
    assert failed.value.code is Exit.FAILED
    assert steps == [0]


ENDLESS = "WITH RECURSIVE n (x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT max(x) FROM n"


def test_a_signal_ends_a_statement_that_runs() -> None:
    """No Python runs in this thread then, so no handler of a signal either."""

    def work() -> None:
        with closing(sqlite3.connect(":memory:")) as connection, LongWork("a", "b") as work:
            work.watch(connection)
            Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
            connection.execute(ENDLESS)

    with pytest.raises(CommandFailed, match=r"^interrupted: b$"):
        work()


def test_a_connection_that_is_closed_is_in_nobodys_way() -> None:
    def work() -> None:
        with LongWork("a", "b") as work:
            sqlite3.connect(":memory:").close()
            work.watch(connection := sqlite3.connect(":memory:"))
            connection.close()
            signal.raise_signal(signal.SIGINT)
            threading.Event().wait(0.1)
            work.step(1, 2)

    with pytest.raises(CommandFailed):
        work()


def test_a_long_statement_is_seen_to_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(long_work, "SILENT_S", 0.0)
    shown: list[str] = []
    said = threading.Event()

    def progress(line: str) -> None:
        shown.append(line)
        said.set()

    monkeypatch.setattr(output, "progress", progress)
    with LongWork("checking", ""):
        assert said.wait(10)
    assert shown[0] == "checking: 0 s"


def test_an_error_stays_what_it_is() -> None:
    with pytest.raises(ZeroDivisionError), LongWork("copying", "nothing was made"):
        raise ZeroDivisionError


def test_a_terminal_sees_how_far_it_is_and_then_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ours, theirs = pty.openpty()
    with open(theirs, "w") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        monkeypatch.setattr(long_work, "SHOWN_EVERY_S", 0.0)
        monkeypatch.setenv("COLUMNS", "40")
        with LongWork("checking /a/long/path/to/pubsub.db", "") as work:
            work.step(1000, 2_000_000)
        seen = ""
        while not seen.endswith("\r\x1b[K"):
            seen += os.read(ours, 1000).decode()
    os.close(ours)
    assert "checking /a/long/path/to/pubsub.db: 1,0\r" in seen


def test_how_long_it_still_takes_is_by_what_is_being_done(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Not by what was done before, which may have been quicker."""
    monkeypatch.setattr(long_work, "SHOWN_EVERY_S", 0.0)
    monkeypatch.setattr(long_work, "SILENT_S", 1000.0)
    monkeypatch.setenv("COLUMNS", "100")
    shown: list[str] = []
    monkeypatch.setattr(output, "progress", shown.append)
    now = 1000.0
    monkeypatch.setattr("time.perf_counter", lambda: now)
    with LongWork("copying", "") as work:
        for seconds, done, doing in ((0, 0, ""), (10, 50, ""), (10, 0, "verifying")):
            now += seconds
            work.step(done, 100, doing=doing)
        now += 30
        work.step(60, 100, doing="verifying", unit="pages")
    assert shown == [
        "copying: 0 of 100 messages",
        "copying: 50 of 100 messages, about 10 s left",
        "verifying: 0 of 100 messages",
        "verifying: 60 of 100 pages, about 20 s left",
        "",
    ]


def test_a_pipe_sees_nothing(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(long_work, "SHOWN_EVERY_S", 0.0)
    with LongWork("checking", "") as work:
        work.step(1, 2)
    assert capfd.readouterr() == ("", "")


def test_speed_is_of_bytes_read() -> None:
    assert speed(275_193_856, 11.04) == "275.2 MB in 11.0 s (25 MB/s)"
    assert speed(0, 0.0) == "0.0 MB in 0.0 s (0 MB/s)"
