-- Figures by which a reader notices that a row is missing. They are written once, when a block of 1024
-- offsets is full, and describe its messages from the log start on: `trim` subtracts what it removes.
-- NULL, or no row of `blocks`: the block is the newest and still open, or an older program wrote it.
--
-- The checksum of a message has its offset in it from here on: `crc` is then above 4294967295. Rows
-- that are there already keep theirs, so nothing is rewritten and no copy of the database is needed.
--
-- The way back, with the broker stopped, to a program that knows only schema 3 (it takes as long as
-- writing the messages of schema 4 anew does):
--   UPDATE messages SET crc = ((crc & 4294967295) | (offset % 4294967291))
--       - ((crc & 4294967295) & (offset % 4294967291)) WHERE crc > 4294967295;
--   DROP TABLE blocks;
--   ALTER TABLE topic_blocks DROP COLUMN messages;
--   ALTER TABLE topic_blocks DROP COLUMN bytes;
--   ALTER TABLE topic_blocks DROP COLUMN newest_at_us;
--   ALTER TABLE topic_blocks DROP COLUMN checksums;
--   ALTER TABLE log DROP COLUMN accounted_from;
--   DELETE FROM schema_migrations WHERE version = 4;
--   PRAGMA user_version = 3;
ALTER TABLE topic_blocks ADD COLUMN messages INTEGER;     -- how many
ALTER TABLE topic_blocks ADD COLUMN bytes INTEGER;        -- of payload and properties
ALTER TABLE topic_blocks ADD COLUMN newest_at_us INTEGER; -- the latest published_at_us
ALTER TABLE topic_blocks ADD COLUMN checksums INTEGER;    -- the sum of crc

-- The same over all topics of a block, and the sum of their identifiers: a lost row of `topic_blocks`,
-- or one of another topic, no longer adds up.
CREATE TABLE blocks (
    block        INTEGER PRIMARY KEY,
    topic_ids    INTEGER NOT NULL,
    messages     INTEGER NOT NULL,
    bytes        INTEGER NOT NULL,
    newest_at_us INTEGER NOT NULL,
    checksums    INTEGER NOT NULL
) STRICT;

-- From this offset on every offset is a message or lies in a row of `gaps`.
ALTER TABLE log ADD COLUMN accounted_from INTEGER NOT NULL DEFAULT 1;
UPDATE log SET accounted_from = 1 + max(
    start - 1, (SELECT ifnull(max(seq), 0) FROM sqlite_sequence WHERE name = 'messages')
);
