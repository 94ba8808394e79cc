"""`pubsub check`: what is damaged in a log, a line each, and a line on what was read."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from broker.errors import StoreCorrupt
from broker.plural import counted
from broker.session.cursor import listed
from broker.store.sqlite.errors import disk_failure
from broker.store.sqlite.repair.checking import Check, Problem
from cli.log import database
from cli.terminal import output
from cli.terminal.failure import CommandFailed, Exit
from cli.terminal.long_work import LongWork, speed

LISTED_MAX = 100
"""Problems that people are shown; a program gets all."""


class _Report:
    def __init__(self, *, json: bool) -> None:
        self.problems = 0
        self._json = json

    def add(self, problem: Problem) -> None:
        self.problems += 1
        if self._json:
            record: dict[str, object] = {"problem": problem.said}
            if problem.offsets:
                record |= {"first": problem.offsets.start, "last": problem.offsets.stop - 1}
            output.data(output.json_line(record))
        elif self.problems <= LISTED_MAX:
            output.progress("")
            output.text(f"{output.one_line(problem.said)}\n")


def verify(new: sqlite3.Connection, path: Path, work: LongWork) -> int:
    """Look at what was just written, and is to be `path`; the number of its messages. Raises
    StoreCorrupt."""
    looking = Check(
        new,
        listed,
        at_rest=True,
        progress=lambda what, done: work.step(
            done, looking.expected, doing=f"verifying {what} of {path}"
        ),
    )
    for problem in looking.problems():
        raise StoreCorrupt(f"{path}: {output.one_line(problem.said)}")
    return looking.messages


def check(path: Path, *, json: bool = False) -> None:
    """Raises CommandFailed (74): it is damaged, which was reported; and as `looking_after`."""
    report = _Report(json=json)
    summary: dict[str, object] = {}
    said = ""
    with LongWork(f"checking {path}", "not all of it was looked at") as work:
        try:
            with database.looking_after(path, work.watch) as log:
                looking = Check(
                    log.connection,
                    listed,
                    at_rest=log.at_rest,
                    progress=lambda what, done: work.step(
                        done, looking.expected, doing=f"checking {what} of {path}"
                    ),
                )
                for problem in looking.problems():
                    report.add(problem)
            summary = {
                "messages": looking.messages,
                "log_start": looking.log_start,
                "high_watermark": looking.high_watermark,
                "online": not log.at_rest,
                "bytes": log.bytes,
                "seconds": round(work.seconds, 3),
                "mb_per_s": round(log.bytes / 1e6 / work.seconds, 1),
            }
            said = f"{counted(looking.messages, 'message')}, {speed(log.bytes, work.seconds)}"
        except StoreCorrupt as error:
            report.add(Problem(str(error)))
        if report.problems and (failure := disk_failure(path)) is not None:
            raise failure
    if json:
        record = {"checked": str(path), "problems": report.problems, **summary}
        output.data(output.json_line(record))
    if report.problems:
        raise CommandFailed(
            f"{path} is damaged: {counted(report.problems, 'problem')}",
            "`pubsub salvage` saves what can be read",
            Exit.STORE_DAMAGED,
        )
    if not json:
        output.text(f"{path} is sound: {said}\n")
