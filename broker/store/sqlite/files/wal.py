"""SQLite's write-ahead log as it lies on the disk, read without SQLite: how much of it is whole.

SQLite uses the frames before the first that does not fit, and says nothing of those behind it: a
damaged log looks to it like a short one. Here the two are told apart.

The formats are those of https://www.sqlite.org/fileformat2.html#walformat and, for the index in
shared memory (`-shm`), https://www.sqlite.org/walformat.html. The checksums are
made only at a start after an unclean stop.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

WAL_SUFFIX = "-wal"
INDEX_SUFFIX = "-shm"
"""What SQLite adds to the name of the database."""

SALTS_AT = 16
"""Where the salts are in a write-ahead log."""
PAGE_SIZE = 4096
"""SQLite's, where the header cannot say it."""

_MAGIC = 0x377F0682
"""The first four bytes; one more where the summed words are big-endian."""
_VERSION = 3_007_000
_HEADER = struct.Struct(">4I8s2I")
"""Magic, version, page size, number of checkpoints, salts, checksum of these."""
_FRAME = struct.Struct(">2I8s2I")
"""Page number, pages of the database if this frame ends a commit, salts, checksum up to here."""
_INDEX = struct.Struct("=16xI12x8s2I")
"""Of the index: frames up to the last commit, salts, checksum of these."""
_IN_DATABASE = 96
"""Where the index says how many frames a checkpoint has copied."""


@dataclass(frozen=True, slots=True)
class Wal:
    """What one write-ahead log holds; without a frame where there is none."""

    salts: bytes = b""
    """Of its header, new whenever the log starts over; empty where the header is damaged."""
    frames: int = 0
    """Frames with these salts, used or not."""
    committed: int = 0
    """Frames that SQLite uses: up to the last commit before the first frame that does not fit."""
    commits_behind: int = 0
    """Commits that end behind the first frame that does not fit."""

    @property
    def unused(self) -> int:
        return self.frames - self.committed


@dataclass(frozen=True, slots=True)
class Frame:
    """One page in a write-ahead log."""

    page: int
    """Its number."""
    ends_commit: bool
    salts: bytes
    of_log: bool
    """Whether it has the salts of its log; where their header is damaged, those of its first frame.
    The others are left from an earlier filling."""
    fits: bool
    """Whether it and all before it are whole, so that SQLite uses it if a commit follows."""
    position: int
    """Where in the file the page begins."""


@dataclass(frozen=True, slots=True)
class WalIndex:
    """What SQLite knew of its write-ahead log when the process was killed."""

    salts: bytes
    committed: int
    """Frames up to the last commit."""
    in_database: int
    """How many of them a checkpoint has copied into the database."""


def read_wal(path: Path) -> Wal:
    """Raises OSError. No file, or one too short for a header, is a log without frames."""
    try:
        with path.open("rb") as file:
            salts, _, frames = read_frames(file)
            ours = committed = commits_behind = 0
            fits = bool(salts)
            for frame in frames:
                before, fits = fits, frame.fits
                if frame.of_log:
                    ours += 1
                    if fits and frame.ends_commit:
                        committed = ours
                    commits_behind += frame.ends_commit and not before
            return Wal(salts, ours, committed, commits_behind)
    except FileNotFoundError:
        return Wal()


def read_frames(file: BinaryIO) -> tuple[bytes, int, Iterator[Frame]]:
    """The salts of the header, empty where it is damaged; the size of a page; and the frames that
    are there to their end, in their order. Raises OSError."""
    header = file.read(_HEADER.size)
    if len(header) < _HEADER.size:
        return b"", PAGE_SIZE, iter(())
    magic, version, page_size, _, salts, *expected = _HEADER.unpack(header)
    order = ">" if magic & 1 else "<"
    sums = _checksum(header[:24], order, [0, 0])
    if magic | 1 == _MAGIC | 1 and version == _VERSION and sums == expected:
        return salts, page_size, _frames(file, page_size, salts, order, sums)
    return b"", PAGE_SIZE, _frames(file, PAGE_SIZE, b"", order, None)


def _frames(
    file: BinaryIO, page_size: int, salts: bytes, order: str, sums: list[int] | None
) -> Iterator[Frame]:
    """`sums`: the checksum up to the first frame; None: none fits."""
    size = _FRAME.size + page_size
    position = _HEADER.size
    while len(frame := file.read(size)) == size:
        page, ends_commit, frame_salts, *expected = _FRAME.unpack_from(frame)
        salts = salts or frame_salts
        if sums is not None and frame_salts == salts:
            sums = _checksum(frame[:8] + frame[_FRAME.size :], order, sums)
        if frame_salts != salts or page == 0 or sums != expected:
            sums = None
        yield Frame(
            page,
            ends_commit > 0,
            frame_salts,
            frame_salts == salts,
            sums is not None,
            position + _FRAME.size,
        )
        position += size


def read_index(path: Path) -> WalIndex | None:
    """None: there is none, or it is not whole. Raises OSError."""
    try:
        content = path.read_bytes()[: _IN_DATABASE + 4]
    except FileNotFoundError:
        return None
    if len(content) < _IN_DATABASE + 4:
        return None
    (in_database,) = struct.unpack_from("=I", content, _IN_DATABASE)
    for copy in (content[:48], content[48:96]):  # A kill may have come while one was written.
        committed, salts, *expected = _INDEX.unpack(copy)
        if any(salts) and _checksum(copy[:40], "=", [0, 0]) == expected:
            return WalIndex(salts, committed, in_database)
    return None


def _checksum(content: bytes, order: str, sums: list[int]) -> list[int]:
    """Go on from `sums` over the 32-bit words of `content`, of which there are an even number."""
    words = iter(struct.unpack(f"{order}{len(content) // 4}I", content))
    first, second = sums
    for even, odd in zip(words, words, strict=True):
        first = (first + even + second) & 0xFFFF_FFFF
        second = (second + odd + first) & 0xFFFF_FFFF
    return [first, second]
