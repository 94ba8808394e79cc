-- A checksum of what retention removed unread: of the block, the topic and the places. NULL: the row is of an
-- older program.
--
-- The way back, with the broker stopped, to a program that knows only schema 18:
--   ALTER TABLE removed_unread DROP COLUMN crc;
--   DELETE FROM schema_migrations WHERE version = 19;
--   PRAGMA user_version = 18;
ALTER TABLE removed_unread ADD COLUMN crc INTEGER;
