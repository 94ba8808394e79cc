"""Remains: the pages that are left of a log, in its database and in its write-ahead logs.

They are only read, and without SQLite. `current` has what SQLite would use: the pages of the
database, under those of the write-ahead log up to its last whole commit. Behind that there is more:
the frames after the first that does not fit, those of an earlier filling, those of a write-ahead
log that `--accept-loss` has set aside, and the pages of the database that newer ones hide. Frames
behind the last commit of their filling do not count: nobody was told that they are stored.
"""

from __future__ import annotations

import os
import struct
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

from broker.store.sqlite.files.wal import PAGE_SIZE, WAL_SUFFIX, Frame, read_frames
from broker.store.sqlite.repair.pages import RESERVED_MAX, SIZES, Layout, Pages
from broker.store.sqlite.repair.recovery import SET_ASIDE

_VERSION_AT = 60
"""Where the header of a database has `user_version`."""


class Remains:
    def __init__(self, path: Path) -> None:
        """Of the database at `path`, which may be missing or empty. Raises OSError."""
        self._files = ExitStack()
        try:
            self._open(path)
        except BaseException:
            self._files.close()
            raise

    def close(self) -> None:
        self._files.close()

    def _open(self, path: Path) -> None:
        database = self._descriptor(path)
        wal = Path(f"{path}{WAL_SUFFIX}")
        self._layout = _layout(database, wal)
        size = self._layout.size
        in_file = os.fstat(database).st_size // size if database is not None else 0
        newer: dict[int, int] = {}
        behind: list[list[Frame]] = []
        if wal.exists():
            newer, behind = _sort(wal)
        self._hidden = [number for number in newer if number <= in_file]
        self._below = Pages(
            -1 if database is None else database,
            self._layout,
            lambda number: (number - 1) * size if 1 <= number <= in_file else None,
        )
        self.current = self._over(wal, newer, self._below) if newer else self._below
        """What SQLite would use."""
        self._last = max([in_file, *newer])
        self._behind = [(self._frames(wal, frames), frames) for frames in behind]
        for aside in sorted(path.parent.glob(f"{wal.name}{SET_ASIDE}*")):
            _, behind = _sort(aside, all_behind=True)
            self._behind += [(self._frames(aside, frames), frames) for frames in behind]
        self.count = self._last + len(self._hidden) + sum(len(f) for _, f in self._behind)
        """How many pages there are to look at."""

    @property
    def version(self) -> int:
        """Of the schema, as the header has it; 0 where that cannot be read."""
        header = self.current.page(1)
        return 0 if header is None else int(struct.unpack_from(">I", header, _VERSION_AT)[0])

    def images(self) -> Iterator[tuple[Pages, bytes | None]]:
        """Each page, the newest and surest first, with the pages that it belongs to. None: the disk
        cannot read it."""
        for number in range(1, self._last + 1):
            yield self.current, self.current.page(number)
        for pages, frames in self._behind:
            for frame in frames:
                yield pages, pages.at(frame.position)
        for number in self._hidden:
            yield self._below, self._below.page(number)

    def roots(self) -> dict[str, int]:
        """Where the trees of tables begin, by name, as far as that can be read."""
        found = {}
        for row in self.current.tree(1):
            match row.values:
                case ["table", str(name), _, int(root), *_]:
                    found[name] = root
        return found

    def _descriptor(self, path: Path) -> int | None:
        try:
            descriptor = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            return None
        self._files.callback(os.close, descriptor)
        return descriptor

    def _frames(self, wal: Path, frames: list[Frame]) -> Pages:
        return self._over(wal, {frame.page: frame.position for frame in frames}, self.current)

    def _over(self, wal: Path, positions: dict[int, int], below: Pages) -> Pages:
        descriptor = self._descriptor(wal)
        assert descriptor is not None, "its frames were read"
        return Pages(descriptor, self._layout, positions.get, below)


def _layout(database: int | None, wal: Path) -> Layout:
    header = b""
    with suppress(OSError):
        header = os.pread(database, 100, 0) if database is not None else b""
    if len(header) == 100:
        (size,) = struct.unpack_from(">H", header, 16)
        size = 1 << 16 if size == 1 else size
        if size in SIZES:
            return Layout(size, header[20] if header[20] <= RESERVED_MAX else 0)
    if wal.exists():
        with wal.open("rb") as file, suppress(OSError):
            return Layout(read_frames(file)[1])
    return Layout(PAGE_SIZE)


def _sort(wal: Path, *, all_behind: bool = False) -> tuple[dict[int, int], list[list[Frame]]]:
    """Positions of the pages that SQLite would use; and the other frames, by filling, each up to
    its last commit. `all_behind`: SQLite would use none."""
    used: dict[int, int] = {}
    uncommitted: list[Frame] = []
    fillings: defaultdict[bytes, list[Frame]] = defaultdict(list)
    # Where the disk cannot read it, the log ends.
    with wal.open("rb") as file, suppress(OSError):
        for frame in read_frames(file)[2]:
            if frame.fits and not all_behind:
                uncommitted.append(frame)
                if frame.ends_commit:
                    used |= {frame.page: frame.position for frame in uncommitted}
                    uncommitted.clear()
            else:
                if frame.of_log:  # It is the end of what these begin.
                    fillings[frame.salts] += uncommitted
                    uncommitted.clear()
                fillings[frame.salts].append(frame)
    behind = [_up_to_commit(frames) for frames in fillings.values()]
    return used, [frames for frames in behind if frames]


def _up_to_commit(frames: list[Frame]) -> list[Frame]:
    last = max((i for i, frame in enumerate(frames) if frame.ends_commit), default=-1)
    return frames[: last + 1]
