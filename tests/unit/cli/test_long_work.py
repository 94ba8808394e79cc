"""How far long work is, and its end by Ctrl-C."""

from __future__ import annotations

import os
import pty
import signal
import sys

import pytest

from cli import long_work
from cli.failure import CommandFailed, Exit
from cli.long_work import LongWork, speed


def test_a_signal_ends_the_work_at_its_next_step() -> None:
    seen: list[bool] = []

    def work() -> None:
        with LongWork("copying", "nothing was made") as work:
            work.step(1, 10)
            seen.append(work.interrupted())
            signal.raise_signal(signal.SIGTERM)
            seen.append(work.interrupted())
            work.step(2, 10)

    with pytest.raises(CommandFailed, match=r"^interrupted: nothing was made$") as failed:
        work()
    assert failed.value.code is Exit.FAILED
    assert seen == [False, True]


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
