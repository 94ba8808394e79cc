-- On how many topics users and roles may have a retained message. NULL: no limit of its own. And of users who
-- have such a limit: which of their messages were to be retained, by a digest of the topic. It is looked up
-- whether they still are.
--
-- The way back, with the broker stopped, to a program that knows only schema 19:
--   ALTER TABLE quotas DROP COLUMN retained;
--   DROP TABLE retained_by;
--   DELETE FROM schema_migrations WHERE version = 20;
--   PRAGMA user_version = 19;
ALTER TABLE quotas ADD COLUMN retained INTEGER;

CREATE TABLE retained_by (
    user     TEXT NOT NULL,
    digest   TEXT NOT NULL,
    offset   INTEGER NOT NULL,
    revision INTEGER NOT NULL,
    PRIMARY KEY (user, digest)
) STRICT, WITHOUT ROWID;
