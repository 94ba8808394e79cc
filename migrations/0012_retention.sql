-- What retention removed from the middle of the log, so that it is not taken for damage; and for how long
-- messages and names have been there.
--
-- The way back, with the broker stopped, to a program that knows only schema 11 (it has to have a gap for each
-- offset that was removed, and takes the rest for damaged):
--   DROP TABLE removed;
--   DROP TABLE removed_unread;
--   DROP TABLE publisher_blocks;
--   DROP TABLE log_marks;
--   ALTER TABLE log DROP COLUMN keeps_all;
--   ALTER TABLE log DROP COLUMN missing_before;
--   ALTER TABLE log DROP COLUMN publishers_from;
--   DELETE FROM schema_migrations WHERE version = 12;
--   PRAGMA user_version = 11;

-- Offsets at or above the log start whose messages were removed: for each block of 1024 a bit for each offset,
-- the lowest bit of the first byte for the first, how many bits are set, and the newest such offset.
CREATE TABLE removed (
    block    INTEGER PRIMARY KEY,
    messages INTEGER NOT NULL,
    newest   INTEGER NOT NULL,
    offsets  BLOB NOT NULL
) STRICT;

-- Those among them that a subscriber had not acknowledged: by topic, their places in the block, two bytes
-- each, big-endian. Whoever reads over them is told.
CREATE TABLE removed_unread (
    block    INTEGER NOT NULL,
    topic_id INTEGER NOT NULL,
    offsets  BLOB NOT NULL,
    PRIMARY KEY (block, topic_id)
) STRICT, WITHOUT ROWID;

-- Which blocks hold messages of a publisher, written when a block is full, so that the names of publishers go
-- that have no message left.
CREATE TABLE publisher_blocks (
    block        INTEGER NOT NULL,
    publisher_id INTEGER NOT NULL,
    PRIMARY KEY (block, publisher_id)
) STRICT, WITHOUT ROWID;

-- When served time (broker/log/log_time.py) was served_us, the messages up to this offset were there: so old
-- they are at least, whatever the wall clock said.
CREATE TABLE log_marks (
    offset    INTEGER PRIMARY KEY,
    served_us INTEGER NOT NULL,
    revision  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Whether the log was there before there was retention: then all is kept that no rule is set for.
ALTER TABLE log ADD COLUMN keeps_all INTEGER NOT NULL DEFAULT 0;
UPDATE log SET keeps_all = EXISTS (SELECT 1 FROM broker_runs);
-- Everything below was removed by a trim, whoever had read it. At or above it, removed_unread says.
ALTER TABLE log ADD COLUMN missing_before INTEGER NOT NULL DEFAULT 1;
UPDATE log SET missing_before = start;
-- From this block on publisher_blocks has the publishers of every full block.
ALTER TABLE log ADD COLUMN publishers_from INTEGER NOT NULL DEFAULT 0;
UPDATE log SET publishers_from = (SELECT CASE WHEN max(offset) IS NULL THEN 0 ELSE 1 + (max(offset) >> 10) END FROM messages);
