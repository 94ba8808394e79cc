-- Messages that were published to be in the log later, and when each of them is due: by the wall
-- clock, or in served time (`broker/log/delayed.py`). And the keys of messages that are stored once, with
-- the offset of each such message and the served time until which it is known (`broker/log/dedup.py`).
--
-- The way back, with the broker stopped, to a program that knows only schema 9 (what waits is lost):
--   DROP TABLE delayed;
--   DROP TABLE delayed_deadlines;
--   DROP TABLE dedup_keys;
--   DELETE FROM schema_migrations WHERE version = 10;
--   PRAGMA user_version = 9;
CREATE TABLE delayed (
    number     TEXT PRIMARY KEY,
    topic      TEXT NOT NULL,
    payload    BLOB NOT NULL,
    qos        INTEGER NOT NULL,
    retain     INTEGER NOT NULL,
    publisher  TEXT NOT NULL,
    properties BLOB NOT NULL,
    expiry_s   INTEGER,
    revision   INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE delayed_deadlines (
    number    TEXT PRIMARY KEY,
    due_at_us INTEGER NOT NULL,
    by_wall   INTEGER NOT NULL,
    cost      INTEGER NOT NULL,
    revision  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE dedup_keys (
    digest     TEXT PRIMARY KEY,
    offset     INTEGER NOT NULL,
    ends_at_us INTEGER NOT NULL,
    revision   INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
