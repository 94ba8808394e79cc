"""The work that messages cost the broker, counted and not timed: a guard that cannot flake.

    python -m benchmarks.work                   the counts, and how they compare with the baseline
    python -m benchmarks.work --update          make them the baseline of this Python version
    python -m benchmarks.work --instructions    machine instructions a message (perf or valgrind)

The broker runs in this process, without sockets and on a clock that stands still (`in_process.py`).
Counted per 1,000 messages published:

- *statements, commits, fsyncs*: SQL statements on all connections, transactions, and those of them
  that SQLite ends with an fsync (WAL with `synchronous = FULL`).
- *writes, bytes*: calls of `write` on all transports, and what they carried.
- *calls, C calls, objects*: Python functions of ours entered (a generator or coroutine: each time),
  C functions called by ours, and instances of our classes made by their constructor, in all
  threads. Not counted is what is not ours (asyncio, aiosqlite), since how often a loop turns is a
  matter of time.
- *receiving, delivering, kept*: bytes of memory allocated at most, above what was there before,
  while a batch is read, and while it is stored and delivered (copies show here), and what is still
  there afterwards. Measured on a MemoryStore, which has no other threads.

A count may exceed its baseline by `TOLERANCE`. Less is fine, and worth an `--update`, so that it
stays that way. Calls and memory depend on the version of Python, so each has its own baseline.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
import tracemalloc
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from types import CodeType, FrameType
from typing import Any
from unittest import mock

from benchmarks.in_process import Exchange, Wire, Workload, broker, run
from broker.log.waking import CURSOR_COMMIT_DELAY_S
from broker.store.memory import MemoryStore

ROOT = Path(__file__).parent.parent
BASELINE = Path(__file__).with_name("work_baseline.json")
UPDATE = "python -m benchmarks.work --update"
TOLERANCE = 0.05
WARM_UP_BATCHES = 3
Counts = dict[str, int]
"""Per 1,000 messages."""
Baseline = dict[str, dict[str, Counts]]
"""By version of Python, and by workload."""


WORKLOADS = (
    Workload("qos0", 0),
    Workload("qos1", 1),
    Workload("qos1-w1", 1, batch=1, batches=200),
    Workload("qos2", 2),
    Workload("fan-out-100-qos0", 0, batches=2, subscribers=100),
    Workload("fan-out-100-qos1", 1, batches=2, subscribers=100),
    Workload("backlog", 1, batches=10, away=True),
)


# What is counted


@dataclass(eq=False)
class Calls:
    """Calls made by the broker's own code, in this thread and in those that start meanwhile."""

    calls: int = 0
    c_calls: int = 0
    objects: int = 0


@contextmanager
def calls_counted() -> Iterator[Callable[[], Calls]]:
    """Yields what returns the counts so far, of all threads."""
    threads: list[Calls] = []

    def profiler() -> Callable[[FrameType, str, object], None]:
        counts = Calls()  # Of one thread, so that none is lost between two.
        threads.append(counts)
        ours: dict[int, tuple[CodeType, bool, bool]] = {}

        def profile(frame: FrameType, event: str, argument: object) -> None:
            code = frame.f_code
            known = ours.get(id(code))
            if known is None:
                module = frame.f_globals.get("__name__", "")
                known = code, module.startswith("broker."), code.co_name == "__init__"
                ours[id(code)] = known
            if not known[1]:
                return
            if event == "call":
                counts.calls += 1
                counts.objects += known[2]
            elif event == "c_call":
                counts.c_calls += 1

        return profile

    threading.setprofile(lambda *_: sys.setprofile(profiler()))
    sys.setprofile(profiler())
    try:
        yield lambda: Calls(
            sum(counts.calls for counts in threads),
            sum(counts.c_calls for counts in threads),
            sum(counts.objects for counts in threads),
        )
    finally:
        sys.setprofile(None)
        threading.setprofile(None)


class Sql:
    """The statements of all connections that are opened meanwhile."""

    def __init__(self) -> None:
        self.statements = 0
        self.commits = 0
        self.fsyncs = 0

    @contextmanager
    def counted(self) -> Iterator[None]:
        connect = sqlite3.connect

        def counting(*args: Any, **kwargs: Any) -> sqlite3.Connection:
            connection: sqlite3.Connection = connect(*args, **kwargs)
            connection.set_trace_callback(self._tracer())
            return connection

        with mock.patch("sqlite3.connect", counting):
            yield

    def _tracer(self) -> Callable[[str], None]:
        synced = True

        def trace(statement: str) -> None:
            nonlocal synced
            self.statements += 1
            if statement == "COMMIT":
                self.commits += 1
                self.fsyncs += synced
            elif statement.startswith("PRAGMA synchronous ="):
                synced = statement.endswith(("FULL", "2"))

        return trace


def count(workload: Workload) -> Counts:
    """Everything, of one workload."""
    return {**count_on_sqlite(workload), **({} if workload.away else count_memory(workload))}


def count_on_sqlite(workload: Workload) -> Counts:
    with tempfile.TemporaryDirectory(prefix="work-") as directory:
        path = Path(directory)
        if workload.away:
            run(_fill(workload, path))
            return run(_drain(workload, path))
        return run(_stream(workload, path))


async def _stream(workload: Workload, directory: Path) -> Counts:
    with counting() as now:
        async with broker(directory) as running:
            exchange = Exchange(running, workload)
            await exchange.connect()
            for _ in range(WARM_UP_BATCHES):
                await exchange.batch()
            before = now(exchange.wires)
            for _ in range(workload.batches):
                await exchange.batch()
            return per_thousand(workload, before, now(exchange.wires))


async def _fill(workload: Workload, directory: Path) -> None:
    async with broker(directory) as running:
        exchange = Exchange(running, workload)
        await exchange.connect()
        exchange.subscribers[0].leave()
        for _ in range(workload.batches):
            exchange.publish()
            await exchange.acknowledged()


async def _drain(workload: Workload, directory: Path) -> Counts:
    with counting() as now:
        async with broker(directory) as running:
            subscriber = running.peer()
            before = now([subscriber.wire])
            await subscriber.connect(b"sub0", clean=False, present=True)
            acks = await subscriber.receive(workload.qos, workload.messages)
            commits = running.commits
            subscriber.send(acks)
            running.let_pass(CURSOR_COMMIT_DELAY_S)
            await running.committed(commits + 1)
            await running.settled()
            return per_thousand(workload, before, now([subscriber.wire]))


@contextmanager
def counting() -> Iterator[Callable[[Sequence[Wire]], Counts]]:
    """Yields what returns all counts so far."""
    sql = Sql()
    with sql.counted(), calls_counted() as calls:

        def now(wires: Sequence[Wire]) -> Counts:
            of = calls()
            return {
                "statements": sql.statements,
                "commits": sql.commits,
                "fsyncs": sql.fsyncs,
                "writes": sum(wire.writes for wire in wires),
                "bytes": sum(wire.bytes for wire in wires),
                "calls": of.calls,
                "C calls": of.c_calls,
                "objects": of.objects,
            }

        yield now


def per_thousand(workload: Workload, before: Counts, after: Counts) -> Counts:
    return {name: round((after[name] - before[name]) * 1000 / workload.messages) for name in after}


def count_memory(workload: Workload) -> Counts:
    gc.collect()
    gc.disable()
    tracemalloc.start()
    try:
        with tempfile.TemporaryDirectory(prefix="work-") as directory:
            return run(_memory(workload, Path(directory)))
    finally:
        tracemalloc.stop()
        gc.enable()


async def _memory(workload: Workload, directory: Path) -> Counts:
    receiving, delivering, kept = [], [], []
    async with broker(directory, MemoryStore()) as running:
        exchange = Exchange(running, workload)
        await exchange.connect()
        for _ in range(WARM_UP_BATCHES + workload.batches):
            before, _ = tracemalloc.get_traced_memory()
            tracemalloc.reset_peak()
            exchange.publish()
            receiving.append(tracemalloc.get_traced_memory()[1] - before)
            tracemalloc.reset_peak()
            await exchange.acknowledged()
            await exchange.delivered()
            after, peak = tracemalloc.get_traced_memory()
            delivering.append(peak - before)
            kept.append(after - before)
    # The median: now and then a list or a dict grows.
    return {
        name: round(median(values[WARM_UP_BATCHES:]) * 1000 / workload.batch)
        for name, values in (("receiving", receiving), ("delivering", delivering), ("kept", kept))
    }


# The baseline


def version() -> str:
    return ".".join(platform.python_version_tuple()[:2])


def load_baseline() -> Baseline:
    baseline: Baseline = json.loads(BASELINE.read_text()) if BASELINE.exists() else {}
    return baseline


def exceeded(counts: Mapping[str, int], baseline: Mapping[str, int]) -> list[str]:
    """What is more than it was, in sentences that say what to do."""
    return [
        f"{name}: {value:,} for 1,000 messages, {allowed:,} in the baseline. If that is worth it,"
        f" `{UPDATE}` makes it the new one; say why in the commit."
        for name, value in counts.items()
        if value > (allowed := baseline.get(name, 0)) * (1 + TOLERANCE)
    ]


def table(measured: Mapping[str, Counts], baseline: Mapping[str, Counts]) -> str:
    lines = [f"work for 1,000 messages (Python {version()}), and the change against the baseline"]
    for workload, counts in measured.items():
        lines.append(workload)
        for name, value in counts.items():
            was = baseline.get(workload, {}).get(name)
            change = f"{100 * (value - was) / was:+8.2f} %" if was else ""
            lines.append(f"  {name:12} {value:12,} {change}".rstrip())
    return "\n".join(lines)


# Instructions, where a tool counts them


def instructions(workload: Workload) -> float | None:
    """Of the process, for one more message; None where nothing counts them.

    The difference of two runs, so that start and end do not count. With perf they are those of this
    CPU, with valgrind (much slower) those of the one it simulates.
    """
    few, many = workload.batches * 2, workload.batches * 8
    counted = [_instructions(workload, batches) for batches in (few, many)]
    if counted[0] is None or counted[1] is None:
        return None
    return (counted[1] - counted[0]) / (workload.batch * (many - few))


def _instructions(workload: Workload, batches: int) -> int | None:
    plain = [sys.executable, "-m", "benchmarks.work", "--plain", workload.name, str(batches)]
    with tempfile.TemporaryDirectory(prefix="work-") as directory:
        output = Path(directory) / "counted"
        for tool, command in (
            ("perf", ["perf", "stat", "-x,", "-e", "instructions:u", "-o", str(output)]),
            ("valgrind", ["valgrind", "--tool=callgrind", f"--callgrind-out-file={output}"]),
        ):
            if shutil.which(tool) is None:
                continue
            done = subprocess.run(
                [*command, *plain], env=environment(), capture_output=True, check=False
            )
            if done.returncode or not output.exists():
                continue
            for line in output.read_text().splitlines():
                if tool == "perf" and "instructions" in line and line[0].isdigit():
                    return int(line.split(",")[0])
                if tool == "valgrind" and line.startswith(("summary:", "totals:")):
                    return int(line.split()[1])
    return None


async def _plain(workload: Workload, batches: int, directory: Path) -> None:
    async with broker(directory) as running:
        exchange = Exchange(running, workload)
        await exchange.connect()
        for _ in range(batches):
            await exchange.batch()


def environment() -> dict[str, str]:
    """Of a process whose counts are to be the same each time: fixed hashes, no debugging aids."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("PYTHON") or name == "PYTHONPATH"
    }
    return {**kept, "PYTHONHASHSEED": "0"}


def count_apart(names: Sequence[str]) -> dict[str, Counts]:
    """Count these workloads in a process of their own, where nothing else is counted with them."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.work", "--json", *names],
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.PIPE,
        check=True,
    )
    measured: dict[str, Counts] = json.loads(done.stdout)
    return measured


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.work",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    workloads = {workload.name: workload for workload in WORKLOADS}
    parser.add_argument("--only", action="append", choices=workloads, metavar="NAME")
    parser.add_argument("--update", action="store_true", help="write the baseline")
    parser.add_argument(
        "--json", nargs="+", metavar="NAME", help="only the counts, of this process"
    )
    parser.add_argument("--instructions", action="store_true", help="count these, nothing else")
    parser.add_argument("--plain", nargs=2, metavar=("NAME", "BATCHES"), help="only do the work")
    options = parser.parse_args(arguments)
    names = options.only or list(workloads)
    if options.plain:
        name, batches = options.plain
        with tempfile.TemporaryDirectory(prefix="work-") as directory:
            run(_plain(workloads[name], int(batches), Path(directory)))
        return 0
    if options.json:
        print(json.dumps({name: count(workloads[name]) for name in options.json}))
        return 0
    if options.instructions:
        for name in names:
            counted = None if workloads[name].away else instructions(workloads[name])
            print(
                name, "not counted" if counted is None else f"{counted:,.0f} instructions a message"
            )
        return 0
    measured = count_apart(names)
    everything = load_baseline()
    baseline = everything.setdefault(version(), {})
    print(table(measured, baseline))
    if options.update:
        baseline.update(measured)
        BASELINE.write_text(json.dumps(everything, indent=1, sort_keys=True) + "\n")
        return 0
    complaints = [
        f"{name}: {complaint}"
        for name, counts in measured.items()
        if name in baseline
        for complaint in exceeded(counts, baseline[name])
    ]
    for complaint in complaints:
        print(complaint, file=sys.stderr)
    return int(bool(complaints))


if __name__ == "__main__":
    sys.exit(main())
