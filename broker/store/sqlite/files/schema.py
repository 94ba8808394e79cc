"""The schema of the database: applies the files in `migrations/` that are new.

Forward only. Each file is one transaction together with its row in `schema_migrations`; in a new
database all files together are one. A file that was applied is never edited again: every start
compares its checksum. The database of a newer program is refused.

Most files only add tables and columns, and say how one goes back. One that rewrites a
table begins with the line `-- rewrites`: then the database is copied beside itself before, which
needs as much space again.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import sqlite3
import time
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from broker.config import DATABASE
from broker.errors import SchemaMismatch

logger = logging.getLogger(__name__)

A_LOG = f"a backup, or a copy of {DATABASE}"
APPLICATION_ID = 0x50756253
""""PubS", in the header of every database of ours."""

_FILE_NAME = re.compile(r"(\d{4})_\w+\.sql")


@dataclass(frozen=True, slots=True)
class Migration:
    version: int
    name: str
    sql: str

    @property
    def rewrites(self) -> bool:
        """Whether it changes what is there already, and not only adds to it."""
        return self.sql.startswith("-- rewrites\n")

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.sql.encode()).hexdigest()


def migrations() -> list[Migration]:
    """The files of the package `migrations`, by version."""
    found = []
    for file in resources.files("migrations").iterdir():
        if match := _FILE_NAME.fullmatch(file.name):
            found.append(Migration(int(match[1]), file.name, file.read_text(encoding="utf-8")))
    return sorted(found, key=lambda migration: migration.version)


def is_new(connection: sqlite3.Connection, path: Path) -> bool:
    """Whether the database is still empty. Changes nothing.

    Raises SchemaMismatch: the file is not a database, or it is another program's.
    """
    try:
        (application_id,) = connection.execute("PRAGMA application_id").fetchone()
        (tables,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    except sqlite3.DatabaseError as error:
        if error.sqlite_errorcode != sqlite3.SQLITE_NOTADB:
            raise
        remedy = "move it away or choose another data directory"
        if not is_in_data_dir(path):
            remedy = (
                f"choose {A_LOG}. If it is one, its beginning is damaged: `pubsub salvage` saves"
                " what can be read"
            )
        raise SchemaMismatch(f"{path} is not an SQLite database; {remedy}") from error
    if application_id == APPLICATION_ID:
        return False
    if application_id or tables:
        raise SchemaMismatch(
            f"{path} is the database of another program; choose "
            + ("another data directory" if is_in_data_dir(path) else A_LOG)
        )
    return True


def is_in_data_dir(path: Path) -> bool:
    """Or it is a file that somebody has named: no other data directory helps there."""
    return path.name == DATABASE


def migrate(connection: sqlite3.Connection, path: Path, known: list[Migration]) -> None:
    """Bring the database to the newest version in `known`. `connection` is in autocommit mode.

    Raises SchemaMismatch: see `is_new`; also for a newer database, or one made by other files.
    """
    new = is_new(connection, path)
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    newest = known[-1].version
    if version > newest:
        raise SchemaMismatch(
            f"{path} is from a newer pubsub (schema {version}, this program knows {newest});"
            " upgrade pubsub"
        )
    applied = {} if new else applied_files(connection)
    for migration in known:
        if migration.version <= version and applied.get(migration.version) != migration.sha256:
            raise SchemaMismatch(
                f"{path} was made by another {migration.name} than this program's;"
                " install the pubsub that made it"
            )
    if not new and any(m.rewrites for m in known if m.version > version):
        backup = path.with_name(f"{path.name}.schema-{version}.backup")
        logger.info(
            "%s is migrated from schema %d; a copy of it is kept as %s", path, version, backup.name
        )
        _back_up(connection, backup)
    missing = [migration for migration in known if migration.version > version]
    if new:
        _apply(connection, *missing)
        return
    for migration in missing:
        _apply(connection, migration)
        logger.info("%s: migrated to schema %d", path, migration.version)


def applied_files(connection: sqlite3.Connection) -> dict[int, str]:
    """The checksums of the files that made the database, by version."""
    return dict(connection.execute("SELECT version, sha256 FROM schema_migrations"))


def _apply(connection: sqlite3.Connection, *files: Migration) -> None:
    """In one transaction."""
    now_us = time.time_ns() // 1000
    rows = [(file.version, file.name, file.sha256, now_us) for file in files]
    try:
        connection.executescript("\n".join(["BEGIN IMMEDIATE;", *[file.sql for file in files]]))
        connection.executemany("INSERT INTO schema_migrations VALUES (?, ?, ?, ?)", rows)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {files[-1].version}")
        connection.execute("COMMIT")
    except sqlite3.Error:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _back_up(connection: sqlite3.Connection, path: Path) -> None:
    """Copy the database to `path`, in place of the copy that an interrupted migration left."""
    path.unlink(missing_ok=True)
    copy_database(connection, path)


def copy_database(connection: sqlite3.Connection, path: Path) -> None:
    """Make a consistent, fsynced copy at `path`, which must not exist, with mode 0600."""
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    target = sqlite3.connect(path, isolation_level=None)
    try:
        connection.backup(target)
    finally:
        target.close()
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Make the creation of a file in the directory survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
