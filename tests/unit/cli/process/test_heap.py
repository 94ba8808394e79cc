"""When memory is given back, and that it is."""

from __future__ import annotations

import subprocess
import sys

import pytest

from cli.process.heap import GROWTH_BYTES, LONGEST_WAIT_S, SHORTEST_WAIT_S, WORTH_BYTES, Heap
from tests.support.broker_process import ROOT

MIB = 1 << 20


class Process:
    """One that holds `used` and `free` bytes, and can give back the latter."""

    def __init__(self) -> None:
        self.used = 50 * MIB
        self.free = 0
        self.trims = 0
        self.heap = Heap(self.trim, lambda: self.used + self.free)

    def trim(self) -> None:
        self.trims += 1
        self.free = 0


@pytest.fixture
def process() -> Process:
    return Process()


def test_a_process_that_has_not_grown_is_left_alone(process: Process) -> None:
    process.free = GROWTH_BYTES - 1
    for _ in range(3):
        process.heap.give_back()
    assert (process.trims, process.heap.wait_s) == (0, SHORTEST_WAIT_S)


def test_what_a_flood_left_is_given_back(process: Process) -> None:
    process.free = 200 * MIB
    process.heap.give_back()
    assert (process.free, process.heap.wait_s) == (0, SHORTEST_WAIT_S)


def test_while_the_memory_is_needed_it_is_tried_ever_more_seldom(process: Process) -> None:
    process.used = 1000 * MIB
    waits = []
    for _ in range(6):
        process.heap.give_back()
        waits.append(process.heap.wait_s)
    assert waits == [20, 40, 80, LONGEST_WAIT_S, LONGEST_WAIT_S, LONGEST_WAIT_S]
    process.free = WORTH_BYTES
    process.heap.give_back()
    assert process.heap.wait_s == SHORTEST_WAIT_S
    process.heap.give_back()
    process.used = 50 * MIB
    process.heap.give_back()
    assert process.heap.wait_s == SHORTEST_WAIT_S


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc gives memory back when asked")
def test_freed_memory_between_what_is_in_use_is_given_back() -> None:
    """It would be kept for good."""
    script = """
import time
from cli.process import heap
heap.SHORTEST_WAIT_S = 0.05
with heap.giving_back():
    blocks = [bytes(2000) for _ in range(50_000)]
    kept = blocks[::100]
    grown = heap.resident_bytes()
    del blocks
    for _ in range(400):
        time.sleep(0.05)
        if heap.resident_bytes() < grown - (60 << 20):
            break
    else:
        raise SystemExit(f"{grown >> 20} MiB, and now {heap.resident_bytes() >> 20}")
"""
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, timeout=60, check=True)


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc can be told what to keep")
def test_what_each_batch_needs_again_is_kept() -> None:
    """Else the system clears its pages each time."""
    script = """
import resource
from cli.process import heap

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

with heap.giving_back():
    for _ in range(3):
        batch = [bytes(100_000) for _ in range(40)]
        before = faults()
    del batch
    for _ in range(50):
        batch = [bytes(100_000) for _ in range(40)]
        del batch
    if faults() - before > 500:
        raise SystemExit(f"{faults() - before} pages were taken from the system again")
"""
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, timeout=60, check=True)
