-- The log's own time (see broker/log/log_time.py): two clocks, as they are when the wall clock has
-- wall_us. Deadlines in `sessions` and `wills` are served_us from here on, and messages.expires_at_us
-- is aged_us. Both begin at the last sign of life, so what is stored stays as it is; but a deadline
-- that has passed by then, or lies further ahead than its interval, was made by a wrong wall clock:
-- that interval begins anew.
--
-- The way back, with the broker stopped, to a program that knows only schema 6:
--   UPDATE sessions SET expires_at_us = expires_at_us + (SELECT wall_us - served_us FROM log_time)
--       WHERE expires_at_us < 4611686018427387904;
--   UPDATE wills SET due_at_us = due_at_us + (SELECT wall_us - served_us FROM log_time);
--   DELETE FROM log_time;
--   DELETE FROM schema_migrations WHERE version = 7;
--   PRAGMA user_version = 6;
CREATE TABLE IF NOT EXISTS log_time (
    name      TEXT PRIMARY KEY,
    served_us INTEGER NOT NULL,
    aged_us   INTEGER NOT NULL,
    wall_us   INTEGER NOT NULL,
    revision  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

INSERT INTO log_time
SELECT 'log', at_us, at_us, at_us, 1
FROM (
    SELECT max(
        ifnull((SELECT published_at_us FROM messages ORDER BY offset DESC LIMIT 1), 0),
        ifnull((SELECT ifnull(stopped_at_us, started_at_us) FROM broker_runs ORDER BY id DESC LIMIT 1), 0)
    ) AS at_us
)
WHERE at_us > 0;

UPDATE sessions
SET expires_at_us = session_expiry_s * 1000000 + (SELECT served_us FROM log_time)
WHERE expires_at_us < 4611686018427387904
  AND expires_at_us - (SELECT served_us FROM log_time) NOT BETWEEN 1 AND session_expiry_s * 1000000;

UPDATE wills
SET due_at_us = delay_s * 1000000 + (SELECT served_us FROM log_time)
WHERE due_at_us - (SELECT served_us FROM log_time) NOT BETWEEN 0 AND delay_s * 1000000;

-- For people these times are what the wall clock will have then, if it is right now.
DROP VIEW history;
CREATE VIEW history AS
SELECT m.offset                                                                       AS offset,
       strftime('%Y-%m-%dT%H:%M:%S', m.published_at_us / 1000000, 'unixepoch')
           || printf('.%06dZ', m.published_at_us % 1000000)                           AS published_at,
       p.client_id                                                                    AS publisher,
       m.qos                                                                          AS qos,
       m.retain                                                                       AS retain,
       t.name                                                                         AS topic,
       m.payload                                                                      AS payload,
       m.published_at_us                                                              AS published_at_us,
       nullif(m.expires_at_us, 0)
           + ifnull((SELECT wall_us - aged_us FROM log_time), 0)                      AS expires_at_us
FROM messages m
JOIN topics t ON t.id = m.topic_id
JOIN publishers p ON p.id = m.publisher_id;

DROP VIEW subscribers;
CREATE VIEW subscribers AS
SELECT s.client_id                                                       AS client_id,
       s.expires_at_us IS NULL                                           AS connected,
       (SELECT count(*) FROM subscriptions f WHERE f.client_id = s.client_id) AS subscriptions,
       c.offset                                                          AS cursor,
       s.session_expiry_s                                                AS session_expiry_s,
       CASE WHEN s.expires_at_us < 4611686018427387904
           THEN s.expires_at_us + ifnull((SELECT wall_us - served_us FROM log_time), 0)
           ELSE s.expires_at_us
       END                                                               AS expires_at_us
FROM sessions s
LEFT JOIN cursors c ON c.client_id = s.client_id;
