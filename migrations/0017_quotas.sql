-- What users and roles may use. NULL: no limit of its own.
--
-- The way back, with the broker stopped, to a program that knows only schema 16:
--   DROP TABLE quotas;
--   DELETE FROM schema_migrations WHERE version = 17;
--   PRAGMA user_version = 16;
CREATE TABLE quotas (
    kind                TEXT NOT NULL,
    name                TEXT NOT NULL,
    connections         INTEGER,
    sessions            INTEGER,
    groups              INTEGER,
    subscriptions       INTEGER,
    packet_bytes        INTEGER,
    publish_per_s       INTEGER,
    publish_bytes_per_s INTEGER,
    revision            INTEGER NOT NULL,
    PRIMARY KEY (kind, name)
) STRICT, WITHOUT ROWID;
