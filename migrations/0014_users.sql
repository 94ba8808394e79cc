-- Users, and whose each session is.
--
-- The way back, with the broker stopped, to a program that knows only schema 13 (which lets everybody in):
--   DROP TABLE users;
--   ALTER TABLE sessions DROP COLUMN user;
--   DELETE FROM schema_migrations WHERE version = 14;
--   PRAGMA user_version = 13;
CREATE TABLE users (
    name          TEXT PRIMARY KEY,
    password      TEXT NOT NULL,
    scram         TEXT NOT NULL,
    roles         TEXT NOT NULL,
    created_at_us INTEGER NOT NULL,
    changed_at_us INTEGER NOT NULL,
    revision      INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Empty: made while there were no users, or by an operator.
ALTER TABLE sessions ADD COLUMN user TEXT NOT NULL DEFAULT '';
