-- The copy of a log that several brokers share (docs/cluster.md). Of no use to a broker alone.
--
-- The way back, with the broker stopped, to a program that knows only schema 15:
--   DROP TABLE copies;
--   DROP TABLE writers;
--   DROP TABLE owners;
--   DELETE FROM schema_migrations WHERE version = 16;
--   PRAGMA user_version = 15;
CREATE TABLE owners (
    client_id TEXT PRIMARY KEY REFERENCES sessions (client_id) ON DELETE CASCADE,
    broker    TEXT NOT NULL,
    epoch     INTEGER NOT NULL,
    revision  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- The brokers that have appended to it: the number and the place of the newest append of each.
CREATE TABLE writers (
    broker   TEXT PRIMARY KEY,
    number   INTEGER NOT NULL,
    position INTEGER NOT NULL,
    closed   INTEGER NOT NULL,
    revision INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Which log this is a copy of, and how far it was copied.
CREATE TABLE copies (
    name     TEXT PRIMARY KEY,
    log_id   TEXT NOT NULL,
    position INTEGER NOT NULL,
    revision INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
