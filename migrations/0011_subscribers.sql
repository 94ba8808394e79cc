-- For `pubsub subscribers`: when a client was last there (by the wall clock; 0: not known), how many messages
-- its session was sent again, and how many offsets were missing for it. Written when the client leaves.
--
-- The view `lag` said `lag` for what it does not know without a look at Topic Filters: it has the name of what
-- it counts now. The views for people say where to go instead of being changed.
--
-- The way back, with the broker stopped, to a program that knows only schema 10:
--   DROP TRIGGER subscribers_insert;
--   DROP TRIGGER subscribers_update;
--   DROP TRIGGER subscribers_delete;
--   DROP TRIGGER lag_insert;
--   DROP TRIGGER lag_update;
--   DROP TRIGGER lag_delete;
--   ALTER TABLE sessions DROP COLUMN last_seen_us;
--   ALTER TABLE sessions DROP COLUMN redelivered;
--   ALTER TABLE sessions DROP COLUMN missed;
--   DELETE FROM schema_migrations WHERE version = 11;
--   PRAGMA user_version = 10;
ALTER TABLE sessions ADD COLUMN last_seen_us INTEGER NOT NULL DEFAULT 0;
ALTER TABLE sessions ADD COLUMN redelivered INTEGER NOT NULL DEFAULT 0;
ALTER TABLE sessions ADD COLUMN missed INTEGER NOT NULL DEFAULT 0;

DROP VIEW lag;
CREATE VIEW lag AS
SELECT client_id,
       cursor,
       high_watermark,
       max(0, high_watermark - passed - (
           SELECT ifnull(sum(min(g.last, high_watermark) - max(g.first, passed + 1) + 1), 0)
           FROM gaps g
           WHERE g.last > passed AND g.first <= high_watermark
       )) AS messages_above_cursor
FROM (
    SELECT c.client_id,
           c.offset                                              AS cursor,
           (SELECT ifnull(max(offset), 0) FROM messages)         AS high_watermark,
           max(c.offset, (SELECT start - 1 FROM log))            AS passed
    FROM cursors c
);

CREATE TRIGGER subscribers_insert INSTEAD OF INSERT ON subscribers BEGIN
    SELECT RAISE(ABORT, 'this view is for reading; a subscriber is made by `pubsub sub --id` or `pubsub subscribers fork`');
END;
CREATE TRIGGER subscribers_update INSTEAD OF UPDATE ON subscribers BEGIN
    SELECT RAISE(ABORT, 'this view is for reading; to move a subscriber use `pubsub subscribers seek`');
END;
CREATE TRIGGER subscribers_delete INSTEAD OF DELETE ON subscribers BEGIN
    SELECT RAISE(ABORT, 'this view is for reading; to end a subscriber use `pubsub subscribers rm`');
END;
CREATE TRIGGER lag_insert INSTEAD OF INSERT ON lag BEGIN
    SELECT RAISE(ABORT, 'this view is for reading; to move a subscriber use `pubsub subscribers seek`');
END;
CREATE TRIGGER lag_update INSTEAD OF UPDATE ON lag BEGIN
    SELECT RAISE(ABORT, 'this view is for reading; to move a subscriber use `pubsub subscribers seek`');
END;
CREATE TRIGGER lag_delete INSTEAD OF DELETE ON lag BEGIN
    SELECT RAISE(ABORT, 'this view is for reading; to end a subscriber use `pubsub subscribers rm`');
END;
