"""`pubsub salvage`: what can be read of a damaged log as a new one, and what is lost."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from broker.config import DATABASE
from broker.errors import StoreCorrupt
from broker.message import Offset, rfc3339
from broker.plural import counted
from broker.session.cursor import listed
from broker.store.sqlite.errors import store_error
from broker.store.sqlite.files.file import kept_from_brokers
from broker.store.sqlite.files.new_file import new_file
from broker.store.sqlite.files.wal import WAL_SUFFIX
from broker.store.sqlite.repair.lost import Lost
from broker.store.sqlite.repair.note import read_note
from broker.store.sqlite.repair.remains import Remains
from broker.store.sqlite.repair.salvaging import Salvage, Salvaged
from cli.care.check import LISTED_MAX, verify
from cli.terminal import output
from cli.terminal.failure import CommandFailed, Exit
from cli.terminal.long_work import LongWork


def salvage(data_dir: Path, to: Path, *, json: bool = False) -> None:
    """Raises CommandFailed: there is a log at `to` already, or none that is left; StoreError."""
    path, target = data_dir / DATABASE, to / DATABASE
    if not path.exists() and not Path(f"{path}{WAL_SUFFIX}").exists():
        raise CommandFailed(f"no log at {path}", code=Exit.NOTHING_THERE)
    if target.exists() or to.absolute() == data_dir.absolute():
        raise CommandFailed(
            f"{target} is there already", "name a new directory; the damaged log stays as it is"
        )
    made = not to.exists()
    try:
        to.mkdir(mode=0o700, parents=True, exist_ok=True)
        with LongWork(f"salvaging {path}", f"{target} was not made") as work:
            salvaged = _salvage(path, target, work)
    except (OSError, sqlite3.Error) as error:
        raise store_error(error, target) from error
    finally:
        if made and to.is_dir() and not any(to.iterdir()):
            to.rmdir()
    _tell_program(target, salvaged) if json else _tell_people(target, salvaged)


def _salvage(path: Path, target: Path, work: LongWork) -> Salvaged:
    if path.exists():
        with kept_from_brokers(path) as at_rest:
            if not at_rest:
                raise CommandFailed(
                    f"a broker is running on {path.parent}/", "stop it with: pubsub broker stop"
                )
            return _salvage_at_rest(path, target, work)
    return _salvage_at_rest(path, target, work)


def _salvage_at_rest(path: Path, target: Path, work: LongWork) -> Salvaged:
    noted = read_note(path)
    with closing(Remains(path)) as remains, new_file(target) as new:
        work.watch(new.connection)
        salvage = Salvage(
            remains,
            new.connection,
            target,
            listed,
            lambda done, total: work.step(done, total, unit="pages"),
        )
        salvaged = salvage.run(noted.high_watermark if noted is not None else Offset(0))
        if not salvaged.messages and not salvaged.sessions and not remains.roots():
            raise StoreCorrupt(f"{path}: nothing of a log is left in it")
        verify(new.connection, target, work)
    return salvaged


def _tell_people(target: Path, salvaged: Salvaged) -> None:
    for lost in salvaged.lost[:LISTED_MAX]:
        output.text(f"lost: {_named(lost)}\n")
    if (more := len(salvaged.lost) - LISTED_MAX) > 0:
        output.text(f"lost: {counted(more, 'more range')} of offsets\n")
    if salvaged.unreadable_pages or salvaged.refused:
        output.text(
            f"lost: {counted(salvaged.unreadable_pages, 'page')} that cannot be read, and"
            f" {counted(salvaged.refused, 'document')} without sense (sessions, subscriptions,"
            " cursors)\n"
        )
    output.text(
        f"saved in {target}: {counted(salvaged.messages, 'message')},"
        f" {salvaged.retained:,} retained, {counted(salvaged.sessions, 'session')};"
        f" lost: {counted(_count(salvaged), 'message')}\n"
    )
    output.hint(f"start a broker on it with: pubsub broker start --data-dir {target.parent}")


def _tell_program(target: Path, salvaged: Salvaged) -> None:
    for lost in salvaged.lost:
        record: dict[str, object] = {"first": lost.offsets.start, "last": lost.offsets.stop - 1}
        for name, time_us in (("after", lost.since_us), ("before", lost.until_us)):
            if time_us is not None:
                record[name] = rfc3339(time_us)
        output.data(output.json_line({"lost": record}))
    output.data(
        output.json_line(
            {
                "salvaged": str(target),
                "messages": salvaged.messages,
                "retained": salvaged.retained,
                "sessions": salvaged.sessions,
                "lost_messages": _count(salvaged),
                "unreadable_pages": salvaged.unreadable_pages,
                "refused": salvaged.refused,
            }
        )
    )


def _count(salvaged: Salvaged) -> int:
    return sum(len(lost.offsets) for lost in salvaged.lost)


def _named(lost: Lost) -> str:
    first, last = lost.offsets.start, lost.offsets.stop - 1
    named = f"offset {first}" if first == last else f"offsets {first} to {last}"
    times = [
        f"{word} {rfc3339(time_us)}"
        for word, time_us in (("after", lost.since_us), ("before", lost.until_us))
        if time_us is not None
    ]
    if len({time.split()[1] for time in times}) < len(times):
        times = [f"at {times[0].split()[1]}"]
    return ", published ".join([named, " and ".join(times)] if times else [named])
