"""`pubsub backup`: a copy of the log, taken beside a running broker or at rest."""

from __future__ import annotations

import os
from pathlib import Path

from broker.config import DATABASE
from broker.plural import counted
from broker.store.sqlite.files.new_file import new_file
from cli.care.copying import copy_log, errors_named, require_space
from cli.log.database import looking_after
from cli.terminal import output
from cli.terminal.failure import CommandFailed, Exit
from cli.terminal.long_work import LongWork, speed


def backup(data_dir: Path, file: Path, *, json: bool = False) -> None:
    """Raises CommandFailed: `file` is there, or cannot be; StoreError."""
    source = data_dir / DATABASE
    if file.is_dir():
        raise CommandFailed(f"{file} is a directory", "name a file in it", Exit.USAGE)
    if os.path.lexists(file):
        raise CommandFailed(f"{file} is there already", "name another file, or remove it")
    if not file.absolute().parent.is_dir():
        raise CommandFailed(f"there is no directory {file.absolute().parent}/")
    with (
        LongWork(f"copying {source}", f"{file} was not made") as work,
        looking_after(source, work.watch, older=True) as log,
        errors_named(source, file),
    ):
        require_space(log, file.absolute().parent)
        with new_file(file) as new:
            messages = copy_log(log, new, file, work, as_backup=True)
    size = file.stat().st_size
    if json:
        record = {
            "backup": str(file),
            "messages": messages,
            "online": not log.at_rest,
            "bytes": size,
            "seconds": round(work.seconds, 3),
        }
        output.data(output.json_line(record))
    else:
        output.text(
            f"{file}: {counted(messages, 'message')}, verified, {speed(size, work.seconds)}\n"
        )
