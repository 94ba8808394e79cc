"""`pubsub restore`: a backup becomes the log of a data directory."""

from __future__ import annotations

from pathlib import Path

from broker.config import DATABASE
from broker.plural import counted
from broker.store.sqlite import gaps
from broker.store.sqlite.files import restoring
from broker.store.sqlite.files.new_file import new_file
from cli.care.copying import copy_log, errors_named, require_space
from cli.log.database import looking_after, stopped
from cli.terminal import output
from cli.terminal.failure import CommandFailed, Exit
from cli.terminal.long_work import LongWork, speed


def restore(file: Path, data_dir: Path, *, replace: bool = False, json: bool = False) -> None:
    """Raises CommandFailed: a log is there, and not `replace`, or a broker is running; StoreError:
    the backup is damaged, or cannot be copied. Then what was there is as it was."""
    target = data_dir / DATABASE
    if not file.is_file():
        raise CommandFailed(f"no backup at {file}", code=Exit.NOTHING_THERE)
    if target.exists() and file.samefile(target):
        raise CommandFailed(f"{file} is the log of {data_dir}/ itself", code=Exit.USAGE)
    if restoring.is_there(target) and not replace:
        raise CommandFailed(
            f"there is a log in {data_dir}/ already", "--replace sets it aside, and keeps it"
        )
    aside: list[Path] = []
    with (
        LongWork(f"copying {file}", f"{data_dir}/ is as it was") as work,
        looking_after(file, work.watch, older=True) as log,
        stopped(data_dir),
        errors_named(file, target),
    ):
        require_space(log, data_dir)
        newest = restoring.newest_offset(target)
        with new_file(target, lambda: aside.append(restoring.set_aside(target))) as new:
            messages = copy_log(log, new, target, work, as_backup=True)
            if newest:
                gaps.leave(new.connection, newest)
        restoring.forget_note(target, aside[0])
    if newest is None:
        output.note("which offsets the log that was there had given out cannot be read")
    kept = aside[0] if restoring.is_there(aside[0]) else None
    if json:
        record = {
            "restored": str(target),
            "messages": messages,
            "set_aside": None if kept is None else str(kept),
            "seconds": round(work.seconds, 3),
        }
        output.data(output.json_line(record))
        return
    size = target.stat().st_size
    output.text(
        f"{target}: {counted(messages, 'message')}, verified, {speed(size, work.seconds)}\n"
    )
    if kept is not None:
        output.text(f"the log that was there is kept as {kept}*\n")
