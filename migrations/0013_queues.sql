-- Queues: groups that were made by a command, messages that a group tries again, and dead letters with what
-- is still to be told of them. `held` says which messages retention must leave in the log.
--
-- The way back, with the broker stopped, to a program that knows only schema 12 (what was to be tried again
-- is not delivered any more):
--   DROP VIEW dead;
--   DROP VIEW held;
--   DROP TABLE dead_notices;
--   DROP TABLE dead_letters;
--   DROP TABLE retries;
--   DROP TABLE group_settings;
--   DELETE FROM schema_migrations WHERE version = 13;
--   PRAGMA user_version = 12;
CREATE TABLE group_settings (
    client_id        TEXT PRIMARY KEY REFERENCES sessions (client_id) ON DELETE CASCADE,
    attempts_max     INTEGER NOT NULL,
    backoff_first_ms INTEGER NOT NULL,
    backoff_max_ms   INTEGER NOT NULL,
    lease_ms         INTEGER NOT NULL,
    created_at_us    INTEGER NOT NULL,
    revision         INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE retries (
    client_id TEXT NOT NULL REFERENCES sessions (client_id) ON DELETE CASCADE,
    due_at_us INTEGER NOT NULL,
    offset    INTEGER NOT NULL,
    attempts  INTEGER NOT NULL,
    holder    TEXT NOT NULL,
    revision  INTEGER NOT NULL,
    PRIMARY KEY (client_id, due_at_us, offset)
) STRICT, WITHOUT ROWID;

CREATE INDEX retries_offset ON retries (offset);

CREATE TABLE dead_letters (
    group_name TEXT NOT NULL,
    offset     INTEGER NOT NULL,
    attempts   INTEGER NOT NULL,
    reason     TEXT NOT NULL,
    worker     TEXT NOT NULL,
    died_at_us INTEGER NOT NULL,
    revision   INTEGER NOT NULL,
    PRIMARY KEY (group_name, offset)
) STRICT, WITHOUT ROWID;

CREATE INDEX dead_letters_offset ON dead_letters (offset);

CREATE TABLE dead_notices (
    group_name TEXT NOT NULL,
    offset     INTEGER NOT NULL,
    revision   INTEGER NOT NULL,
    PRIMARY KEY (group_name, offset)
) STRICT, WITHOUT ROWID;

CREATE VIEW held AS
SELECT offset FROM retained
UNION ALL
SELECT offset FROM dead_letters
UNION ALL
SELECT offset FROM retries;

-- For people: stable, documented columns.
CREATE VIEW dead AS
SELECT d.group_name                                                                   AS group_name,
       d.offset                                                                       AS offset,
       strftime('%Y-%m-%dT%H:%M:%SZ',
           (d.died_at_us + ifnull((SELECT wall_us - aged_us FROM log_time), 0)) / 1000000, 'unixepoch')
                                                                                      AS died_at,
       d.attempts                                                                     AS attempts,
       d.reason                                                                       AS reason,
       d.worker                                                                       AS worker,
       h.topic                                                                        AS topic,
       h.published_at                                                                 AS published_at,
       h.publisher                                                                    AS publisher,
       h.payload                                                                      AS payload
FROM dead_letters d
LEFT JOIN history h ON h.offset = d.offset;
