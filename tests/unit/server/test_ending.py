"""Signals and the last resort, each in a process of its own: it is the process that ends."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from broker.server.ending import EXIT_NO_DISK, STOP_SIGNALS, Ending

BEGIN = """
import ctypes, logging, sys, threading, time
from broker.server.ending import Ending

logging.basicConfig(format="%(message)s")
hang = ctypes.CDLL(None).sleep  # As a call to a disk that does not answer, which no signal ends.
ending = Ending()
asked = threading.Event()
ending.when_asked(asked.set)
with ending.listening():
    print("listening", flush=True)
"""
TIMEOUT_S = 20


@pytest.fixture
def started() -> Iterator[list[subprocess.Popen[str]]]:
    processes: list[subprocess.Popen[str]] = []
    yield processes
    for process in processes:
        process.kill()
        process.communicate()


def start(script: str, started: list[subprocess.Popen[str]]) -> subprocess.Popen[str]:
    """Returns when it listens for signals."""
    process = subprocess.Popen(
        [sys.executable, "-c", BEGIN + script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    started.append(process)
    assert process.stdout is not None
    assert process.stdout.readline() == "listening\n"
    return process


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_the_first_signal_asks_to_stop(
    number: signal.Signals, started: list[subprocess.Popen[str]]
) -> None:
    process = start("    assert asked.wait(60)\nprint('stopped')", started)
    process.send_signal(number)
    assert process.communicate(timeout=TIMEOUT_S) == ("stopped\n", "")
    assert process.returncode == 0


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_the_second_ends_the_process_whatever_it_does(
    number: signal.Signals, started: list[subprocess.Popen[str]]
) -> None:
    process = start("    asked.wait(60)\n    print('asked', flush=True)\n    hang(60)", started)
    process.send_signal(signal.SIGTERM)
    assert process.stdout is not None
    assert process.stdout.readline() == "asked\n"
    process.send_signal(number)
    said = "told twice to stop: the broker ends at once\n"
    assert process.communicate(timeout=TIMEOUT_S) == ("", said)
    assert process.returncode == 128 + number


def test_a_process_that_hangs_is_ended_when_its_time_is_up(
    started: list[subprocess.Popen[str]],
) -> None:
    process = start("    ending.expect_end(0.1)\n    hang(60)", started)
    said = "the broker ends without its disk, which did not answer for 0.1 s\n"
    assert process.communicate(timeout=TIMEOUT_S) == ("", said)
    assert process.returncode == EXIT_NO_DISK


def test_one_that_ends_by_itself_is_left_alone() -> None:
    handlers = [signal.getsignal(number) for number in STOP_SIGNALS]
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    ending = Ending()
    with ending.listening():
        ending.expect_end(3600)
    assert [signal.getsignal(number) for number in STOP_SIGNALS] == handlers
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == mask
