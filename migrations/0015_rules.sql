-- Rules: what users, and everybody with a role, may do with which topics, or may not.
--
-- The way back, with the broker stopped, to a program that knows only schema 14:
--   DROP TABLE rules;
--   DELETE FROM schema_migrations WHERE version = 15;
--   PRAGMA user_version = 14;
CREATE TABLE rules (
    name     TEXT NOT NULL,
    is_role  INTEGER NOT NULL,
    allow    INTEGER NOT NULL,
    access   TEXT NOT NULL,
    filter   TEXT NOT NULL,
    revision INTEGER NOT NULL,
    PRIMARY KEY (name, is_role, allow, access, filter)
) STRICT, WITHOUT ROWID;
